"""Exact copies and near duplicates among the videos of an index."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.apis.results import Record
from clipbert_mm.errors import OptionError, VideoIndexError, printable, quoted
from clipbert_mm.index import Entry, Filter, VideoIndex

THRESHOLD = 0.97
"""Cosine similarity of the mean vectors of two videos from which one counts as a near duplicate of the other."""
TILE = 2048
"""Videos that are compared with as many others at a time, in 16 MiB of similarities."""


@dataclass(frozen=True)
class Duplicate(Record):
    """A video of a group.

    Args:
        path: The video.
        size: Size of its file in bytes.
        seconds: Its duration; None for images.
        similarity: Cosine similarity of its mean vector and that of the first of the group; 1 for an exact copy.
    """

    path: str
    size: int
    seconds: float | None
    similarity: float


@dataclass(frozen=True)
class DuplicateReport(Record):
    """Groups of videos that are the same or nearly so; in each the largest file is the first, and of equal ones the first path.

    Args:
        searched: Number of videos that were compared.
        copies: Groups of files of one size and digest, which are copies of one another.
        near: Groups of near duplicates: each is as similar as the threshold to another of its group, not to all. Of a group of
            copies the first one stands for all.
        threshold: The threshold.
        without_vectors: Number of videos that were looked at for exact copies alone, since they have no usable vectors.
    """

    searched: int
    copies: tuple[tuple[Duplicate, ...], ...]
    near: tuple[tuple[Duplicate, ...], ...]
    threshold: float
    without_vectors: int = 0

    def __str__(self) -> str:
        """Format one video per line."""
        more = f", of {self.without_vectors} for copies alone" if self.without_vectors else ""
        lines = [
            f"{self.searched} videos{more}: {len(self.copies)} groups of copies, {len(self.near)} of near duplicates"
        ]
        for kind, groups in (("copies", self.copies), (f"near duplicates, from {self.threshold:.3g}", self.near)):
            for group in groups:
                lines.append(kind)
                lines += [
                    f"  {each.similarity:.3f}  {each.size / 1e6:9.2f} MB  {printable(each.path)}" for each in group
                ]
        return "\n".join(lines)


def duplicates(index: VideoIndex, threshold: float = THRESHOLD, *, where: Filter | None = None) -> DuplicateReport:
    """Find exact copies by their digests, and near duplicates by their mean vectors, comparing all pairs.

    Args:
        index: The index, in a folder.
        threshold: Least cosine similarity of near duplicates, more than 0 and at most 1.
        where: Conditions that the videos meet.

    Raises:
        OptionError: If the threshold cannot be used, or the index is on an engine.
        VideoIndexError: If the index is empty or cannot be read.
    """
    if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 < threshold <= 1:
        raise OptionError(f"The threshold is a cosine similarity, more than 0 and at most 1, got {quoted(threshold)}.")
    if not index.gives_all_vectors:
        raise OptionError(
            f"Near duplicates are found by the vectors of all videos, which {index.name} does not give. Use an "
            "index in a folder."
        )
    if not index.count():
        raise VideoIndexError(f"The index {index.name} is empty. Index videos first: clipbert index FOLDER.")
    listed = list(index.listed(where))
    copies = _copies(listed)
    stands_for = {each.path: group[0].path for group in copies for each in group}
    near: list[tuple[Duplicate, ...]] = []
    compared = 0
    if index.vector_size is not None:
        entries, means = index.means(where)
        compared = len(entries)
        kept = [i for i, entry in enumerate(entries) if stands_for.get(entry.path, entry.path) == entry.path]
        entries, means = [entries[i] for i in kept], means[kept]
        near = [_group([entries[i] for i in group], means[group]) for group in near_groups(means, threshold)]
    return DuplicateReport(len(listed), tuple(copies), tuple(near), threshold, len(listed) - compared)


def _copies(entries: Sequence[Entry]) -> list[tuple[Duplicate, ...]]:
    """Group files of one size and digest; those of an earlier release have no digest and are in no group."""
    groups: dict[tuple[int, str], list[Entry]] = {}
    for entry in entries:
        if entry.digest:
            groups.setdefault((entry.size, entry.digest), []).append(entry)
    return [_group(group, torch.ones(len(group), 1)) for group in groups.values() if len(group) > 1]


def _group(entries: Sequence[Entry], vectors: Tensor) -> tuple[Duplicate, ...]:
    """Return a group with its largest file first, and the similarity of each, by unit vectors (v, P), to that one."""
    order = sorted(range(len(entries)), key=lambda i: (-entries[i].size, entries[i].path))
    cosines = (vectors @ vectors[order[0]]).tolist()
    return tuple(
        Duplicate(entries[i].path, entries[i].size, entries[i].seconds, 1.0 if i == order[0] else cosines[i])
        for i in order
    )


def near_groups(vectors: Tensor, threshold: float) -> list[list[int]]:
    """Group vectors that are linked by cosine similarities from a threshold on, by comparing all pairs, some at a time.

    Args:
        vectors: Unit vectors, float32 (V, P).
        threshold: The least similarity of a link.

    Returns:
        Indices of the vectors of each group of at least two, increasing; the groups in the order of their first.

    >>> near_groups(torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), 0.9)
    [[0, 2]]
    """
    labels = np.arange(len(vectors))
    for first in range(0, len(vectors), TILE):
        rows = vectors[first : first + TILE]
        for second in range(first, len(vectors), TILE):
            close = rows @ vectors[second : second + TILE].T >= threshold
            if first == second:
                close.triu_(diagonal=1)
            if close.any():  # those that are in one group already, such as many equal videos, are no news
                close &= torch.from_numpy(labels[first : first + TILE, None] != labels[second : second + TILE])
                left, right = close.nonzero().T.numpy()
                _link(labels, left + first, right + second)
    order = np.argsort(labels, kind="stable")
    bounds = np.flatnonzero(np.diff(labels[order], prepend=-1, append=-1))
    groups = (order[start:end].tolist() for start, end in itertools.pairwise(bounds))
    return [group for group in groups if len(group) > 1]


def _link(labels: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Join the groups of pairs of members. The label of a group is its smallest member, (V,); it is changed in place."""
    while True:
        one, other = labels[left], labels[right]
        apart = one != other
        if not apart.any():
            return
        np.minimum.at(labels, np.maximum(one, other)[apart], np.minimum(one, other)[apart])
        while not np.array_equal(flat := labels[labels], labels):
            labels[:] = flat
