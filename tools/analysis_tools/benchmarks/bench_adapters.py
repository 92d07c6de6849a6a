"""Adapters to and from MMAction2's transforms: their share of the time that loading takes."""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.dataset import Compose

from benchmarks import bench_load
from benchmarks.timing import Timing, environment
from clipbert_mm.datasets.transforms import (
    ClipBertTransforms,
    DecodeClips,
    MMActionTransforms,
    OpenVideo,
    ResizePad,
    SampleClips,
)
from clipbert_mm.errors import OptionError
from clipbert_mm.visualization.figures import save_figure

AUGMENTATION = (
    dict(type="RandomResizedCrop", area_range=(0.8, 1.0)),
    dict(type="Flip"),
    dict(type="ColorJitter", hue=0),
)
LOADING, STEPS, ADAPTER = "all of loading", "its transforms", "the adapter"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of ``benchmark.py adapters``, which are those of ``load``."""
    bench_load.add_arguments(parser)


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Time pipelines with an adapter over each set of videos, in turn.

    Raises:
        OptionError: If the config trains on no videos.
    """
    settings = bench_load._settings(config, "train")
    if settings is None:
        raise OptionError("benchmark.py adapters expects a config that trains on videos, got none with OpenVideo.")
    report: dict[str, Any] = dict(environment=environment(), clock=bench_load.CLOCK, repeats=args.repeats, results=[])
    for title, paths in bench_load._choose_videos(config, args).items():
        with bench_load.one_core():
            results = compare(paths, pipelines(*settings), args.repeats)
        report["results"] += [dict(videos=title, count=len(paths), **result) for result in results]
    return report


def pipelines(sampler: SampleClips, resize: ResizePad) -> dict[str, Callable[[], Compose]]:
    """Return builders of the pipelines, by what they do."""
    theirs = [
        dict(type="DecordInit"),
        dict(type="SampleFrames", clip_len=sampler.num_frames, num_clips=sampler.num_clips),
        dict(type="DecordDecode"),
    ]
    first: list[Any] = [OpenVideo(), sampler, DecodeClips()]
    pad = dict(type="ResizePad", size=resize.size)
    read_theirs = MMActionTransforms(transforms=theirs).steps  # without the adapter
    return {
        "no new frames (Flip)": lambda: Compose([*first, MMActionTransforms(transforms=[dict(type="Flip")]), resize]),
        "augmentation (crop, flip, colors)": lambda: Compose(
            [*first, MMActionTransforms(transforms=AUGMENTATION), resize]
        ),
        "MMAction2 reads": lambda: Compose([MMActionTransforms(transforms=theirs), resize]),
        "ours in MMAction2's": lambda: Compose(
            [*(step for _, step in read_theirs), ClipBertTransforms(transforms=[pad])]
        ),
    }


def compare(paths: Sequence[str], builders: Mapping[str, Callable[[], Compose]], repeats: int) -> list[dict[str, Any]]:
    """Time the pipelines, video by video and in turn, and their adapters within.

    Returns:
        For each pipeline the processor time of all videos of a round (median, quickest, slowest; seconds) of loading as a
        whole, of the transforms that the adapter applies, and of the adapter itself; and the median share of the latter.
    """
    built = {name: _watched(build()) for name, build in builders.items()}
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in built}
    for number in range(repeats + 1):
        for name, (steps, spent) in built.items():
            spent.update(dict.fromkeys(spent, 0.0))
            started = time.process_time()
            for seed, path in enumerate(paths):
                rng = np.random.default_rng((number, seed))
                steps(dict(path=path, filename=path, modality="RGB", start_index=0, rng=rng))
            if number:  # the first round warms up
                rounds[name].append(spent | {LOADING: time.process_time() - started})
    return [
        dict(
            pipeline=name,
            share=float(np.median([each[ADAPTER] / each[LOADING] for each in found])),
            times={part: Timing(tuple(each[part] for each in found)).to_dict() for part in found[0]},
        )
        for name, found in rounds.items()
    ]


def _watched(pipeline: Compose) -> tuple[Compose, dict[str, float]]:
    """Count the time of a pipeline's adapter, without the transforms that it applies, and theirs."""
    spent = {STEPS: 0.0, ADAPTER: 0.0}

    def count(step: Callable[[Any], Any], part: str) -> Callable[[Any], Any]:
        def counted(results: Any) -> Any:
            if part == ADAPTER:
                results = results.copy()  # decodes the frames, which is no work of the adapter
            started, inner = time.process_time(), spent[STEPS]
            done = step(results)
            took = time.process_time() - started
            spent[part] += took if part == STEPS else took - (spent[STEPS] - inner)
            return done

        return counted

    for i, step in enumerate(pipeline.transforms):
        if isinstance(step, (MMActionTransforms, ClipBertTransforms)):
            step.steps = [(name, count(each, STEPS)) for name, each in step.steps]  # type: ignore[misc]
            pipeline.transforms[i] = count(step, ADAPTER)
    return pipeline, spent


def draw(report: Mapping[str, Any], picture: Path) -> None:
    """Draw the share of the adapter in the time of each pipeline."""
    results = report["results"]
    figure = Figure(figsize=(8, 0.8 + 0.45 * len(results)), layout="constrained")
    axes = figure.subplots()
    for row, result in enumerate(reversed(results)):
        axes.barh(row, 100 * result["share"], color="#4878a8")
        whole = 1000 * result["times"][LOADING]["median_s"] / result["count"]
        axes.text(
            100 * result["share"], row, f"  {100 * result['share']:.2f} % of {whole:.1f} ms", va="center", fontsize=8
        )
    axes.set_yticks(
        range(len(results)), [f"{result['pipeline']}, {result['videos']}" for result in reversed(results)], fontsize=8
    )
    axes.axvline(3, color="#d1495b", linewidth=1)
    axes.margins(x=0.3)
    axes.set_xlabel("share of the adapter in the CPU time of loading a video, percent", fontsize=8)
    save_figure(figure, picture)
