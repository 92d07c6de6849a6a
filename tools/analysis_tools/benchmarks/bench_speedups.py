"""Time and memory of a step with each way of computing it, one at a time, compared with the same step without it."""

import argparse
import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DefaultScope

from benchmarks.bench_memory import allocated_peak, counted_peak
from benchmarks.memory_tracker import without_computing
from benchmarks.timing import environment, time_in_turn
from benchmarks.workload import (
    Setting,
    add_setting,
    build_model,
    build_wrapper,
    choose_clock,
    random_batch,
    read_setting,
    training_step,
)
from clipbert_mm.models import ClipBert
from clipbert_mm.registry import MODELS
from clipbert_mm.visualization.figures import save_figure

BLOCKS = ["backbone.layer2", "backbone.layer3", "backbone.layer4"]
LAYERS = ["encoder.bert.encoder.layer"]


@dataclass(frozen=True)
class Way:
    """A way of computing, by what is changed of the config's model, or of the model that was built.

    Args:
        model: Options of the model; those of a part in a dict.
        optimizer: Options of the optimizer.
        precision: Precision of matrix products; None for that of the command line.
        change: Does to the model what no option does; for what only a baseline has.
    """

    model: dict[str, Any] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    precision: str | None = None
    change: Callable[[ClipBert, Config, Setting], None] | None = None


def norms_apart(model: ClipBert, config: Config, setting: Setting) -> None:
    """Let batch norms be passes of their own, as the backbone's library has them."""
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        backbone = MODELS.build(config.model.backbone)
    backbone.load_state_dict(model.backbone.state_dict(), strict=False)
    model.backbone = backbone.to(memory_format=torch.channels_last)
    model.train()


def texts_to_the_maximum(model: ClipBert, config: Config, setting: Setting) -> None:
    """Pad all texts to the longest that the config allows, as the paper's release does."""
    pad = model.data_preprocessor.pad_texts

    def pad_texts(texts: list[Any]) -> dict[str, torch.Tensor]:
        return {key: F.pad(value, (0, setting.length - value.shape[1])) for key, value in pad(texts).items()}

    model.data_preprocessor.pad_texts = pad_texts


USUAL = "as configured"
WITHOUT = {
    "fused attention": Way(model=dict(encoder=dict(attention="eager"))),
    "channels last": Way(model=dict(channels_last=False)),
    "folded batch norms": Way(change=norms_apart),
    "fused AdamW": Way(optimizer=dict(fused=False, foreach=False)),
    "texts padded to the batch": Way(change=texts_to_the_maximum),
}
"""What is there by default, and the way without it."""
WITH = {
    "bf16": Way(precision="bf16"),
    "clip-sequential": Way(model=dict(clip_sequential=True)),
    "encoder checkpointed": Way(model=dict(checkpointed=LAYERS)),
    "backbone checkpointed": Way(model=dict(checkpointed=BLOCKS)),
    "bf16, clip-sequential, checkpointed": Way(
        model=dict(clip_sequential=True, checkpointed=LAYERS + BLOCKS), precision="bf16"
    ),
    "compiled": Way(model=dict(compiled=["backbone", "encoder.bert.encoder"])),
    "packed pairs, no dropout": Way(model=dict(pack_pairs=True, mlm_head=None, encoder=dict(dropout=0.0))),
}
"""What a config may switch on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be set."""
    add_setting(parser, batch=4)
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds of each pair (default: 5)")
    parser.add_argument("--only", nargs="+", choices=[*WITHOUT, *WITH], help="measure these alone")


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Time each way in turn with the usual one, and count or measure the peak of both.

    Returns:
        A report by way of ``with`` and ``without`` (``seconds`` and ``peak_bytes``), ``speedup`` and ``memory`` (peak with
        over peak without).
    """
    torch.set_num_threads(args.threads)
    setting = read_setting(config, args)
    ways = {}
    for name, way in (WITHOUT | WITH).items():
        if args.only is None or name in args.only:
            other, usual = compare(config, setting, way, args)
            having, lacking = (usual, other) if name in WITHOUT else (other, usual)
            ways[name] = {
                "with": having,
                "without": lacking,
                "speedup": lacking["seconds"]["median_s"] / having["seconds"]["median_s"],
                "memory": having["peak_bytes"] / lacking["peak_bytes"],
            }
    return dict(
        environment=environment(args.device),
        precision=args.precision,
        clock="time on the processor" if args.cpu_time else "wall clock",
        setting=setting.to_dict(),
        ways=ways,
    )


def compare(config: Config, setting: Setting, way: Way, args: argparse.Namespace) -> list[dict[str, Any]]:
    """Time steps of a way and of the usual one in turn, then find their peaks; a report for each."""
    pair = {"other": way, USUAL: Way()}
    models = {name: apply(config, each, setting, args.device) for name, each in pair.items()}
    precisions = {name: each.precision or args.precision for name, each in pair.items()}
    data = random_batch(models[USUAL], setting, longest=False)
    steps = {}
    for name, each in pair.items():
        wrapper = build_wrapper(models[name], config, **each.optimizer)
        steps[name] = partial(training_step, models[name], data, wrapper, precisions[name], args.device)
    timings = time_in_turn(steps, repeats=args.repeats, device=args.device, clock=choose_clock(args))
    peaks = {}
    for name, model in models.items():
        if torch.device(args.device).type == "cuda":
            peaks[name] = allocated_peak(model, setting, precisions[name], args.device)
        elif way.model.get("compiled"):
            peaks[name] = float("nan")  # what a compiler keeps is not seen without computing
        else:
            with without_computing(model, "cpu"):
                peaks[name] = counted_peak(model, setting, precisions[name], "cpu")
    return [dict(seconds=timings[name].to_dict(), peak_bytes=peaks[name]) for name in pair]


def apply(config: Config, way: Way, setting: Setting, device: str) -> ClipBert:
    """Build the model that computes in a way."""
    changed = copy.deepcopy(config)
    changed.merge_from_dict(dict(model=way.model))
    model = build_model(changed, device)
    if way.change is not None:
        way.change(model, changed, setting)
    return model


def draw(report: dict[str, Any], picture: str | Path) -> None:
    """Draw time and peak of each way over those without it."""
    ways = report["ways"]
    figure = Figure(figsize=(8.5, 1.3 + 0.36 * len(ways)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    places = range(len(ways), 0, -1)
    panels = (
        (left, [1 / way["speedup"] for way in ways.values()], "time of a step"),
        (right, [way["memory"] for way in ways.values()], "peak of memory"),
    )
    for axes, shares, what in panels:
        bars = axes.barh(places, shares, color="#4878a8")
        axes.bar_label(bars, fmt="%.2f", fontsize=8, padding=3)
        axes.axvline(1, color="black", linewidth=1)
        axes.set_xlabel(f"{what}, with over without")
        axes.margins(x=0.12)
        axes.spines[["top", "right"]].set_visible(False)
    left.set_yticks(places, ways)
    own = report["setting"]
    figure.suptitle(
        f"{report.get('config', '')}: batch {own['batch']}, {own['clips']} x {own['frames']} frames, {own['size']} px, "
        f"{report['precision']}; {report['environment']['device']}, threads: "
        f"{report['environment']['threads']}",
        fontsize=9,
    )
    save_figure(figure, picture)
