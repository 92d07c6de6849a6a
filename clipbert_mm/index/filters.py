"""Which videos of an index a search looks at: by folder, length and time of writing."""

import os
from dataclasses import dataclass

from clipbert_mm.errors import OptionError, quoted


@dataclass(frozen=True)
class Filter:
    """Conditions that a video meets, all of them.

    Args:
        folders: Folders, or files; a video is one of them or below one of them. None for all.
        min_seconds: Least length of the video in seconds; images have none and meet no condition on it.
        max_seconds: Greatest length.
        written_after: Earliest time of writing of the file, in seconds since 1970.
        written_before: Latest time of writing.

    Raises:
        OptionError: If no video can meet them.
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

    def condition(self) -> tuple[str, list[object]]:
        """Return the conditions as an expression of SQL over the table of videos, with its parameters."""
        parts: list[str] = []
        values: list[object] = []
        if self.folders is not None:
            below = [below_condition(os.path.abspath(folder)) for folder in self.folders]
            parts.append("(" + (" OR ".join(sql for sql, _ in below) or "0") + ")")
            values += [value for _, own in below for value in own]
        for column, comparison, value in (
            ("seconds", ">=", self.min_seconds),
            ("seconds", "<=", self.max_seconds),
            ("mtime_ns", ">=", None if self.written_after is None else int(self.written_after * 1e9)),
            ("mtime_ns", "<=", None if self.written_before is None else int(self.written_before * 1e9)),
        ):
            if value is not None:
                parts.append(f"{column} {comparison} ?")
                values.append(value)
        return " AND ".join(parts) or "1", values


def below_condition(path: str) -> tuple[str, list[bytes]]:
    """Return the expression of SQL, with its parameters, of the rows whose path is a file, or below it as a folder.

    >>> below_condition("/v")
    ('(path = ? OR (path >= ? AND path < ?))', [b'/v', b'/v/', b'/v0'])
    """
    folder = os.fsencode(os.path.join(path, ""))
    return "(path = ? OR (path >= ? AND path < ?))", [os.fsencode(path), folder, folder[:-1] + b"0"]
