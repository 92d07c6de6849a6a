"""Searching one's own videos: what indexing, a search and the first answer of the command take, and of what that is made."""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DefaultScope

from benchmarks.timing import Timing, environment, time_in_turn
from clipbert_mm.apis import VideoSearch
from clipbert_mm.apis.indexing import find_videos
from clipbert_mm.errors import ClipBertError
from clipbert_mm.index import EncodedVideo, Entry, VideoIndex
from clipbert_mm.registry import MODELS
from clipbert_mm.visualization.figures import save_figure

PHASES = ("interpreter", "import torch", "other imports", "model", "search")
"""What the command does until its first answer is there, in order."""

COMMAND = """
import json, sys, time
times = [time.time()]
import torch
times.append(time.time())
import clipbert_mm.__main__, clipbert_mm.datasets, clipbert_mm.models
from clipbert_mm.apis import VideoSearch
times.append(time.time())
checkpoint, weights, gallery, text, answer = sys.argv[1:]
search = VideoSearch(checkpoint, weights=weights, index=gallery)
times.append(time.time())
search.search(text, topk=1)
times.append(time.time())
with open(answer, "w") as file:
    json.dump(times, file)
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("videos", nargs="+", help="videos that are indexed, or folders of them")
    parser.add_argument("--checkpoint", help="weights (default: random ones, which are as quick)")
    parser.add_argument("--text", default="a red circle")
    parser.add_argument(
        "--gallery-size", type=int, default=1000, help="videos of one clip that are searched (default: 1000)"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (default: 1)")
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats (default: 5)")
    parser.add_argument(
        "--warmup", type=int, default=1, help="commands before, which find files that were not read yet (default: 1)"
    )


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Index videos, search a gallery of random visual tokens, and begin the command.

    Returns:
        A report of ``index``, ``search`` and ``first_answer``, each with times and ``ratio``, what it takes over what cannot
        be saved.
    """
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config.dump(folder / "config.py")
        weights = args.checkpoint or random_weights(config, folder / "random.pth")
        search = VideoSearch(folder / "config.py", args.device, weights=weights, index=folder / "gallery")
        index = measure_index(search, find_videos(args.videos), folder, args)
        search.video_index = VideoIndex(folder / "random")
        fill(search, args.gallery_size)
        return dict(
            environment=environment(args.device),
            videos=index.pop("videos"),
            gallery_size=args.gallery_size,
            index=index,
            search=measure_search(search, args),
            first_answer=measure_first_answer(folder, weights, args),
        )


def random_weights(config: Config, path: Path) -> str:
    """Write the weights that a model of this config begins with."""
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        torch.save(dict(state_dict=MODELS.build(config.model).state_dict()), path)
    return str(path)


def measure_index(search: VideoSearch, paths: list[str], folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Time indexing in one process, and with a worker, compared with only reading and encoding the same videos."""
    numbers = itertools.count()

    def indexed(workers: int) -> None:
        search.video_index = VideoIndex(folder / f"gallery{next(numbers)}")
        search.index(paths, workers=workers, batch_size=1)

    media = [search.predictor.read(path).frames for path in paths]
    timings = time_in_turn(
        {
            "indexing": lambda: indexed(0),
            "indexing with a worker": lambda: indexed(1),
            "reading": lambda: [search.predictor.read(path) for path in paths],
            "encoding": lambda: [search.predictor.encode([frames]) for frames in media],
        },
        repeats=args.repeats,
        device=args.device,
    )
    ratio = timings["indexing"].median / (timings["reading"].median + timings["encoding"].median)
    return dict(videos=len(paths), ratio=ratio) | {name: timing.to_dict() for name, timing in timings.items()}


def fill(search: VideoSearch, count: int) -> None:
    """Fill the gallery with the visual tokens of videos of one clip that do not exist, so that none can be decoded."""
    predictor, model = search.predictor, search.predictor.model
    search.video_index.start(predictor.identity, predictor.source, predictor.weights)
    size = next(step for step in predictor.media_steps if type(step).__name__ == "ResizePad").size
    with torch.no_grad():
        shape = model.encode_video(torch.zeros(1, 1, 1, 3, size, size, device=predictor.device)).shape[1:]  # (1, S, D)
    generator = torch.Generator().manual_seed(0)
    for first in range(0, count, 100):
        videos = []
        for i in range(first, min(first + 100, count)):
            tokens = torch.randn(shape, generator=generator)  # LayerNorm's scale
            entry = Entry(f"/nowhere/{i:07d}.mp4", 0, 0, 10.0, ((0.0, 10.0),), (size, size))
            videos.append(EncodedVideo(entry, tokens=dict(clips=tokens, coarse=tokens)))
        search.video_index.add(videos)


def measure_search(search: VideoSearch, args: argparse.Namespace) -> dict[str, Any]:
    """Time a search compared with the joint encoder alone, as in testing, on the same pairs with tokens in memory."""
    predictor, pieces = search.predictor, search.predictor.token_ids([args.text])
    tokens = torch.stack([search.video_index.tokens(path) for path in search.video_index.entries]).to(predictor.device)
    blocks = tokens.split(64)  # as many as the released implementation takes

    def encoder() -> None:
        with torch.no_grad():
            for block in blocks:
                predictor.score(block, pieces)

    contenders = {"search": lambda: search.search(args.text, topk=1, shortlist=0), "joint encoder": encoder}
    timings = time_in_turn(contenders, repeats=args.repeats, device=args.device)
    ratio = timings["search"].median / timings["joint encoder"].median
    return dict(ratio=ratio) | {name: timing.to_dict() for name, timing in timings.items()}


def measure_first_answer(folder: Path, weights: str, args: argparse.Namespace) -> dict[str, Any]:
    """Begin what the command does several times, each in a process of its own, on the gallery that was indexed.

    Raises:
        ClipBertError: If it ends without an answer.
    """
    gallery, answer = folder / "gallery0", folder / "times.json"
    runs = []
    for _ in range(args.warmup + args.repeats):
        started = time.time()
        command = [
            sys.executable,
            "-c",
            COMMAND,
            str(folder / "config.py"),
            weights,
            str(gallery),
            args.text,
            str(answer),
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ClipBertError(f"The search ended without an answer:\n{done.stderr.strip()[-2000:]}")
        times = [started, *json.loads(answer.read_text())]
        runs.append([after - before for before, after in itertools.pairwise(times)])
    runs = runs[args.warmup :]
    phases = {phase: Timing(own) for phase, own in zip(PHASES, zip(*runs, strict=True), strict=True)}
    total = Timing(tuple(sum(run) for run in runs))
    saved = sum(phases[phase].median for phase in PHASES[:-1])
    return dict(
        ratio=total.median / saved, total=total.to_dict(), phases={name: own.to_dict() for name, own in phases.items()}
    )


def draw(report: dict[str, Any], picture: str | Path) -> None:
    """Draw each of the three as bars: what it takes, and what it is made of."""
    index, search, first = (report[name] for name in ("index", "search", "first_answer"))
    panels = {
        f"indexing {report['videos']} videos, s": {name: index[name] for name in ("indexing", "reading", "encoding")},
        f"a search in {report['gallery_size']} videos of one clip, s": {
            name: search[name] for name in ("search", "joint encoder")
        },
        "first answer of the command, s": {"in all": first["total"], **first["phases"]},
    }
    figure = Figure(figsize=(12, 3), layout="constrained")
    for axes, (title, bars) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        drawn = axes.barh(list(bars)[::-1], [bar["median_s"] for bar in bars.values()][::-1], color="#4878a8")
        axes.bar_label(drawn, fmt="%.3g", padding=3)
        axes.margins(x=0.15)
        axes.set_title(title, fontsize=9, loc="left")
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{report.get('config', '')}; {report['environment']['device']}", fontsize=9)
    save_figure(figure, picture)
