"""Which videos of an index a search looks at: by folder, length and time of writing."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from clipbert_mm.errors import OptionError, quoted
from clipbert_mm.index.records import outermost_folders

MAX_FOLDERS = 2000
"""Most folders of a filter, those below another one not counted; for twice as many SQLite reads all records, in seconds."""
MAX_SECONDS = 9.2e9
"""Greatest number of seconds that is compared, and the negative of the least; in nanoseconds SQLite has no greater one."""


@dataclass(frozen=True)
class Filter:
    """Conditions that a video meets, all of them.

    Args:
        folders: Folders, or files; a video is one of them or below one of them. None for all; at most 2,000.
        min_seconds: Least length of the video in seconds; images have none and meet no condition on it.
        max_seconds: Greatest length.
        written_after: Earliest time of writing of the file, in seconds since 1970.
        written_before: Latest time of writing.

    Raises:
        OptionError: If no video can meet them, or there are more than 2,000 folders.
    """

    folders: tuple[str, ...] | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    written_after: float | None = None
    written_before: float | None = None

    def __post_init__(self) -> None:
        pairs = {
            "min_seconds and max_seconds": (self.min_seconds, self.max_seconds),
            "written_after and written_before": (self.written_after, self.written_before),
        }
        for names, (least, most) in pairs.items():
            numbers = [each for each in (least, most) if each is not None]
            if any(
                not isinstance(each, (int, float)) or isinstance(each, bool) or each != each for each in numbers
            ) or (len(numbers) == 2 and numbers[0] > numbers[1]):
                raise OptionError(
                    f"{names} are two numbers in this order, or None, got {quoted(least)} and {quoted(most)}."
                )

        if (count := len(self._outermost())) > MAX_FOLDERS:
            raise OptionError(
                f"A search looks into {MAX_FOLDERS:,} folders at most, got {count:,}. Name the folders that "
                "they are in."
            )

    def _outermost(self) -> list[str]:
        return outermost_folders(map(os.path.abspath, self.folders or ()))

    def path_range(self) -> tuple[bytes, bytes]:
        """Return a path, and the end of a range from it on that has all videos of the folders.

        >>> Filter(folders=("/v/b", "/v/a")).path_range()
        (b'/v/a', b'/v/b0')
        """
        limits = [below_condition(folder)[1] for folder in self._outermost()]
        return min((own[0] for own in limits), default=b""), max((own[-1] for own in limits), default=b"\xff")

    def condition(self) -> tuple[str, list[object]]:
        """Return the conditions as an expression of SQL over the table of videos, with its parameters."""
        parts: list[str] = []
        values: list[object] = []
        if self.folders is not None:
            below = [below_condition(folder) for folder in self._outermost()]
            parts.append(f"({_any_of([sql for sql, _ in below])})")
            values += [value for _, own in below for value in own]
        for column, comparison, seconds in (
            ("seconds", ">=", self.min_seconds),
            ("seconds", "<=", self.max_seconds),
            ("mtime_ns", ">=", self.written_after),
            ("mtime_ns", "<=", self.written_before),
        ):
            if seconds is not None:
                parts.append(f"{column} {comparison} ?")
                bounded = min(max(seconds, -MAX_SECONDS), MAX_SECONDS)
                values.append(bounded if column == "seconds" else int(bounded * 1e9))
        return " AND ".join(parts) or "1", values


def _any_of(conditions: Sequence[str]) -> str:
    """Join expressions of SQL by OR, halves in parentheses: SQLite takes expressions that are nested 1,000 deep at most.

    >>> _any_of(["a", "b", "c"])
    '(a) OR ((b) OR (c))'
    """
    if len(conditions) < 2:
        return conditions[0] if conditions else "0"
    half = len(conditions) // 2
    return f"({_any_of(conditions[:half])}) OR ({_any_of(conditions[half:])})"


def below_condition(path: str) -> tuple[str, list[bytes]]:
    """Return the expression of SQL, with its parameters, of the rows whose path is a file, or below it as a folder.

    >>> below_condition("/v")
    ('(path = ? OR (path >= ? AND path < ?))', [b'/v', b'/v/', b'/v0'])
    """
    folder = os.fsencode(os.path.join(path, ""))
    return "(path = ? OR (path >= ? AND path < ?))", [os.fsencode(path), folder, folder[:-1] + b"0"]
