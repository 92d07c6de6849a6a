"""The index with generated entries: adding, searching, filters, removing and pruning, their times, memory and disk."""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config

from benchmarks.timing import environment
from benchmarks.vector_engines import CLIPS, WIDTH, forget_files, open_vectors
from benchmarks.vector_set import make_queries, write_vectors
from clipbert_mm.errors import OptionError
from clipbert_mm.index import EncodedVideo, Entry, Filter, VideoIndex
from clipbert_mm.visualization.figures import save_figure

MORE = 1000
"""Videos that are added to an index of the given size, and to an empty one."""
FOLDERS = 100
"""Folders of the generated videos."""
COLD = """
import json, sys, time
import numpy, torch
from benchmarks import bench_index
from clipbert_mm.index import VideoIndex
def kilobytes(name):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(name))
torch.set_num_threads(int(sys.argv[3]))
before = kilobytes("VmRSS")
start = time.perf_counter()
index = VideoIndex(sys.argv[1])
query = torch.from_numpy(numpy.load(sys.argv[2])[0])
found = index.nearest(query, 128, pooling="max")
cold = time.perf_counter() - start
warm = []
for _ in range(7):
    start = time.perf_counter()
    index.nearest(query, 128, pooling="max")
    warm.append(time.perf_counter() - start)
filtered = []
for _ in range(7):
    start = time.perf_counter()
    index.nearest(query, 128, pooling="max", where=bench_index.CONDITION)
    filtered.append(time.perf_counter() - start)
print(json.dumps(dict(cold_s=cold, warm_s=warm, filtered_s=filtered, found=list(found.similarities),
    resident_bytes=1024 * (kilobytes("VmHWM") - before), private_bytes=1024 * (kilobytes("RssAnon")))))
"""
CONDITION = Filter(folders=("/nowhere/007",), min_seconds=20.0)
"""Conditions of the search that is timed with conditions."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("--videos", type=int, default=100_000, help="generated videos of 16 clips (default: 100,000)")
    parser.add_argument(
        "--batch", type=int, default=4, help="videos of a transaction, as indexing adds them (default: 4)"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads (default: 2)")
    parser.add_argument("--folder", type=Path, help="where the index is written (default: a temporary folder)")


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Measure an index of generated entries.

    Returns:
        A report with times in seconds, of single operations and of searches (cold, and 7 warm ones), and bytes.

    Raises:
        OptionError: If there are too few videos.
    """
    if args.videos < FOLDERS or args.batch < 1:
        raise OptionError(f"benchmark.py index expects at least {FOLDERS} videos and a batch of 1, got {args.videos}.")
    torch.set_num_threads(args.threads)
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        write_vectors(folder / "vectors.f16", args.videos + MORE)
        vectors = open_vectors(folder / "vectors.f16")
        np.save(folder / "queries.npy", make_queries(vectors, 1))
        index, empty = (new_index(folder / part) for part in ("index", "empty"))
        filled = timed(lambda: add(index, vectors, range(args.videos), 1000))
        more = range(args.videos, args.videos + MORE)
        added = dict(
            to_empty_s=timed(lambda: add(empty, vectors, more, args.batch)),
            to_filled_s=timed(lambda: add(index, vectors, more, args.batch)),
        )
        files = [path for path in index.folder.rglob("*") if path.is_file()]
        disk = sum(path.stat().st_size for path in files)
        forget_files(files)
        searched = run_cold(index.folder, folder / "queries.npy", args.threads)
        expected = brute_force(vectors, np.load(folder / "queries.npy")[0])
        if set(searched.pop("found")) != expected:
            raise AssertionError("a search found other videos than a comparison of all vectors in double precision")
        one_folder = index.paths_below("/nowhere/003")
        removed = dict(
            videos=len(one_folder),
            remove_s=timed(lambda: index.remove(one_folder)),
            page_s=timed(lambda: list(index.listed(first=args.videos // 2, most=50))),
            count_s=timed(lambda: index.count(CONDITION)),
            find_gone_s=timed(lambda: [not os.path.exists(entry.path) for entry in index.listed()]),
            states_s=timed(lambda: index.states(index.paths_below("/nowhere/004"))),
            compact_s=timed(lambda: index.compact(always=True)),
        )
    return dict(
        environment=environment() | dict(load=os.getloadavg()),
        videos=args.videos + MORE,
        vector_bytes=(args.videos + MORE) * CLIPS * WIDTH * 2,
        disk_bytes=disk,
        fill_s=filled,
        added=added,
        search=searched,
        removed=removed,
    )


def new_index(folder: Path) -> VideoIndex:
    """Return an empty index of vectors without tokens."""
    index = VideoIndex(folder)
    index.start("generated", "generated", "generated", vector_size=WIDTH, keeps_tokens=False)
    return index


def videos_of(vectors: np.ndarray, numbers: range) -> Iterator[EncodedVideo]:
    """Yield videos that do not exist, in their folders, with their vectors."""
    for i in numbers:
        seconds = 10.0 + i % 300
        times = tuple((seconds * k / CLIPS, seconds * (k + 1) / CLIPS) for k in range(CLIPS))
        entry = Entry(path_of(i), 10**6 + i, i * 10**9, seconds, times, (224, 224), 3, f"{i:032x}")
        yield EncodedVideo(entry, torch.from_numpy(np.array(vectors[CLIPS * i : CLIPS * (i + 1)])))


def path_of(number: int) -> str:
    """Return the path of a generated video."""
    return f"/nowhere/{number % FOLDERS:03}/video_{number:07}.mp4"


def add(index: VideoIndex, vectors: np.ndarray, numbers: range, batch: int) -> None:
    """Add videos, so many in a transaction."""
    for first in range(numbers.start, numbers.stop, batch):
        index.add(list(videos_of(vectors, range(first, min(first + batch, numbers.stop)))))


def timed(act: Any) -> float:
    """Return the seconds of a call."""
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def run_cold(folder: Path, queries: Path, threads: int) -> dict[str, Any]:
    """Search in a process of its own, which counts no imports."""
    command = [sys.executable, "-c", COLD, str(folder), str(queries), str(threads)]
    paths = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ | {"PYTHONPATH": paths})
    return json.loads(done.stdout)


def brute_force(vectors: np.ndarray, query: np.ndarray) -> set[str]:
    """Return the 128 nearest videos by double precision."""
    scores = [
        vectors[start : start + 65536].astype(np.float64) @ query.astype(np.float64)
        for start in range(0, len(vectors), 65536)
    ]
    best = np.argsort(-np.concatenate(scores).reshape(-1, CLIPS).max(1))[:128]
    return {path_of(int(i)) for i in best}


def draw(report: dict[str, Any], path: Path) -> None:
    """Draw the times of single operations."""
    search = {name: np.median(report["search"][f"{name}_s"]) for name in ("cold", "warm", "filtered")}
    bars = search | {
        name.removesuffix("_s"): report["removed"][name] for name in report["removed"] if name.endswith("_s")
    }
    figure = Figure(figsize=(7, 3), layout="constrained")
    axes = figure.subplots()
    axes.barh(list(bars), list(bars.values()))
    axes.set_xlabel(f"seconds, of {report['videos']:,} videos")
    axes.invert_yaxis()
    for name, seconds in bars.items():
        axes.text(seconds, name, f" {seconds:.3f}", va="center")
    axes.margins(x=0.12)
    save_figure(figure, path)
