"""A contact sheet of the hits of a search: the frame in the middle of the best clip of each."""

import os
from collections.abc import Sequence

from clipbert_mm.apis.results import format_score
from clipbert_mm.apis.search_results import Hit
from clipbert_mm.errors import OptionError, printable, quoted
from clipbert_mm.index import name_below
from clipbert_mm.media.isolation import run_each
from clipbert_mm.media.thumbnails import read_thumbnail

SUFFIXES = (".jpg", ".jpeg", ".png")
"""Suffixes of the files that are written."""
SECONDS = 60.0
"""Most seconds for decoding the frame of one hit."""


def check_suffix(out_file: str | os.PathLike) -> None:
    """Check that a contact sheet can be written to a file.

    Raises:
        OptionError: If its suffix names no format that is written.
    """
    if os.path.splitext(out_file)[1].lower() not in SUFFIXES:
        raise OptionError(
            f"A contact sheet is written to a file of {', '.join(SUFFIXES)}, got {quoted(os.fspath(out_file))}."
        )


def draw_hits(
    title: str, hits: Sequence[Hit], score_kind: str, out_file: str | os.PathLike, folders: Sequence[str] = ()
) -> None:
    """Draw the frame in the middle of the best clip of each hit, with name, time and score.

    The frames are decoded in processes of their own; a video that cannot be read now is drawn as the reason.

    Args:
        title: Title of the sheet.
        hits: The hits.
        score_kind: What the scores are.
        out_file: The file, JPEG or PNG by its suffix.
        folders: The indexed folders, below which a video is named.

    Raises:
        OptionError: If there are no hits, or the suffix of the file names no format that is written.
    """
    from clipbert_mm.visualization.contact_sheet import draw_contact_sheet

    check_suffix(out_file)
    if not hits:
        raise OptionError("There is no hit to draw.")
    jobs = [
        (i, hit.path, None if hit.moment is None else (hit.moment.start + hit.moment.end) / 2)
        for i, hit in enumerate(hits)
    ]
    frames = {}
    for outcome in run_each(read_thumbnail, jobs, workers=min(2, len(jobs)), timeout=SECONDS):
        frames[outcome.job[0]] = outcome.failure or outcome.value
    pictures = []
    for rank, hit in enumerate(hits, start=1):
        chance = "" if hit.probability is None else f"  {hit.probability:.1%}"
        time = "" if hit.moment is None else f"{hit.moment.exact}  "
        name = printable(name_below(hit.path, folders))
        lines = (f"{rank}. {name}", f"{time}{score_kind} {format_score(hit.score, score_kind)}{chance}")
        pictures.append((frames[rank - 1], lines))
    draw_contact_sheet(title, pictures, out_file)
