"""Videos of an index by their names, which are their paths below the indexed folders, and not by what comes before."""

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clipbert_mm.errors import OptionError, quoted
from clipbert_mm.index.filters import MAX_FOLDERS, below_condition
from clipbert_mm.index.records import Entry, name_below, name_starts

if TYPE_CHECKING:  # which imports this module
    from clipbert_mm.index.video_index import VideoIndex

FILE_NAME = (
    "substr(CAST(path AS TEXT), length(rtrim(CAST(path AS TEXT), replace(CAST(path AS TEXT), '/', ''))) + 1) LIKE ? "
    "ESCAPE '\\'"
)
"""Expression of SQL that compares the file name with a pattern; slow, so that the whole path is compared before."""
TOLD_APART = 200
"""Most indexed folders that are told apart; videos of further ones are found by the names of their files."""
LISTING_SECONDS = 60.0
"""Seconds for which the paths of an index in an engine are kept."""
MAX_RENAMED = 1000
"""Most videos that are found by a name of their own."""


@dataclass(frozen=True)
class NamePart:
    """Condition that a part of a video's name is a text; upper and lower case are the same.

    Paths above the indexed folders are no part of a name: what they contain finds nothing.

    Args:
        text: The text; an empty one is part of all names.
        folders: The indexed folders; see :func:`~clipbert_mm.index.records.name_below`.
        apart: Folder of the videos that have names of their own; None if there are none.
        renamed: These names, by path.
    """

    text: str
    folders: Sequence[str]
    apart: str | None = None
    renamed: Mapping[str, str] = field(default_factory=dict)

    def is_met(self, path: str) -> bool:
        """Whether a video meets it."""
        name = self.renamed.get(path) or name_below(path, self.folders)
        return self.text.casefold() in name.casefold()

    def condition(self) -> tuple[str, list[object]]:
        """Return the condition as an expression of SQL over the table of videos, with its parameters."""
        if not self.text:
            return "1", []
        if "\0" in self.text:  # where SQLite would end the pattern
            return "0", []
        outside, below = "1", list[str]()
        values: list[object] = []
        bounds: list[object] = []
        for folder, start in name_starts(self.folders)[:TOLD_APART]:
            inside, limits = "(path >= ? AND path < ?)", below_condition(folder)[1][1:]
            likes, patterns = self._likes("CAST(substr(path, ?) AS TEXT) LIKE ? ESCAPE '\\'")
            below.append(f"({inside} AND {likes})")
            values += [*limits, *(each for pattern in patterns for each in (len(os.fsencode(start)) + 1, pattern))]
            outside += f" AND NOT {inside}"
            bounds += limits
        likes, patterns = self._likes(f"(CAST(path AS TEXT) LIKE ? ESCAPE '\\' AND {FILE_NAME})")
        below.append(f"({outside} AND {likes})")
        values += [*bounds, *(pattern for pattern in patterns for _ in range(2))]
        named = " OR ".join(below)
        if self.apart is None:
            return f"({named})", values
        apart, limits = below_condition(self.apart)
        own = [os.fsencode(path) for path, name in self.renamed.items() if self.text.casefold() in name.casefold()]
        own = own[:MAX_RENAMED]
        return f"((NOT {apart} AND ({named})) OR path IN ({', '.join('?' * len(own))}))", [*limits, *values, *own]

    def _likes(self, comparison: str) -> tuple[str, list[str]]:
        """Return a comparison with each of the patterns of the text, one of which has to agree, and these patterns.

        SQLite knows upper and lower case of ASCII alone; the text is looked for as it is, and in three forms of its other
        letters.
        """
        forms = (
            [self.text] if self.text.isascii() else [self.text, self.text.lower(), self.text.upper(), self.text.title()]
        )
        escaped = (form.translate({ord(char): f"\\{char}" for char in "\\%_"}) for form in dict.fromkeys(forms))
        patterns = [f"%{form}%" for form in escaped]
        return f"({' OR '.join([comparison] * len(patterns))})", patterns


class NameListing:
    """Finds videos by their names in an index in an engine, which compares none; all paths are read, and kept for some seconds.

    Args:
        index: The index.
    """

    def __init__(self, index: "VideoIndex") -> None:
        self.index = index
        self._kept: tuple[float, list[str]] | None = None  # when they were read

    def find(self, part: NamePart, first: int, most: int | None) -> tuple[list[Entry], int]:
        """Return videos with a text in their names; see :meth:`~clipbert_mm.index.video_index.VideoIndex.named`."""
        if not part.text:
            return list(self.index.listed(first=first, most=most)), self.index.count()
        if self._kept is None or time.monotonic() - self._kept[0] > LISTING_SECONDS:
            self._kept = time.monotonic(), [entry.path for entry in self.index.listed()]
        paths = [path for path in self._kept[1] if part.is_met(path)]
        return list(self.index.found(paths[first : None if most is None else first + most]).values()), len(paths)


def folder_called(name: str, folders: Sequence[str]) -> tuple[str, ...]:
    """Return the folders that a name as that of a video, such as ``cats/2024``, means: indexed folders, or below one.

    Raises:
        OptionError: If it is outside of them, or the name of more folders than a search looks into.

    >>> folder_called("cats/", ["/home/me/videos"])
    ('/home/me/videos/cats',)
    >>> folder_called("b/cats", ["/mnt/a", "/mnt/b"])
    ('/mnt/b/cats',)
    """
    found = set()
    for folder, start in name_starts(folders):
        path = os.path.normpath(os.path.join(start, name.strip("/")))
        if path == folder or path.startswith(os.path.join(folder, "")):
            found.add(path)
    if not found:
        raise OptionError(
            f"{quoted(name)} is none of the indexed folders. Write a folder as in the names of the videos, such as cats/2024."
        )
    if len(found) > MAX_FOLDERS:
        raise OptionError(
            f"A search looks into {MAX_FOLDERS:,} folders at most, and {quoted(name)} is the name of {len(found):,}. Leave "
            "the folder out, and all videos are searched."
        )
    return tuple(sorted(found))
