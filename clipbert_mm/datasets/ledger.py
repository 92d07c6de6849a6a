"""Reading the ledger of a dataset's files that tools/analysis_tools/scan_videos.py writes: which files to exclude, and why.

A ledger is a JSON-lines file with one object per file: ``path`` (absolute), ``status``, ``reason``, ``frames``, ``fps``
(average), ``seconds`` (from the first frame to the end of the last), ``width``, ``height``, ``size`` and ``mtime``, by which
a change of the file is detected, and ``rules``, the version of the rules for reading frames.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

from clipbert_mm.deprecation import renamed
from clipbert_mm.errors import AnnotationError, OptionError
from clipbert_mm.media.storage import is_address

STATUSES = (
    "ok",
    "missing",
    "unreadable",
    "timeout",
    "too_short",
    "odd_frame_rate",
    "extreme_aspect_ratio",
)
"""Statuses of a file. Files of the last three can be read; of those, a file gets the first that applies."""
UNUSABLE = ("missing", "unreadable", "timeout")
"""Statuses of files that cannot be read."""
NO_PROPERTIES = dict(frames=None, fps=None, seconds=None, width=None, height=None)
"""Properties of a file that cannot be read."""

__getattr__ = renamed(
    __name__,
    {
        "absolute": "clipbert_mm.datasets.ledger.ledger_path",
        "left_out": "clipbert_mm.datasets.ledger.read_exclusions",
    },
)


def ledger_path(path: str) -> str:
    """Return a path in the form of a ledger: absolute; an address stays as it is.

    >>> ledger_path("s3://bucket/a.mp4")
    's3://bucket/a.mp4'
    """
    return path if is_address(path) else os.path.abspath(path)


def read_exclusions(ledger: str | os.PathLike, statuses: Sequence[str] = UNUSABLE) -> dict[str, str]:
    """Read from a ledger which files to exclude, and why.

    Args:
        ledger: The ledger.
        statuses: Statuses of the files to exclude.

    Returns:
        The reason by path. Convert a path by :func:`ledger_path` before you look it up.

    Raises:
        AnnotationError: If there is no such ledger, or a line of it is not a ledger entry.
        OptionError: If a status is none of :data:`STATUSES`.
    """
    unknown = sorted(set(statuses) - set(STATUSES))
    if unknown:
        raise OptionError(
            f"Expected statuses of a ledger ({', '.join(STATUSES)}), got {', '.join(map(repr, unknown))}."
        )
    return {
        entry["path"]: f"{entry['status']}: {entry['reason']}"
        for entry in read_ledger(ledger)
        if entry["status"] in statuses
    }


def read_ledger(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a ledger.

    Raises:
        AnnotationError: If there is no such ledger, or a line of it is not a ledger entry.
    """
    if not os.path.isfile(path):
        raise AnnotationError(
            f"There is no ledger {os.path.abspath(path)}. tools/analysis_tools/scan_videos.py writes one."
        )
    entries = []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, start=1):
            entry = parse_entry(line)
            if entry is None:
                raise AnnotationError(
                    f"{path}, line {number}: expected a ledger entry, a JSON object with path, status and reason, "
                    f"got {line[:80]!r}."
                )
            entries.append(entry)
    return entries


def parse_entry(line: str) -> dict[str, Any] | None:
    """Return the entry in a line of a ledger; None if the line is not an entry."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    keys = {"path", "status", "reason", "size", "mtime", *NO_PROPERTIES}
    is_complete = isinstance(entry, dict) and keys <= set(entry)
    return entry if is_complete and entry["status"] in STATUSES else None
