"""An engine of an index that keeps all in memory: the simplest one that does what an engine has to."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from clipbert_mm.index import Filter
from clipbert_mm.index.engines import StoredVideo


class MemoryEngine:
    """Keeps an index in a dictionary by its URL, so that a second engine of the URL is another machine's."""

    stores: ClassVar[dict[str, dict[str, Any]]] = {}

    def __init__(self, url: str) -> None:
        self.url = url
        self.store = self.stores.setdefault(url, dict(facts={}, videos={}, unreadable={}))
        self.asked: list[int] = []
        self.writes: list[int] = []

    def facts(self) -> dict[str, Any]:
        return copy.deepcopy(self.store["facts"])

    def create(self, facts: Mapping[str, Any], vector_size: int) -> None:
        if not self.store["facts"]:
            self.store["facts"] = dict(facts)

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        self.store["facts"].update(facts)

    def put(self, videos: Sequence[StoredVideo]) -> None:
        self.writes.append(len(videos))
        for each in videos:
            self.store["videos"][each.path] = each
            self.store["unreadable"].pop(each.path, None)

    def put_unreadable(self, records: Mapping[bytes, str]) -> None:
        self.store["unreadable"].update(records)

    def remove(self, paths: Sequence[bytes]) -> None:
        for path in paths:
            self.store["videos"].pop(path, None)
            self.store["unreadable"].pop(path, None)

    def unreadable(self) -> list[str]:
        return [record for _, record in sorted(self.store["unreadable"].items())]

    def count(self, where: Filter) -> int:
        return len(self._meeting(where))

    def records(self, where: Filter, *, after: bytes, first: int, most: int) -> list[tuple[bytes, str]]:
        found = [(each.path, each.record) for each in self._meeting(where) if each.path > after]
        return sorted(found)[first : first + most]

    def find(self, paths: Sequence[bytes]) -> list[str]:
        return [self.store["videos"][path].record for path in paths if path in self.store["videos"]]

    def find_key(self, key: str) -> str | None:
        return next((each.record for each in self.store["videos"].values() if each.key == key), None)

    def vectors(self, path: bytes) -> np.ndarray | None:
        return self.store["videos"][path].vectors if path in self.store["videos"] else None

    def nearest(self, query: np.ndarray, count: int, where: Filter, *, by_mean: bool) -> list[tuple[str, np.ndarray]]:
        self.asked.append(count)

        def similarity(each: StoredVideo) -> float:
            own = each.vectors.astype(np.float32) @ query.astype(np.float32)
            return float(own.mean() if by_mean else own.max())

        ranked = sorted(self._meeting(where), key=similarity, reverse=True)
        return [(each.record, each.vectors) for each in ranked[:count]]

    def optimize(self) -> None:
        """Nothing is in parts."""

    def _meeting(self, where: Filter) -> list[StoredVideo]:
        return [each for each in self.store["videos"].values() if meets(each, where)]


def meets(video: StoredVideo, where: Filter) -> bool:
    """Whether a video meets conditions, told apart from how an engine does it."""
    path = video.path.decode(errors="surrogateescape")
    seconds = -1.0 if video.seconds is None else video.seconds
    return (
        (where.folders is None or any(path == folder or path.startswith(f"{folder}/") for folder in where.folders))
        and (where.min_seconds is None or seconds >= where.min_seconds)
        and (where.max_seconds is None or 0 <= seconds <= where.max_seconds)
        and (where.written_after is None or video.mtime_ns >= where.written_after * 1e9)
        and (where.written_before is None or video.mtime_ns <= where.written_before * 1e9)
    )
