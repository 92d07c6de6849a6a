"""How long the videos of datasets are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from clipbert_mm.visualization.figures import save_figure

COLOR = "#4878a8"


def draw_durations(seconds: Mapping[str, Sequence[float]], picture: str | Path) -> None:
    """Draw a histogram of durations for each dataset.

    Args:
        seconds: Durations of a dataset's videos, in seconds, by its name.
        picture: The PNG file.
    """
    figure = Figure(figsize=(6.5, 0.4 + 2.3 * len(seconds)), layout="constrained")
    grid = figure.subplots(len(seconds), 1, squeeze=False)[:, 0]
    for axes, (name, values) in zip(grid, seconds.items(), strict=True):
        axes.hist(
            values,
            bins=min(40, max(10, len(values) // 5)),
            range=(0, max(values)),
            color=COLOR,
            edgecolor="white",
            linewidth=0.5,
        )
        middle = float(np.median(values))
        axes.axvline(middle, color="black", linestyle="--", linewidth=1, label=f"median {middle:.1f} s")
        axes.set_title(f"{name}: {len(values):,} videos", fontsize=10, loc="left")
        axes.set_ylabel("videos")
        axes.set_xlim(left=0)
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.legend(fontsize=8)
    grid[-1].set_xlabel("duration in seconds")
    save_figure(figure, picture)


def draw_average_lengths(seconds: Mapping[str, Sequence[float]], picture: str | Path) -> None:
    """Draw the average length of each dataset's videos as a bar (Figure 3 of the paper), the shortest first.

    Args:
        seconds: Durations of a dataset's videos, in seconds, by its name.
        picture: The PNG file.
    """
    averages = dict(
        sorted(((name, float(np.mean(values))) for name, values in seconds.items()), key=lambda pair: pair[1])
    )
    figure = Figure(figsize=(max(3.5, 1.3 * len(averages) + 1), 3.2), layout="constrained")
    axes = figure.subplots()
    bars = axes.bar(list(averages), list(averages.values()), width=0.6, color=COLOR)
    axes.bar_label(bars, fmt="%.1f", fontsize=9)
    axes.set_ylabel("average length in seconds")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(y=0.12)
    save_figure(figure, picture)
