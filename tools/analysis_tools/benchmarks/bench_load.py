"""Loading: videos a second on one core, where the time goes, and what a dataloader's workers hand over."""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.dataset import Compose
from scanning import config_files
from torch.utils.data import DataLoader, Dataset

from benchmarks.load_baselines import read_as_released, read_plainly
from benchmarks.load_figure import draw_loading
from benchmarks.timing import environment, time_in_turn
from benchmarks.video_set import write_videos
from clipbert_mm.datasets.transforms import DecodeClips, OpenVideo, ResizePad, SampleClips
from clipbert_mm.errors import BackendError, OptionError
from clipbert_mm.media.readers import BACKENDS, check_backend
from clipbert_mm.media.readers.pyav_reader import PyAVReader
from clipbert_mm.registry import TRANSFORMS

PLAIN, RELEASED = "plain decord", "as released"
"""The baselines, as reports call them."""
PARTS = ("open", "read", "decode", "convert", "resize", "rest")
"""Where the time goes; opening and indexing, seeking and reading packets, decoding, YUV to RGB, scaling, copies and Python."""

CLOCK = "processor time of the process and all its threads; workers: time on the wall"
"""What the times of a report are. Processor time is what a core has to give, whatever else runs on the machine."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``benchmark.py load``."""
    parser.add_argument("--videos", type=int, default=20, help="videos of the config's data that are read")
    parser.add_argument("--generate", type=int, metavar="N", help="read N generated MSRVTT-like videos instead")
    parser.add_argument("--keyframes", type=int, nargs="+", default=[250, 30], help="key-frame distances of these")
    parser.add_argument("--bframes", type=int, help="B-frames of these (default: x264's choice)")
    parser.add_argument("--media", type=Path, default=Path("work_dirs/benchmarks/videos"), help="where these are kept")
    parser.add_argument("--backends", nargs="+", choices=list(BACKENDS), help="decoders (default: those installed)")
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds for each video")
    parser.add_argument("--workers", type=int, nargs="*", default=[1, 2], help="numbers of dataloader workers to try")


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Time each way of reading, for training and testing clips, over each set of videos.

    Raises:
        OptionError: If the config reads no videos.
    """
    settings = {split: found for split in ("train", "test") if (found := _settings(config, split))}
    if not settings:
        raise OptionError(
            "benchmark.py load expects a config whose pipelines have OpenVideo, SampleClips and ResizePad, got none."
        )
    cases = [
        (title, paths, split, *steps)
        for title, paths in _choose_videos(config, args).items()
        for split, steps in settings.items()
    ]
    report: dict[str, Any] = dict(environment=environment(), clock=CLOCK, repeats=args.repeats, results=[])
    for title, paths, split, sampler, resize in cases:
        with one_core():
            timings = compare(paths, sampler, resize, _usable(args.backends), args.repeats)
            parts = profile(paths, sampler, resize, args.repeats)
        report["results"].append(
            dict(
                videos=title,
                count=len(paths),
                split=split,
                clips=f"{sampler.num_clips}x{sampler.num_frames}",
                size=resize.size,
                **timings,
                profile=parts,
                workers={str(n): dataloader_rate(paths, sampler, resize, n) for n in args.workers},
            )
        )
    return report


def _settings(config: Config, split: str) -> tuple[SampleClips, ResizePad] | None:
    """Build what a split's pipeline samples and scales by; None if it reads no videos."""
    dataset = (config.get(f"{split}_dataloader") or {}).get("dataset") or {}
    steps = {step["type"].split(".")[-1]: step for step in dataset.get("pipeline", ())}
    if not {"OpenVideo", "SampleClips", "ResizePad"} <= set(steps):
        return None
    return TRANSFORMS.build(steps["SampleClips"]), TRANSFORMS.build(steps["ResizePad"])


def _choose_videos(config: Config, args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the files to read, by what they are."""
    if args.generate:
        kind = "" if args.bframes is None else f", {args.bframes} B-frames"
        return {
            f"key frames every {distance}{kind}": [
                str(path) for path in write_videos(args.media, args.generate, distance, args.bframes)
            ]
            for distance in args.keyframes
        }
    found = {name: sorted(files)[: args.videos] for name, files in config_files(config).items()}
    return {name: files for name, files in found.items() if files}


def _usable(backends: Sequence[str] | None) -> list[str]:
    """Return the backends asked for, or those that can be used."""
    usable = []
    for backend in backends or BACKENDS:
        try:
            check_backend(backend)
        except BackendError:
            if backends:
                raise
            continue
        usable.append(backend)
    return usable


@contextmanager
def one_core() -> Iterator[None]:
    """Keep this process, its decoders, OpenCV and torch on one core."""
    threads, cores = (torch.get_num_threads(), cv2.getNumThreads()), None
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if hasattr(os, "sched_setaffinity"):
        cores = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        torch.set_num_threads(threads[0])
        cv2.setNumThreads(threads[1])
        if cores:
            os.sched_setaffinity(0, cores)


def pipeline(sampler: SampleClips, resize: ResizePad, backend: str = "pyav") -> Compose:
    """Return the steps from a path to frames as the model takes them."""
    return Compose([OpenVideo(backend=backend), sampler, DecodeClips(), resize])


def compare(
    paths: Sequence[str], sampler: SampleClips, resize: ResizePad, backends: Sequence[str], repeats: int
) -> dict[str, Any]:
    """Time all ways of reading the same clips on the processor, video by video, in turn.

    Returns:
        ``ways``: for each way its time a video in milliseconds (median, quartiles, mean), videos a second, and how many times
        as quick as plain decord it is (median over videos and rounds, quartiles). ``refused``: for each way that cannot read a
        file, the reason.
    """
    seconds: dict[str, list[float]] = {}
    refused: dict[str, str] = {}
    for number, path in enumerate(paths):
        contenders = _contenders(path, sampler, resize, backends, number)
        for name, read in list(contenders.items()):
            try:
                read()
            except Exception as error:
                refused.setdefault(name, f"{type(error).__name__}: {error}")
        contenders = {name: read for name, read in contenders.items() if name not in refused}
        for name, timing in time_in_turn(contenders, repeats=repeats, warmup=0, clock=time.process_time).items():
            seconds.setdefault(name, []).extend(timing.seconds)
    ways = {name: values for name, values in seconds.items() if name not in refused}
    return dict(ways={name: _summary(values, ways.get(PLAIN)) for name, values in ways.items()}, refused=refused)


def _contenders(
    path: str, sampler: SampleClips, resize: ResizePad, backends: Sequence[str], seed: int
) -> dict[str, Callable[[], object]]:
    """Return each way of reading the clips of one video; all of them the same clips if its frame rate is constant."""
    found: dict[str, Callable[[], object]] = {}
    for backend in backends:
        steps = pipeline(sampler, resize, backend)
        found[backend] = lambda steps=steps: steps(dict(path=path, rng=np.random.default_rng(seed)))  # type: ignore[misc]
    found[PLAIN] = lambda: read_plainly(path, sampler, resize.size, seed)
    found[RELEASED] = lambda: read_as_released(path, sampler, resize.size, seed)
    return found


def _summary(seconds: Sequence[float], plain: Sequence[float] | None) -> dict[str, Any]:
    milliseconds = [1000 * value for value in seconds]
    low, middle, high = np.percentile(milliseconds, [25, 50, 75]).tolist()
    found = dict(median_ms=middle, quartiles_ms=[low, high], mean_ms=statistics.mean(milliseconds))
    found["videos_per_second"] = 1000 / found["mean_ms"]
    if plain:
        low, middle, high = np.percentile(np.array(plain) / np.array(seconds), [25, 50, 75]).tolist()
        found |= dict(times_plain=middle, times_plain_quartiles=[low, high])
    return found


class Clock:
    """Adds up the processor time of parts; what one part does within another counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self._running: list[list[float]] = []

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Count what is done within."""
        started = time.process_time()
        self._running.append([0.0])
        try:
            yield
        finally:
            took = time.process_time() - started
            self.seconds[name] += took - self._running.pop()[0]
            if self._running:
                self._running[-1][0] += took

    def wrap(self, name: str, function: Callable) -> Callable:
        """Return a function whose calls are counted."""

        def counted(*args: Any, **kwargs: Any) -> Any:
            with self.part(name):
                return function(*args, **kwargs)

        return counted

    def wrap_each(self, name: str, function: Callable) -> Callable:
        """Return a generator function whose steps are counted."""

        def counted(*args: Any, **kwargs: Any) -> Iterator[Any]:
            steps = function(*args, **kwargs)
            while True:
                with self.part(name):
                    try:
                        value = next(steps)
                    except StopIteration:
                        return
                yield value

        return counted


@contextmanager
def _watched(clock: Clock) -> Iterator[None]:
    """Let a clock run in PyAVReader's parts."""
    kept = {name: getattr(PyAVReader, name) for name in ("__init__", "fetch", "decode", "convert")}
    for name, part in (("__init__", "open"), ("fetch", "read"), ("convert", "convert")):
        setattr(PyAVReader, name, clock.wrap(part, kept[name]))
    PyAVReader.decode = clock.wrap_each("decode", kept["decode"])  # type: ignore[method-assign]
    try:
        yield
    finally:
        for name, function in kept.items():
            setattr(PyAVReader, name, function)


def profile(paths: Sequence[str], sampler: SampleClips, resize: ResizePad, repeats: int) -> dict[str, float]:
    """Return where the default reader's time goes: milliseconds a video for each of :data:`PARTS`."""
    clock = Clock()
    steps = pipeline(sampler, resize)
    steps.transforms[-1] = clock.wrap("resize", resize)
    with _watched(clock):
        for _ in range(repeats):
            for number, path in enumerate(paths):
                with clock.part("rest"):
                    steps(dict(path=path, rng=np.random.default_rng(number)))
    return {name: 1000 * seconds / (repeats * len(paths)) for name, seconds in clock.seconds.items()}


class ClipSet(Dataset):
    """The frames of some videos, for a dataloader.

    Args:
        paths: The videos.
        steps: From a path to frames.
    """

    def __init__(self, paths: Sequence[str], steps: Compose) -> None:
        self.paths = paths
        self.steps = steps

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, idx: int) -> np.ndarray:
        """Return the frames of a video, uint8 (K, T, size, size, 3)."""
        return self.steps(dict(path=self.paths[idx], rng=np.random.default_rng(idx)))["frames"]


def dataloader_rate(
    paths: Sequence[str], sampler: SampleClips, resize: ResizePad, workers: int, batch_size: int = 4
) -> float:
    """Return the videos a second that a dataloader gives, from the first batch to the last of a second round."""
    loader = DataLoader(
        ClipSet(list(paths) * 2, pipeline(sampler, resize)),
        batch_size=batch_size,
        num_workers=workers,
        persistent_workers=workers > 0,
        multiprocessing_context="fork" if workers and hasattr(os, "fork") else None,
    )
    for _ in loader:  # the workers have started, the files are in memory
        pass
    started = time.perf_counter()
    count = sum(len(frames) for frames in loader)
    return count / (time.perf_counter() - started)


def draw(report: Mapping[str, Any], picture: Path) -> None:
    """Draw a report."""
    draw_loading(report["results"], (PLAIN, RELEASED), picture)
