"""A contact sheet: a picture of each of some videos, with a caption."""

import os
import textwrap
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from clipbert_mm.visualization.figures import save_figure

COLUMNS = 4
"""Most pictures in a row."""
WIDTH, CHARACTERS = 3.2, 44
"""Width of a picture in inches, and characters of a line below it."""


def draw_contact_sheet(
    title: str, pictures: Sequence[tuple[np.ndarray | str, Sequence[str]]], out_file: str | os.PathLike
) -> None:
    """Draw pictures in a grid.

    Args:
        title: Title of the sheet.
        pictures: For each its pixels, uint8 RGB (H, W, 3), or why there are none; and the lines of its caption.
        out_file: The file, JPEG or PNG by its suffix.
    """
    columns = min(COLUMNS, max(1, len(pictures)))
    rows = -(-len(pictures) // columns) or 1
    figure = Figure(figsize=(WIDTH * columns, 0.6 + 2.75 * rows), layout="constrained")
    figure.suptitle("\n".join(textwrap.wrap(title, CHARACTERS * columns)), fontsize=11, parse_math=False)
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.axis("off")
    for axes, (picture, lines) in zip(grid, pictures, strict=False):
        if isinstance(picture, str):
            reason = "\n".join(textwrap.wrap(picture, CHARACTERS - 8))
            axes.text(
                0.5, 0.5, reason, ha="center", va="center", fontsize=8, transform=axes.transAxes, parse_math=False
            )
        else:
            axes.imshow(picture)
        short = [line if len(line) <= CHARACTERS else f"…{line[1 - CHARACTERS :]}" for line in lines]
        axes.set_title("\n".join(short), fontsize=8, loc="left", parse_math=False)
    save_figure(figure, os.fspath(out_file))
