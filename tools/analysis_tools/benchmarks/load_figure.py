"""A figure of how long loading takes."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from clipbert_mm.visualization.figures import save_figure

BAR, BASELINE = "#4878a8", "#bbbbbb"
PART_COLORS = ("#d9a441", "#8c6bb1", "#4878a8", "#5aae61", "#c2586a", "#999999")


def draw_loading(results: Sequence[Mapping[str, Any]], baselines: Sequence[str], picture: str | Path) -> None:
    """Draw, for each result, the time per video of each reader, and how the default reader spends it.

    Args:
        results: Results of ``benchmark.py load``.
        baselines: The readers that others are compared with, in gray.
        picture: The PNG file.
    """
    figure = Figure(figsize=(11, 0.5 + 2.5 * len(results)), layout="constrained")
    grid = figure.subplots(len(results), 2, squeeze=False, width_ratios=(3, 2))
    for (axes, parts), result in zip(grid, results, strict=True):
        ways = dict(sorted(result["ways"].items(), key=lambda item: -item[1]["median_ms"]))
        for place, (name, way) in enumerate(ways.items()):
            low, high = way["quartiles_ms"]
            axes.barh(place, way["median_ms"], color=BASELINE if name in baselines else BAR)
            axes.plot([low, high], [place, place], color="black", linewidth=1)
            times = f", {way['times_plain']:.2f}×" if "times_plain" in way else ""
            axes.text(high, place, f"  {way['median_ms']:.0f} ms{times}", va="center", fontsize=8)
        axes.set_yticks(range(len(ways)), list(ways))
        axes.margins(x=0.25)
        axes.set_xlabel("CPU time per video in ms, median and quartiles; speed-up over plain decord", fontsize=8)
        title = f"{result['videos']}, {result['split']}ing clips {result['clips']} at {result['size']} pixels"
        axes.set_title(title, fontsize=9, loc="left")
        left = 0.0
        total = sum(result["profile"].values())
        for (name, milliseconds), color in zip(result["profile"].items(), PART_COLORS, strict=True):
            parts.barh(0, milliseconds, left=left, color=color, label=f"{name} {milliseconds / total:.0%}")
            left += milliseconds
        parts.set_yticks([])
        parts.set_ylim(-1.6, 0.6)
        parts.set_xlabel("mean CPU time per video in ms", fontsize=8)
        parts.set_title("where the time goes (pyav)", fontsize=9, loc="left")
        parts.legend(fontsize=8, ncols=3, loc="lower center", frameon=False)
    save_figure(figure, picture)
