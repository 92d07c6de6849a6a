"""Time of a training step against the clips of a video and the frames of a clip (Figure 5 b and d of the paper)."""

import argparse
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.optim import OptimWrapper

from benchmarks.flops import ModuleFlops, step_flops
from benchmarks.timing import environment, matrix_rate, time_in_turn
from benchmarks.workload import (
    PRECISIONS,
    Setting,
    add_setting,
    build_model,
    build_wrapper,
    choose_clock,
    loss_of,
    random_batch,
    read_setting,
    training_step,
)
from clipbert_mm.models import ClipBert
from clipbert_mm.visualization.figures import save_figure

NUMBERS = (1, 2, 4, 8, 16)
"""Clips, and frames, of the paper's Figure 5."""
PASSES = {"forward": "forward", "backward": "forward and backward", "step": "with the optimizer"}
COLORS = {"forward": "#7fa8cf", "backward": "#4878a8", "step": "#22415f"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be set."""
    add_setting(parser, batch=2)
    add_sweeps(parser)
    parser.add_argument("--repeats", type=int, default=5, help="timed rounds (default: 5)")


def add_sweeps(parser: argparse.ArgumentParser) -> None:
    """Add the numbers of clips and of frames."""
    usual = " ".join(map(str, NUMBERS))
    for name, what in (("--sweep-clips", "clips N_train, at T = 1"), ("--sweep-frames", "frames T, at N_train = 1")):
        parser.add_argument(name, type=int, nargs="+", default=list(NUMBERS), help=f"{what} (default: {usual})")


def sweeps(setting: Setting, args: argparse.Namespace, config: Config) -> dict[str, list[Setting]]:
    """Return the settings along the clips, and along the frames; a video backbone's clips have the frames that it takes."""
    frames = config.model.backbone.get("num_frames")
    return {
        "clips": [setting.but(clips=number, frames=frames or 1) for number in args.sweep_clips],
        "frames": [setting.but(clips=1, frames=number) for number in ([frames] if frames else args.sweep_frames)],
    }


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Time steps on random pixels and words.

    Returns:
        A report of ``clips`` and ``frames``, lists of settings with what :func:`measure_setting` says of them; ``matrix_rate``
        in FLOP/s, the limit; ``modules``, multiply-adds of one video with one text.
    """
    clock, precision = choose_clock(args), PRECISIONS[args.precision]
    torch.set_num_threads(args.threads)
    setting = read_setting(config, args)
    model = build_model(config, args.device)
    wrapper = build_wrapper(model, config)
    rates = [matrix_rate(args.device, precision, clock=clock)]
    rows: dict[str, list[dict[str, Any]]] = {
        axis: [measure_setting(model, wrapper, each, args) for each in settings]
        for axis, settings in sweeps(setting, args, config).items()
    }
    rates.append(matrix_rate(args.device, precision, clock=clock))
    rate = max(rates)  # before and after; what is slower was disturbed
    for row in [row for own in rows.values() for row in own]:
        row["flop_rate"] = row["flop_backward"] / row["seconds"]["backward"]["median_s"]
        row["share_of_matrix_rate"] = row["flop_rate"] / rate
    flops = ModuleFlops(model, clips=setting.clips, frames=setting.frames, size=setting.size, length=setting.length)
    modules = dict(
        parts=flops.by_part(),
        fvcore=flops.total,
        fvcore_multiplications=flops.multiplications,
        torch=flops.by_torch(),
        clips=setting.clips,
        frames=setting.frames,
    )
    common = {key: setting.to_dict()[key] for key in ("batch", "texts", "size", "length")}
    return dict(
        environment=environment(args.device),
        precision=args.precision,
        clock="time on the processor" if args.cpu_time else "wall clock",
        setting=common,
        matrix_rate=rate,
        modules=modules,
        **rows,
    )


def measure_setting(
    model: ClipBert, wrapper: OptimWrapper, setting: Setting, args: argparse.Namespace
) -> dict[str, Any]:
    """Time the passes of a setting in turn, and count their FLOPs (a multiply-add is two)."""
    data = random_batch(model, setting)

    def forward() -> torch.Tensor:
        return loss_of(model, data, args.precision, args.device)

    def backward() -> None:
        forward().backward()
        model.zero_grad()

    with step_flops() as counter:  # also the warm-up
        loss = forward()
        forward_flop = counter.get_total_flops()
        loss.backward()
    model.zero_grad()
    contenders = {
        "forward": forward,
        "backward": backward,
        "step": lambda: training_step(model, data, wrapper, args.precision, args.device),
    }
    timings = time_in_turn(contenders, repeats=args.repeats, device=args.device, clock=choose_clock(args))
    return dict(
        clips=setting.clips,
        frames=setting.frames,
        seconds={name: timing.to_dict() for name, timing in timings.items()},
        flop_forward=forward_flop,
        flop_backward=counter.get_total_flops(),
    )


def draw(report: dict[str, Any], picture: str | Path) -> None:
    """Draw time, and achieved FLOP/s with its limit, against clips and frames."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    grid = figure.subplots(2, 2, sharex="col")
    names = {"clips": "clips $N_{train}$ (T = 1)", "frames": "frames $T$ ($N_{train}$ = 1)"}
    for column, (axis, label) in enumerate(names.items()):
        rows = sorted(report[axis], key=lambda row: row[axis])
        _draw_times(grid[0, column], rows, axis)
        numbers = [row[axis] for row in rows]
        axes = grid[1, column]
        axes.plot(numbers, [row["flop_rate"] / 1e9 for row in rows], "o-", color=COLORS["backward"], label="achieved")
        axes.axhline(report["matrix_rate"] / 1e9, color="black", linestyle="--", label="plain matrix product")
        axes.set_ylim(bottom=0)
        axes.set_xlabel(label)
        axes.set_xticks(numbers)
        axes.set_ylabel("GFLOP/s, forward and backward")
        axes.legend(fontsize=8)
    own = report["setting"]
    figure.suptitle(
        f"{report.get('config', '')}: batch {own['batch']}, {own['texts']} texts a video, {own['size']} px, "
        f"{report['precision']}\n{report['environment']['device']}, threads: {report['environment']['threads']}, "
        f"{report['clock']}",
        fontsize=10,
    )
    save_figure(figure, picture)


def _draw_times(axes: Axes, rows: list[dict[str, Any]], axis: str) -> None:
    numbers = [row[axis] for row in rows]
    for name, label in PASSES.items():
        times = [row["seconds"][name] for row in rows]
        middle = [time["median_s"] for time in times]
        axes.plot(numbers, middle, "o-", color=COLORS[name], label=label)
        low, high = ([time[key] for time in times] for key in ("min_s", "max_s"))
        axes.fill_between(numbers, low, high, color=COLORS[name], alpha=0.2, linewidth=0)
    axes.set_ylim(bottom=0)
    axes.set_ylabel("seconds per step")
    axes.legend(fontsize=8)
