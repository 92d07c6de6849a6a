"""The reliability diagram: how often pairs of a text and a video are right, over the probability that they are told."""

import os
from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from clipbert_mm.visualization.figures import save_figure

SHARE, GAP = "#4878a8", "#d1495b"


def draw_reliability(calibration: Mapping[str, Any], out_file: str | os.PathLike) -> None:
    """Draw the share of right pairs in each bin of probabilities, its distance to their mean, and the number of pairs.

    The diagram is that of Guo et al., On Calibration of Modern Neural Networks, 2017, Figure 1, with numbers of pairs on a
    logarithmic scale below it.

    Args:
        calibration: The bins and their metrics, :meth:`~clipbert_mm.evaluation.CalibrationBins.to_dict`.
        out_file: The PNG file.
    """
    pairs, right, probability = (np.array(calibration[key]) for key in ("pairs", "right", "probability"))
    edges = np.linspace(0, 1, len(pairs) + 1)
    centers, width = (edges[:-1] + edges[1:]) / 2, edges[1]
    filled = pairs > 0
    share, mean = right[filled] / pairs[filled], probability[filled] / pairs[filled]
    figure = Figure(figsize=(7.2, 7.2), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2, 1))
    above.bar(centers[filled], share, width, color=SHARE, edgecolor="white", label="share of right pairs")
    above.vlines(mean, np.minimum(share, mean), np.maximum(share, mean), GAP, linewidth=2, label="error of the bin")
    above.plot(mean, mean, "o", color=GAP, markersize=4, label="mean probability")
    above.plot([0, 1], [0, 1], color="#666666", linewidth=1, linestyle="--", label="perfect calibration")
    above.set_xlim(-0.02, 1.02)
    above.set_ylim(-0.02, 1.02)
    above.set_ylabel("share of right pairs")
    figure.suptitle(
        f"{pairs.sum():,} pairs, {right.sum():,} of them right: expected calibration error {calibration['ECE']:.3f}, "
        f"Brier score {calibration['Brier']:.3f}",
        fontsize=10,
    )
    above.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, fontsize=8, frameon=False)
    below.bar(centers, pairs, width, color="#bbbbbb", edgecolor="white")
    for center, count in zip(centers[filled], pairs[filled], strict=True):
        below.annotate(
            f"{count:,}", (center, count), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=7
        )
    below.set_yscale("log")
    below.set_ylim(0.5, 4 * pairs.max())
    below.set_ylabel("pairs")
    below.set_xlabel("probability of a match")
    below.set_xticks(np.linspace(0, 1, 11))
    for axes in (above, below):
        axes.spines[["top", "right"]].set_visible(False)
    save_figure(figure, os.fspath(out_file))
