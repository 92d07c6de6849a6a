"""What an engine does for an index: the only part that differs between engines."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from clipbert_mm.index.filters import Filter


@dataclass(frozen=True)
class StoredVideo:
    """A video as an engine stores it, as one row, so that it is there as a whole or not at all.

    Args:
        path: Path of the video, as the file system has it.
        key: :attr:`~clipbert_mm.index.records.Entry.key` of the video.
        record: Its record in JSON.
        seconds: Duration of the video; None for images.
        mtime_ns: Modification time of the file.
        vectors: A unit vector of each clip, float16 (K, P).
    """

    path: bytes
    key: str
    record: str
    seconds: float | None
    mtime_ns: int
    vectors: np.ndarray


class Engine(Protocol):
    """Rows of videos with their vectors, facts about the index, and records of unreadable files.

    Every method raises a :class:`~clipbert_mm.errors.VideoIndexError` that names the index if the engine cannot be reached,
    does not answer in time, or refuses.
    """

    url: str
    """What the user calls the index."""

    def facts(self) -> dict[str, Any]:
        """Return the facts; empty if there is no index."""

    def create(self, facts: Mapping[str, Any], vector_size: int) -> None:
        """Create the index with its facts; one that another machine creates at the same time stays as it is."""

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Set some of the facts."""

    def put(self, videos: Sequence[StoredVideo]) -> None:
        """Add or replace videos, and remove the records of unreadable files of the same paths."""

    def put_unreadable(self, records: Mapping[bytes, str]) -> None:
        """Add or replace records in JSON of unreadable files, by path."""

    def remove(self, paths: Sequence[bytes]) -> None:
        """Remove videos and unreadable files."""

    def unreadable(self) -> list[str]:
        """Return the records of unreadable files, in the order of their paths."""

    def count(self, where: Filter) -> int:
        """Return the number of videos that meet conditions."""

    def records(self, where: Filter, *, after: bytes, first: int, most: int) -> list[tuple[bytes, str]]:
        """Return paths and records of videos that meet conditions, in the order of their paths.

        Args:
            where: The conditions.
            after: The paths come after this one.
            first: Number of videos to leave out before.
            most: Most videos.
        """

    def find(self, paths: Sequence[bytes]) -> list[str]:
        """Return the records of those of the paths that are in the index."""

    def find_key(self, key: str) -> str | None:
        """Return the record of the video of a key."""

    def vectors(self, path: bytes) -> np.ndarray | None:
        """Return the vectors of a video, (K, P); None if it is not in the index."""

    def nearest(self, query: np.ndarray, count: int, where: Filter, *, by_mean: bool) -> list[tuple[str, np.ndarray]]:
        """Return record and vectors of the videos nearest to a query, (P,), the nearest first.

        Args:
            query: The unit vector.
            count: Most videos.
            where: Conditions that they meet.
            by_mean: Whether the mean of a video's vectors is compared, or else the nearest one of them.
        """

    def optimize(self) -> None:
        """Merge what was written in many parts; nothing is lost if another machine writes meanwhile."""
