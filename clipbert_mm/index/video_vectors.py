"""The vectors of an index with the records that say whose they are: added, read, compared with a query, compacted."""

import threading
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.errors import OptionError, VideoIndexError, printable, quoted
from clipbert_mm.index.approximate import (
    MEASURED_VIDEOS,
    ApproximateIndex,
    Facts,
    build,
    cache_path,
    make_queries,
    read,
    write,
)
from clipbert_mm.index.filters import Filter
from clipbert_mm.index.record_table import RecordTable, Rows
from clipbert_mm.index.records import Entry
from clipbert_mm.index.vectors import (
    QUERIES_AT_ONCE,
    VectorFile,
    VideoRows,
    damaged_rows,
    mean_blocks,
    pool_similarities,
    similarities,
)

WASTED_SHARE = 0.25
"""Share of rows that may belong to no video before :meth:`VideoVectors.compact` is worth its time."""
NOT_FINITE = "its vectors are not finite; index it again"
DAMAGED = "its vectors are missing or damaged; index it again"


@dataclass(frozen=True)
class Nearest:
    """The videos of an index whose vectors are nearest to a query's.

    Args:
        similarities: Pooled cosine similarity by path, the largest first.
        searched: Number of videos that were compared.
        left_out: Videos that could not be compared, with the reason.
    """

    similarities: Mapping[str, float]
    searched: int
    left_out: Mapping[str, str]


@dataclass(frozen=True)
class _Snapshot:
    """The vectors at one time.

    Args:
        version: Version of the records.
        file: Name of the file.
        rows: All its rows, (N, P).
        videos: Whose they are.
        wrong: Whether those of each video are missing or damaged, bool (V,).
    """

    version: tuple
    file: str
    rows: np.ndarray
    videos: VideoRows
    wrong: np.ndarray

    @cached_property
    def by_id(self) -> np.ndarray:
        """Indices that sort the videos by their ids, (V,)."""
        return np.argsort(self.videos.ids)

    def find(self, number: int) -> int | None:
        """Return the index of a video by its id; None if there is none."""
        at = np.searchsorted(self.videos.ids, number, sorter=self.by_id)
        found = at < len(self.by_id) and self.videos.ids[self.by_id[at]] == number
        return int(self.by_id[at]) if found else None


class VideoVectors:
    """A vector of each clip of each video of an index, exactly comparable with a query's.

    Rows that were recorded once are never written again, so a reader's snapshot stays true while others write; those of videos
    that were removed or replaced are wasted until :meth:`compact` writes a new file.

    Args:
        folder: Folder of the index.
        table: Its records, whose facts are the size of a vector, the file's name, and the number of rows that were recorded.
    """

    def __init__(self, folder: Path, table: RecordTable) -> None:
        self.folder, self.table = folder, table
        self.approximate: ApproximateIndex | None = None
        """What chooses the videos that are compared; None compares every one."""
        self._snapshot: _Snapshot | None = None
        self._lock = threading.RLock()

    def append(self, vectors: Sequence[np.ndarray]) -> list[Rows]:
        """Write the vectors of videos, float16 (K, P) each, and return where; the caller records it in one transaction."""
        facts = self.table.facts()
        start, spans = facts["vector_rows"], []
        self._file(facts).append(vectors, start)
        for each in vectors:
            spans.append(Rows(start, len(each), zlib.crc32(each.data)))
            start += len(each)
        self.table.set_facts({"vector_rows": start})
        return spans

    def damaged(self) -> list[str]:
        """Return the videos whose vectors are missing or damaged; it takes time in the number of all videos."""
        if self.table.facts()["vector_size"] is None:
            return []
        snapshot = self._current()
        return self._paths(snapshot.videos.ids[snapshot.wrong])

    def of(self, path: str) -> Tensor:
        """Return the vectors of a video's clips, float32 (K, P).

        Raises:
            VideoIndexError: If they are missing or damaged.
        """
        snapshot, number = self._current(), self.table.number(path)
        at = None if number is None else snapshot.find(number)
        if at is None or snapshot.wrong[at]:
            raise VideoIndexError(f"{printable(path)}: {DAMAGED}.")
        start, count = int(snapshot.videos.starts[at]), int(snapshot.videos.counts[at])
        return torch.from_numpy(snapshot.rows[start : start + count].astype(np.float32))

    def nearest(self, queries: Tensor, count: int, *, pooling: str, where: Filter | None = None) -> list[Nearest]:
        """Compare queries with the vectors of all videos, or of those that meet conditions: every one of them, exactly.

        With an :attr:`approximate` index and no conditions, those are compared that it chooses, and those that were added since
        it was built. It chooses among all videos, of which few may meet conditions, so that a search with conditions is exact.

        Args:
            queries: Unit vectors of texts, videos or images, (Q, P); all are compared in one pass over the vectors.
            count: Most videos to return for each.
            pooling: How the similarities of a video's clips become one, of :data:`~clipbert_mm.index.vectors.VECTOR_POOLINGS`.
            where: The conditions; None for all videos.

        Returns:
            The nearest videos of each query.

        Raises:
            VideoIndexError: If the vectors cannot be read, or the queries have another size.
            OptionError: If there is no such pooling.
        """
        snapshot = self._current()
        self._check_size(snapshot, queries)
        usable, left_out = self._usable(snapshot, where)
        rows = snapshot.rows if len(usable.ids) else snapshot.rows[:0]
        if self.approximate is not None and self.recall is not None and where is None and len(usable.ids):
            return self._nearest_of_chosen(self.approximate, snapshot, usable, queries, count, pooling, left_out)
        found = []
        for first in range(0, len(queries), QUERIES_AT_ONCE):
            for compared in similarities(rows, queries[first : first + QUERIES_AT_ONCE].float().cpu()):
                pooled = pool_similarities(compared, usable.starts, usable.counts, pooling)
                found.append(self._best(pooled, usable, count, left_out))
        return found

    def build_approximate(self, recall: float) -> Facts:
        """Build an approximate index in this user's cache, and choose how much of it a search looks into.

        Args:
            recall: Share of the nearest 128 videos that a search is to find; if it cannot, it looks into all of it.

        Raises:
            BackendError: If faiss is not installed.
            OptionError: If the recall is no share.
            VideoIndexError: If there are no vectors.
        """
        if not isinstance(recall, (int, float)) or not 0 < recall <= 1:
            raise OptionError(f"recall is a share, above 0 and at most 1, got {quoted(recall)}.")
        path, snapshot = self._approximate_path(), self._current()
        usable, _ = self._usable(snapshot, None)
        if not len(usable.ids):
            raise VideoIndexError(f"The index {self.folder} has no vectors. Index videos first: clipbert index FOLDER.")
        queries, before = make_queries(snapshot.rows), self.approximate
        self.approximate = None
        try:
            wanted = [set(each.similarities) for each in self.nearest(queries, MEASURED_VIDEOS, pooling="max")]
            built = build(snapshot.rows, snapshot.file)
            probes, lists = 1, built.index.nlist
            while True:
                built.probe(probes)
                found = self._nearest_of_chosen(built, snapshot, usable, queries, MEASURED_VIDEOS, "max", {})
                shares = [len(own & set(each.similarities)) / len(own) for own, each in zip(wanted, found, strict=True)]
                if np.mean(shares) >= recall or probes == lists:
                    break
                probes = min(2 * probes, lists)
        finally:
            self.approximate = before
        built.facts = Facts(len(snapshot.rows), probes, float(np.mean(shares)))
        write(built, path)
        return built.facts

    def use_approximate(self) -> None:
        """Search by the approximate index from now on.

        Raises:
            BackendError: If faiss is not installed.
            VideoIndexError: If none was built of these vectors, or it is damaged.
        """
        self.approximate = read(self._approximate_path(), self.table.facts()["vectors"], str(self.folder))

    @property
    def recall(self) -> float | None:
        """Share of the nearest videos that the approximate index finds; None if there is none of these vectors."""
        used = self.approximate
        return None if used is None or used.vectors != self.table.facts()["vectors"] else used.facts.recall

    def _approximate_path(self) -> Path:
        facts = self.table.facts() if self.table.exists else {}
        if facts.get("vector_size") is None:
            raise VideoIndexError(f"The index {self.folder} has no vectors. An approximate index is one of vectors.")
        return cache_path(self.folder, facts["vectors"], facts["identity"])

    def _nearest_of_chosen(
        self,
        approximate: ApproximateIndex,
        snapshot: _Snapshot,
        usable: VideoRows,
        queries: Tensor,
        count: int,
        pooling: str,
        left_out: Mapping[str, str],
    ) -> list[Nearest]:
        """Compare each query with the videos that an approximate index chooses, and with those that it does not cover."""
        later, found = np.flatnonzero(usable.starts >= approximate.facts.rows), []
        for query, rows in zip(queries.float().cpu(), approximate.near(queries.float().cpu(), count), strict=True):
            at = np.searchsorted(usable.starts, rows, side="right") - 1
            at = at[(at >= 0) & (rows < (usable.starts + usable.counts)[at])]
            videos = usable.select(np.union1d(at, later))
            spans = zip(videos.starts.tolist(), (videos.starts + videos.counts).tolist(), strict=True)
            own = [snapshot.rows[start:end] for start, end in spans]
            (compared,) = similarities(np.concatenate([snapshot.rows[:0], *own]), query[None])
            pooled = pool_similarities(compared, np.cumsum(videos.counts) - videos.counts, videos.counts, pooling)
            best = self._best(pooled, videos, count, left_out)
            found.append(replace(best, searched=len(usable.ids)))
        return found

    def nearest_means(self, query: Tensor, count: int, *, where: Filter | None = None) -> Nearest:
        """Compare a unit vector, (P,), with the mean vectors of all videos, or of those that meet conditions.

        Raises:
            VideoIndexError: If the vectors cannot be read, or the query has another size.
        """
        snapshot = self._current()
        self._check_size(snapshot, query[None])
        usable, left_out = self._usable(snapshot, where)
        cosines = np.zeros(len(usable.ids), np.float32)
        for some, means in mean_blocks(snapshot.rows, usable):
            cosines[some] = (means @ query.float().cpu()).numpy()
        return self._best(cosines, usable, count, left_out)

    def means(self, where: Filter | None = None) -> tuple[list[Entry], Tensor]:
        """Return the videos that meet conditions, and their mean vectors as unit vectors, float32 (V, P).

        Videos without usable vectors are left out.
        """
        snapshot = self._current()
        usable, _ = self._usable(snapshot, where)
        means = torch.full((len(usable.ids), snapshot.rows.shape[1]), torch.nan)
        for some, block in mean_blocks(snapshot.rows, usable):
            means[some] = block
        entries = self.table.find("id", usable.ids.tolist())
        finite = means.isfinite().all(dim=1).tolist()
        kept = [i for i, number in enumerate(usable.ids.tolist()) if number in entries and finite[i]]
        return [entries[int(usable.ids[i])] for i in kept], means[kept]

    def _check_size(self, snapshot: _Snapshot, queries: Tensor) -> None:
        """Check that queries, (Q, P), have the size of the vectors.

        Raises:
            VideoIndexError: If they have not.
        """
        if queries.shape[1:] != snapshot.rows.shape[1:]:
            raise VideoIndexError(
                f"The vectors of {self.folder} have {snapshot.rows.shape[1]} numbers, and the query has "
                f"{tuple(queries.shape[1:])}. Use the model that made the index."
            )

    def _usable(self, snapshot: _Snapshot, where: Filter | None) -> tuple[VideoRows, dict[str, str]]:
        """Return the videos that meet conditions, and those of them that cannot be compared, with the reason."""
        chosen = np.ones(len(snapshot.wrong), bool)
        if where is not None:
            chosen = np.isin(snapshot.videos.ids, self.table.ids(where))
        left_out = dict.fromkeys(self._paths(snapshot.videos.ids[chosen & snapshot.wrong]), DAMAGED)
        return snapshot.videos.select(chosen & ~snapshot.wrong), left_out

    def _best(self, pooled: np.ndarray, videos: VideoRows, count: int, left_out: Mapping[str, str]) -> Nearest:
        """Return the videos of the largest similarities, (V,)."""
        finite = np.isfinite(pooled)
        best = _largest_first(np.where(finite, pooled, -np.inf), min(count, int(finite.sum())))
        numbers = videos.ids[best].tolist()
        entries = self.table.find("id", numbers)  # without those that were removed meanwhile
        pairs = zip(numbers, pooled[best].tolist(), strict=True)
        found = {entries[number].path: similarity for number, similarity in pairs if number in entries}
        not_finite = dict.fromkeys(self._paths(videos.ids[~finite]), NOT_FINITE)
        return Nearest(found, int(finite.sum()), {**left_out, **not_finite})

    def compact(self, *, always: bool = False) -> None:
        """Write the vectors into a new file without the rows of removed and replaced videos.

        Args:
            always: Whether to do it for fewer such rows than a share of :data:`WASTED_SHARE`, too.
        """
        with self._lock:
            snapshot, facts = self._current(), self.table.facts()
            videos = snapshot.videos.select(~snapshot.wrong)
            kept = int(videos.counts.sum())
            if kept == len(snapshot.rows) or not (
                always or len(snapshot.rows) - kept > WASTED_SHARE * len(snapshot.rows)
            ):
                return
            old = self._file(facts)
            new = VectorFile(self.folder / file_name(int(old.path.stem.rpartition("-")[2]) + 1), old.width)
            ends = (videos.starts + videos.counts).tolist()
            new.append([snapshot.rows[start:end] for start, end in zip(videos.starts.tolist(), ends, strict=True)], 0)
            starts = np.cumsum(videos.counts) - videos.counts
            with self.table.changing():
                self.table.move_rows(VideoRows(videos.ids, starts, videos.counts, videos.checksums))
                self.table.set_facts({"vectors": new.path.name, "vector_rows": kept})
            old.path.unlink(missing_ok=True)  # whoever has mapped it keeps it until then

    def _file(self, facts: Mapping) -> VectorFile:
        return VectorFile(self.folder / facts["vectors"], facts["vector_size"])

    def _paths(self, numbers: np.ndarray) -> list[str]:
        return [entry.path for entry in self.table.find("id", numbers.tolist()).values()] if len(numbers) else []

    def _current(self) -> _Snapshot:
        """Return the vectors as of now; those that were not there before are compared with their checksums."""
        with self._lock:
            version, before = self.table.version(), self._snapshot
            if before is not None and before.version == version:
                return before
            with self.table.consistent():
                facts, videos = self.table.facts(), self.table.video_rows()
                rows = self._file(facts).map(facts["vector_rows"])
            known = _known(before, videos) if before is not None and before.file == facts["vectors"] else None
            if known is None:
                wrong = damaged_rows(rows, videos)
            else:
                wrong = np.zeros(len(videos.ids), bool)
                wrong[~known] = damaged_rows(rows, videos.select(~known))
            self._snapshot = _Snapshot(version, facts["vectors"], rows, videos, wrong)
            return self._snapshot


def file_name(number: int) -> str:
    """Return the name of the file of vectors after so many compactions.

    >>> file_name(0)
    'vectors-0.f16'
    """
    return f"vectors-{number}.f16"


def _known(before: _Snapshot, videos: VideoRows) -> np.ndarray:
    """Return whether the rows of each video were found right before, bool (V,)."""
    at = np.searchsorted(before.videos.starts, videos.starts)
    at = np.minimum(at, max(len(before.wrong) - 1, 0))
    if not len(before.wrong):
        return np.zeros(len(videos.ids), bool)
    old = before.videos.select(at)
    same = (old.starts == videos.starts) & (old.counts == videos.counts) & (old.checksums == videos.checksums)
    return same & ~before.wrong[at]


def _largest_first(values: np.ndarray, count: int) -> np.ndarray:
    """Return the indices of the ``count`` largest values, the largest first, the earlier of equal ones first."""
    if count < len(values):
        least = np.partition(values, len(values) - count)[len(values) - count]
        candidates = np.flatnonzero(values >= least)
    else:
        candidates = np.arange(len(values))
    return candidates[np.argsort(-values[candidates], kind="stable")][:count]
