"""Which captions the items and the files of a dataset have, as numbers in arrays: to draw negatives however many there are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np


class CaptionNumbers:
    """A number for each distinct caption, and those of each item and of each file.

    Arrays take 8 bytes a caption and 12 an item, which forked workers share; a set of the captions of a file, made for an item,
    would take time in their number.

    Args:
        items: Dicts with ``path`` and ``captions``.
    """

    def __init__(self, items: Sequence[Mapping[str, Any]]) -> None:
        known: dict[str, int] = {}
        numbers = [known.setdefault(caption, len(known)) for item in items for caption in item["captions"]]
        counts = np.array([len(item["captions"]) for item in items], np.int64)
        paths: dict[str, int] = {}
        self._numbers, self._ends = np.array(numbers, np.int32), np.cumsum(counts)
        self._files = np.array([paths.setdefault(item["path"], len(paths)) for item in items], np.int32)
        files = np.repeat(self._files, counts)  # of each caption
        order = np.lexsort((self._numbers, files))
        self._sorted = self._numbers[order]
        self._bounds = np.append(np.flatnonzero(np.diff(files[order], prepend=-1)), len(files))

    def of_item(self, idx: int) -> np.ndarray:
        """Return the numbers of an item's captions, in their order, int32 (m,)."""
        return self._numbers[self._ends[idx - 1] if idx else 0 : self._ends[idx]]

    def of_file(self, idx: int) -> np.ndarray:
        """Return the numbers of the captions of the file of an item, increasing, int32 (n,)."""
        file = self._files[idx]
        return self._sorted[self._bounds[file] : self._bounds[file + 1]]


def are_among(numbers: np.ndarray, increasing: np.ndarray) -> np.ndarray:
    """Return whether each of some numbers is one of others, which increase, bool (m,).

    >>> are_among(np.array([4, 9, 1]), np.array([1, 4, 6])).tolist()
    [True, False, True]
    """
    at = np.searchsorted(increasing, numbers)
    return increasing[np.minimum(at, len(increasing) - 1)] == numbers
