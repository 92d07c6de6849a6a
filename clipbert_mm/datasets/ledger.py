"""The ledger that tools/analysis_tools/scan_videos.py writes of the files of a dataset: which of them to leave out, and why.

A ledger is a JSON-lines file with one object a file: ``path`` (absolute), ``status``, ``reason``, ``frames``, ``fps`` (on
average), ``seconds`` (from the first frame to the end of the last), ``width``, ``height``, ``size`` and ``mtime``, which tell
whether the file has changed since, and ``rules``, the version of the rules by which it was read.
"""

import json
import os
from collections.abc import Sequence
from typing import Any

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
"""What a file may be found to be. The last three can be read; the first of them that holds is taken."""
USELESS = ("missing", "unreadable", "timeout")
"""The statuses of files that give no item."""
NOTHING = dict(frames=None, fps=None, seconds=None, width=None, height=None)
"""What a ledger says of a file that cannot be read."""


def absolute(path: str) -> str:
    """Return a path as a ledger has it; an address stays as it is.

    >>> absolute("s3://bucket/a.mp4")
    's3://bucket/a.mp4'
    """
    return path if is_address(path) else os.path.abspath(path)


def left_out(ledger: str | os.PathLike, statuses: Sequence[str] = USELESS) -> dict[str, str]:
    """Say which files of a ledger to leave out, and why.

    Args:
        ledger: The ledger's file.
        statuses: The statuses of what to leave out.

    Returns:
        The reason for each path, both as the ledger has them; look a path up by :func:`absolute`.

    Raises:
        AnnotationError: If there is no such ledger, or a line is none of a ledger's.
        OptionError: If a status is none of a ledger's.
    """
    unknown = sorted(set(statuses) - set(STATUSES))
    if unknown:
        raise OptionError(f"A ledger's statuses are {', '.join(STATUSES)}; got {', '.join(map(repr, unknown))}.")
    return {
        entry["path"]: f"{entry['status']}: {entry['reason']}"
        for entry in read_ledger(ledger)
        if entry["status"] in statuses
    }


def read_ledger(path: str | os.PathLike) -> list[dict[str, Any]]:
    """Read a ledger.

    Raises:
        AnnotationError: If there is none, or a line is none of a ledger's.
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
                    f"{path}, line {number}: expected a ledger's JSON object with path, status and reason, got {line[:80]!r}."
                )
            entries.append(entry)
    return entries


def parse_entry(line: str) -> dict[str, Any] | None:
    """Return a ledger's entry, None if the line is none."""
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    whole = isinstance(entry, dict) and {"path", "status", "reason", "size", "mtime", *NOTHING} <= set(entry)
    return entry if whole and entry["status"] in STATUSES else None
