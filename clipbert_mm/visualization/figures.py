"""Figures with matplotlib, each written to one file."""

import json
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from clipbert_mm.datasets.transforms import DecodeClips, OpenVideo, SampleClips
from clipbert_mm.evaluation.retrieval_metric import read_rankings

CORRECT, WRONG = "#1a9641", "#bbbbbb"


def read_film_strip(path: str, num_frames: int = 3) -> np.ndarray:
    """Read evenly spaced frames of a video and join them side by side, (H, num_frames·W, 3) uint8 RGB."""
    results = OpenVideo().transform({"path": path})
    sampler = SampleClips(num_clips=num_frames, num_frames=1, clip_seconds=0.5, mode="uniform")
    frames = DecodeClips().transform(sampler.transform(results))["frames"]  # (num_frames, 1, H, W, 3)
    return np.concatenate(list(frames[:, 0]), axis=1)


def draw_retrieval(rankings_file: str | Path, out_file: str | Path, queries: int = 8, topk: int = 5) -> None:
    """Draw queries with their best videos: film strips with scores, the correct ones framed in green.

    Args:
        rankings_file: The rankings file of RetrievalMetric.
        out_file: The PNG file.
        queries: Number of queries, evenly spread over the texts.
        topk: Number of videos per query.
    """
    rankings = read_rankings(rankings_file)
    scores = rankings["scores"]  # (texts, videos)
    topk = min(topk, scores.shape[1])
    chosen = np.unique(np.linspace(0, len(scores) - 1, queries).round().astype(int))
    figure = Figure(figsize=(3.4 * (topk + 1), 1.55 * len(chosen)), layout="constrained")
    grid = figure.subplots(len(chosen), topk + 1, squeeze=False)
    for row, query in zip(grid, chosen, strict=True):
        order = np.argsort(-scores[query], kind="stable")
        relevant = rankings["relevant"][query]
        rank = int(np.flatnonzero(relevant[order])[0]) + 1
        which = "correct video" if relevant.sum() == 1 else f"first of {relevant.sum()} correct videos"
        row[0].text(0, 0.5, textwrap.fill(rankings["texts"][query], 34), va="center", fontsize=10)
        row[0].set_title(f"query; {which} at rank {rank}", fontsize=8, loc="left")
        row[0].axis("off")
        for rank_shown, (axes, video) in enumerate(zip(row[1:], order, strict=False), start=1):
            correct = relevant[video]
            axes.imshow(read_film_strip(rankings["videos"][video]))
            axes.set_title(f"{rank_shown}.  score {scores[query, video]:.2f}", fontsize=8)
            _frame(axes, CORRECT if correct else WRONG, 4 if correct else 1)
    save_figure(figure, out_file)


def draw_items(items: Sequence[dict], out_file: str | Path) -> None:
    """Draw the inputs of a model: the frames of every clip, with the times of the clips and the texts.

    Args:
        items: For each item ``frames`` (K, T, H, W, 3) uint8 RGB, ``title``, ``texts`` and ``clip_titles`` (K,).
        out_file: The PNG file.
    """
    columns = max(item["frames"].shape[0] * item["frames"].shape[1] for item in items)
    lines = max(len(item["texts"]) for item in items)
    figure = Figure(figsize=(max(1.5 * columns, 7), len(items) * (2.1 + 0.17 * lines)), layout="constrained")
    for part, item in zip(figure.subfigures(len(items), 1, squeeze=False)[:, 0], items, strict=True):
        texts = [textwrap.shorten(text, 110, placeholder=" ...") for text in item["texts"]]
        part.suptitle("\n".join([item["title"], *texts]), fontsize=8, x=0.01, ha="left")
        clips, length = item["frames"].shape[:2]
        grid = part.subplots(1, columns, squeeze=False)[0]
        for i, axes in enumerate(grid):
            if i >= clips * length:
                axes.axis("off")
                continue
            axes.imshow(item["frames"][i // length, i % length])
            if i % length == 0:
                axes.set_title(item["clip_titles"][i // length], fontsize=7, loc="left")
            _frame(axes, f"C{i // length % 10}", 2)
    save_figure(figure, out_file)


def draw_curves(work_dirs: dict[str, Path], out_file: str | Path) -> None:
    """Draw the logged losses (top) and accuracies (bottom) of one or several trainings over their steps.

    Args:
        work_dirs: Work folder of each training, by name; a resumed training has several logs in it.
        out_file: The PNG file.
    """
    figure = Figure(figsize=(5.5 * len(work_dirs), 6), layout="constrained")
    grid = figure.subplots(2, len(work_dirs), squeeze=False)
    for column, (name, work_dir) in enumerate(work_dirs.items()):
        logs = sorted(Path(work_dir).glob("*/vis_data/scalars.json"))
        rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        rows = [row for row in rows if "loss" in row]
        for axes, kind in ((grid[0, column], "loss"), (grid[1, column], "accuracy")):
            keys = sorted({key for row in rows for key in row if kind in key})
            if not keys:  # not every training logs accuracies
                axes.axis("off")
                continue
            for key in keys:
                points = [(row["step"], row[key]) for row in rows if key in row]
                axes.plot(*zip(*points, strict=True), label=key)
            axes.set_xlabel("step")
            axes.set_ylabel(kind)
            axes.set_ylim(bottom=0, top=1 if kind == "accuracy" else None)
            axes.legend(fontsize=8)
            axes.grid(alpha=0.3)
        grid[0, column].set_title(name)
    save_figure(figure, out_file)


def _frame(axes: Axes, color: str, width: float) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(edgecolor=color, linewidth=width)


def save_figure(figure: Figure, out_file: str | Path) -> None:
    """Write a figure as a PNG file, and create its folder if needed."""
    Path(out_file).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out_file, dpi=110)
