"""Memory of a training step and the largest batch that fits (Figure 5 a and c of the paper)."""

import argparse
import math
import multiprocessing
import re
from collections.abc import Callable
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from matplotlib.ticker import ScalarFormatter
from mmengine.config import Config

from benchmarks.bench_step import add_sweeps, sweeps
from benchmarks.memory_tracker import LiveBytes, without_computing
from benchmarks.timing import environment
from benchmarks.workload import (
    Setting,
    add_setting,
    build_model,
    loss_of,
    mixed_precision,
    random_batch,
    read_setting,
)
from clipbert_mm.engine.out_of_memory import ADAM_STATES, is_out_of_memory
from clipbert_mm.models import ClipBert
from clipbert_mm.models.memory_saving import clipwise_forward
from clipbert_mm.visualization.figures import save_figure

PAPER = {"clips": {2: 190, 16: 16}, "frames": {}}
"""Largest batches that the paper states for a V100 of 32 GB (Section 4.2)."""
PAPER_SIZE = 448
"""Longer side of its frames, in pixels."""
WAYS = {"plain": False, "clip_sequential": True}
COLORS = {"plain": "#4878a8", "clip_sequential": "#1a9641"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be set."""
    add_setting(parser, batch=8)
    add_sweeps(parser)
    parser.add_argument("--memory-limit", type=read_bytes, default="32GiB", metavar="SIZE", help="default: 32GiB")
    parser.add_argument(
        "--check",
        action="store_true",
        help="on a CPU, also do the step of the setting in a process of its own and report how much memory that took",
    )


def read_bytes(text: str) -> int:
    """Read a size.

    >>> read_bytes("32GiB")
    34359738368
    """
    found = re.fullmatch(r"([\d.]+)\s*(|[KMGT]i?)B?", text.strip())
    if found is None:
        raise argparse.ArgumentTypeError(f"expected a size such as 32GiB or 800MiB, got {text!r}")
    prefix = found[2]
    step = 1024 if prefix.endswith("i") else 1000
    return int(float(found[1]) * step ** " KMGT".index(prefix[:1] or " "))


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Find peak and largest batch along clips and frames, with all clips held and with one.

    On a GPU, steps are done and torch's peak of allocated memory is read. On a CPU, the tensors of a step are counted without
    computing it, so that any size can be asked about.

    Returns:
        A report of ``clips`` and ``frames``, lists with ``peak_bytes`` at the batch of the setting and ``largest_batch`` for
        each of the ways; ``fixed_bytes`` for weights, gradients and AdamW's state; ``check``, if asked for.
    """
    setting = read_setting(config, args)
    computed = torch.device(args.device).type == "cuda"
    report = dict(
        environment=environment(args.device),
        precision=args.precision,
        method="peak of torch's allocator" if computed else "tensors counted without computing, by the CPU's operators",
        memory_limit=args.memory_limit,
        setting={key: setting.to_dict()[key] for key in ("batch", "texts", "size", "length")},
    )
    if args.check and not computed:
        report["check"] = check(config, setting, args.precision)
    model = build_model(config, args.device)
    trained = sum(value.numel() * value.element_size() for value in model.parameters() if value.requires_grad)
    held = sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))
    report["fixed_bytes"] = held + (1 + ADAM_STATES) * trained
    if computed:
        return report | _sweep(model, sweeps(setting, args, config), args, ADAM_STATES * trained, allocated_peak)
    with without_computing(model, "cpu"):
        return report | _sweep(model, sweeps(setting, args, config), args, ADAM_STATES * trained, counted_peak)


Peak = Callable[[ClipBert, Setting, str, str], float]
"""From a model, a setting, a precision and a device to the peak in bytes of a forward and a backward pass."""


def _sweep(
    model: ClipBert, axes: dict[str, list[Setting]], args: argparse.Namespace, more: int, peak: Peak
) -> dict[str, Any]:
    """Return what :func:`measure` says of clips and frames; ``more`` bytes are held in addition to the passes."""
    found: dict[str, Any] = {}
    for axis, settings in axes.items():
        found[axis] = []
        for each in settings:
            row: dict[str, Any] = dict(clips=each.clips, frames=each.frames, peak_bytes={}, largest_batch={})
            for way, clip_sequential in WAYS.items():
                if clip_sequential and each.clips == 1:  # nothing to do one by one
                    row["peak_bytes"][way] = row["peak_bytes"]["plain"]
                    row["largest_batch"][way] = row["largest_batch"]["plain"]
                    continue
                model.clip_sequential = clip_sequential

                def peak_of(batch: int, each: Setting = each) -> float:
                    return peak(model, each.but(batch=batch), args.precision, args.device) + more

                row["peak_bytes"][way] = peak_of(each.batch)
                row["largest_batch"][way] = largest_batch(
                    peak_of, args.memory_limit, (each.batch, row["peak_bytes"][way])
                )
            found[axis].append(row)
    return found


def largest_batch(peak_of: Callable[[int], float], limit: float, known: tuple[int, float] | None = None) -> int:
    """Find the largest batch whose peak is within a limit; the peak grows with the batch, in the long run evenly.

    Args:
        peak_of: From a batch to its peak; infinite if it does not fit at all.
        limit: The limit.
        known: A batch and its peak, to begin from.

    >>> largest_batch(lambda batch: 100 + 7 * batch, 1000)
    128
    """
    batch, peak = known or (1, peak_of(1))
    fits, ends = 0, math.inf
    before: tuple[int, float] | None = None
    while True:
        fits, ends = (max(fits, batch), ends) if peak <= limit else (fits, min(ends, batch))
        if ends - fits <= 1:
            return fits
        guess = 2 * fits if ends == math.inf else (fits + int(ends)) // 2
        if math.isfinite(peak):
            if before is not None and peak != before[1]:  # where a line through both meets the limit
                guess = batch + math.floor((limit - peak) / (peak - before[1]) * (batch - before[0]))
            before = (batch, peak)
        batch = int(min(max(guess, fits + 1), ends - 1))
        peak = peak_of(batch)


def allocated_peak(model: ClipBert, setting: Setting, precision: str, device: str) -> float:
    """Do the passes on a GPU and return the peak of what torch allocated; infinite if memory ended."""
    data = random_batch(model, setting)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        loss_of(model, data, precision, device).backward()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        return math.inf
    finally:
        model.zero_grad()
        torch.cuda.empty_cache()
    return torch.cuda.max_memory_allocated(device)


def counted_peak(model: ClipBert, setting: Setting, precision: str, device: str) -> float:
    """Count the peak of all tensors of the passes, of a model whose tensors have no memory.

    What depends on numbers cannot be run so: for the loss stands a mean of the pooled logits, for that of masked words one over
    15 % of the tokens.
    """
    pixels = (setting.batch, setting.clips, setting.frames, setting.size, setting.size, 3)
    texts = setting.batch * setting.texts
    frames = torch.empty(pixels, dtype=torch.uint8)
    text_ids, text_mask = (torch.ones(texts, setting.length, dtype=torch.long) for _ in range(2))
    video_index = torch.arange(setting.batch).repeat_interleave(setting.texts)
    with LiveBytes(*model.parameters(), *model.buffers(), frames, text_ids, text_mask, video_index) as live:
        with mixed_precision(precision, device):
            inputs = (model.data_preprocessor.normalize(frames), text_ids, text_mask, video_index)
            predict = (
                partial(clipwise_forward, model, model.predict_clips) if model.clip_sequential else model.predict_clips
            )
            *states, clip_logits = predict(*inputs)
            loss = model.aggregator(clip_logits).mean()
            if model.mlm_head is not None:
                words = states[0].flatten(0, 2)[: math.ceil(0.15 * texts * setting.clips * setting.length)]
                scores = model.mlm_head(words, model.encoder.word_embeddings).float()
                loss = loss + F.cross_entropy(scores, torch.zeros(len(words), dtype=torch.long))
        loss.backward()
    model.zero_grad()
    return live.peak


def check(config: Config, setting: Setting, precision: str) -> dict[str, Any]:
    """Compare the count with what the system says of a step that is really done, in a process of its own."""
    model = build_model(config, "cpu")
    held = sum(value.numel() * value.element_size() for value in (*model.parameters(), *model.buffers()))
    with without_computing(model, "cpu"):
        counted = counted_peak(model, setting, precision, "cpu") - held
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe()
    process = context.Process(target=resident_growth, args=(theirs, config, setting, precision))
    process.start()
    theirs.close()
    measured = ours.recv()
    process.join()
    return dict(setting=setting.to_dict(), counted_bytes=counted, resident_bytes=measured)


def resident_growth(answer: Connection, config: Config, setting: Setting, precision: str) -> None:
    """Answer by how many bytes this process grows at most, beyond its built model, in a step."""
    model = build_model(config, "cpu")
    data = random_batch(model, setting)
    before = _status("VmRSS")
    loss_of(model, data, precision, "cpu").backward()
    answer.send(_status("VmHWM") - before)


def _status(field: str) -> int:
    """Return what Linux says of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith(field)).split()[1])


def draw(report: dict[str, Any], picture: str | Path) -> None:
    """Draw the largest batch, and the peak at one batch, against clips and frames."""
    figure = Figure(figsize=(9, 6.4), layout="constrained")
    grid = figure.subplots(2, 2, sharex="col")
    own = report["setting"]
    names = {"clips": "clips $N_{train}$ (T = 1)", "frames": "frames $T$ ($N_{train}$ = 1)"}
    for (above, below), (axis, label) in zip(grid.T, names.items(), strict=True):
        rows = sorted(report[axis], key=lambda row: row[axis])
        numbers = [row[axis] for row in rows]
        ways = WAYS if max(row["clips"] for row in rows) > 1 else ["plain"]
        for way in ways:
            style = dict(marker="o", color=COLORS[way], label=way.replace("_", "-"))
            batches = [row["largest_batch"][way] for row in rows]
            above.plot(numbers, batches, **style)
            offset = 6 if way == list(ways)[-1] else -12
            for number, batch in zip(numbers, batches, strict=True):
                where = dict(xytext=(0, offset), textcoords="offset points", ha="center", fontsize=8)
                above.annotate(str(batch), (number, batch), color=COLORS[way], **where)
            below.plot(numbers, [row["peak_bytes"][way] / 2**30 for row in rows], **style)
        if PAPER[axis] and own["size"] == PAPER_SIZE:
            above.plot(*zip(*PAPER[axis].items(), strict=True), "x", color="black", label="the paper, V100 of 32 GB")
        above.set_yscale("log", base=2)
        above.yaxis.set_major_formatter(ScalarFormatter())
        above.margins(y=0.15)
        above.set_ylabel(f"largest batch within {report['memory_limit'] / 2**30:g} GiB")
        below.set_ylabel(f"GiB at batch {own['batch']}")
        below.set_ylim(bottom=0)
        below.axhline(report["fixed_bytes"] / 2**30, color="gray", linestyle=":", label="weights, gradients, AdamW")
        below.set_xlabel(label)
        below.set_xticks(numbers)
        for axes in (above, below):
            axes.legend(fontsize=8)
    figure.suptitle(
        f"{report.get('config', '')}: {own['texts']} texts a video, {own['size']} px, {report['precision']}\n"
        f"{report['method']}; {report['environment']['device']}",
        fontsize=10,
    )
    save_figure(figure, picture)
