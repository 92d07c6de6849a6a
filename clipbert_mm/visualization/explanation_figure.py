"""The figure that explains why a video matches a text."""

import os
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from clipbert_mm.visualization.figures import save_figure

CLIP, BEST = "#4878a8", "#1a9641"


def draw_explanation(
    title: str,
    name: str,
    spans: Sequence[tuple[float, float, float]],
    best: int,
    frames: np.ndarray,
    heat: np.ndarray,
    out_file: str | os.PathLike,
    score_kind: str,
) -> None:
    """Draw the score of each clip over time, and the frames of the best clip with a heat map.

    Args:
        title: Title of the figure.
        name: Name of the video.
        spans: Start and end in seconds and score of each clip; none for an image.
        best: Index of the best clip.
        frames: Frames of the best clip, uint8 RGB (T, H, W, 3).
        heat: Share of each pixel in its score, 0 to 1, (H, W).
        out_file: The PNG file.
        score_kind: What the scores are.
    """
    count, (height, width) = len(frames), frames.shape[1:3]
    cell = 3.2
    rows = (1.7,) * bool(spans) + (cell * height / width + 0.3,)
    figure = Figure(figsize=(max(6.4, cell * 2 * count), 0.6 + sum(rows)), layout="constrained")
    figure.suptitle(textwrap.fill(title, 80) + f"\n{name}", fontsize=10)
    parts = figure.subfigures(len(rows), 1, height_ratios=rows, squeeze=False)[:, 0]
    if spans:
        axes = parts[0].subplots()
        for i, (start, end, score) in enumerate(spans):
            axes.plot(
                [start, end], [score, score], color=BEST if i == best else CLIP, linewidth=5, solid_capstyle="butt"
            )
        middles = [(start + end) / 2 for start, end, _ in spans]
        axes.plot(middles, [score for *_, score in spans], color="#999999", linewidth=1, zorder=0)
        axes.set_xlabel("seconds")
        axes.set_ylabel(f"{score_kind} of the clip")
        axes.spines[["top", "right"]].set_visible(False)
        axes.margins(y=0.2)
    grid = parts[-1].subplots(1, 2 * count, squeeze=False)[0]
    for axes, frame in zip(grid[:count], frames, strict=True):
        axes.imshow(frame)
    for axes, frame in zip(grid[count:], frames, strict=True):
        axes.imshow(frame)
        axes.imshow(heat, cmap="inferno", alpha=0.15 + 0.6 * heat, vmin=0, vmax=1)
    for axes in grid:
        axes.axis("off")
    shown = "best clip, {:.1f}–{:.1f} s".format(*spans[best][:2]) if spans else "the image"
    grid[0].set_title(shown, fontsize=9, loc="left")
    grid[count].set_title("where its score comes from", fontsize=9, loc="left")
    save_figure(figure, os.fspath(out_file))
