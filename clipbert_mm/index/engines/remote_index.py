"""An index in an engine: as one in a folder, but many machines read it and write to it at the same time."""

import hashlib
import json
import math
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.errors import OptionError, VideoIndexError, printable, quoted
from clipbert_mm.fileio import cache_folder
from clipbert_mm.index.approximate import Facts
from clipbert_mm.index.engines.engine import Engine, StoredVideo
from clipbert_mm.index.engines.entries import RemoteEntries
from clipbert_mm.index.filters import Filter
from clipbert_mm.index.names import NameListing, NamePart
from clipbert_mm.index.records import Entry, Unreadable, entry_from, expect, unreadable_from
from clipbert_mm.index.vectors import TEMPERATURE, VECTOR_POOLINGS, pool_similarities
from clipbert_mm.index.video_index import EncodedVideo, VideoIndex, stored_vectors
from clipbert_mm.index.video_vectors import NOT_FINITE, Nearest
from clipbert_mm.version import __version__

FORMAT = 1
"""Version of what is in an engine; newer ones are refused."""
ROWS_AT_ONCE = 500
"""Videos that are looked up in one request."""
LISTED_AT_ONCE = 10_000
"""Records that are listed in one request; to look up more videos than that, all records are read."""
WRITTEN_AT_ONCE, WRITE_SECONDS = 256, 10.0
"""Videos that are written together at most, and seconds that a video waits for others while an index is changed."""
OPTIMIZED_AFTER = 100
"""Writes of this process after which the engine merges parts."""
WIDENED, WIDENED_LEAST = 16, 2048
"""Most videos that the engine is asked for to find the nearest by another pooling, in times of those wanted, or if less."""


class RemoteIndex(VideoIndex):
    """Index of videos in an engine, which keeps records and vectors; visual tokens are made again for a shortlist.

    Several machines add to it at the same time, each its own videos: there is no lock. Videos are written some at a time, so
    a process that is killed loses those of its last :data:`WRITE_SECONDS`, and encodes them again the next time.

    Args:
        engine: The engine.

    Raises:
        VideoIndexError: If it cannot be reached, or is damaged or of a newer format.
    """

    safe_to_fork = False  # an engine's client has threads, whose locks a forked process would inherit
    gives_all_vectors = False
    is_shared = True

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        # Nothing of the index: where the page keeps uploads and previews.
        self.folder = cache_folder() / "indexes" / hashlib.sha256(engine.url.encode()).hexdigest()[:16]
        self._lock = threading.RLock()
        self._depth, self._writes, self._written = 0, 0, time.monotonic()
        self._waiting: dict[str, StoredVideo] = {}
        self._names = NameListing(self)
        if self.exists:
            self.check_facts()

    @property
    def name(self) -> str:
        """What the index is called in messages."""
        return printable(self.engine.url)

    @property
    def exists(self) -> bool:
        """Whether there is an index at the URL."""
        return bool(self.manifest)

    @property
    def manifest(self) -> dict[str, Any]:
        """Facts about the index, such as the model that made it; empty if there is none."""
        return self.engine.facts()

    @property
    def keeps_tokens(self) -> bool:
        """Whether visual tokens are kept, which no engine does."""
        return False

    def check_facts(self) -> None:
        """Check the facts about the index.

        Raises:
            VideoIndexError: If one is missing or of another type, or the format is newer.
        """
        facts = self.manifest
        try:
            if expect(facts["format"], int, "format") > FORMAT:
                raise VideoIndexError(
                    f"The index {self.name} has format {facts['format']}, made by a newer release "
                    f"({quoted(facts.get('version'))}). This release reads format {FORMAT}: update clipbert_mm."
                )
            for name in ("version", "identity", "source", "weights"):
                expect(facts[name], str, name)
            if min(expect(facts[name], int, name) for name in ("vector_size", "most_clips")) < 1:
                raise ValueError(f"vector_size and most_clips are {facts['vector_size']} and {facts['most_clips']}")
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, VideoIndexError):
                raise
            raise VideoIndexError(
                f"The index {self.name} is damaged or not one of clipbert: {type(error).__name__}: {error}. Index the videos "
                "into another one."
            ) from error

    def start(
        self,
        identity: str,
        source: str,
        weights: str,
        *,
        vector_size: int | None = None,
        keeps_tokens: bool = False,
    ) -> None:
        """Create the index, or check that the existing one was made by the same model; see :meth:`VideoIndex.start`.

        Raises:
            OptionError: If the model has no vectors, or tokens are to be kept.
            VideoIndexError: If it was made by another model.
        """
        if vector_size is None or keeps_tokens:
            raise OptionError(
                f"{self.name} keeps vectors and no visual tokens, expected a model with vectors, such as BLIP, CLIP or SigLIP, "
                "without --keep-tokens. Use one, or an index in a folder."
            )
        if not self.exists:
            facts = dict(format=FORMAT, version=__version__, identity=identity, source=source)
            facts |= dict(weights=os.path.abspath(weights), vector_size=vector_size, folders=[], most_clips=1)
            self.engine.create(facts, vector_size)
        self.check_facts()
        self.check_identity(identity, source)

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Set some facts about the index, JSON values by name."""
        self.engine.set_facts(facts)

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The videos, by path; they are read when they are asked for."""
        return RemoteEntries(self)

    def count(self, where: Filter | None = None) -> int:
        """Return the number of videos, or of those that meet conditions."""
        return self.engine.count(where or Filter()) if self.exists else 0

    def listed(self, where: Filter | None = None, *, first: int = 0, most: int | None = None) -> Iterator[Entry]:
        """Yield videos in the order of their paths; damaged records are left out."""
        after, left = b"", math.inf if most is None else most
        while left > 0 and (after or self.exists):
            limit = int(min(left, LISTED_AT_ONCE))
            rows = self.engine.records(where or Filter(), after=after, first=first, most=limit)
            yield from _parsed(record for _, record in rows)
            if len(rows) < limit:
                return
            after, first, left = rows[-1][0], 0, left - limit

    def named(self, part: NamePart, *, first: int = 0, most: int | None = None) -> tuple[list[Entry], int]:
        """Return videos with a text in their names, and how many there are; names are compared by this process."""
        return self._names.find(part, first, most)

    def found(self, paths: Sequence[str]) -> dict[str, Entry]:
        """Return those of some videos that are in the index, by path, in their order."""
        by_path: dict[str, Entry] = {}
        if len(paths) > LISTED_AT_ONCE:
            wanted = set(paths)
            by_path = {entry.path: entry for entry in self.listed() if entry.path in wanted}
        elif paths and self.exists:
            for start in range(0, len(paths), ROWS_AT_ONCE):
                some = [os.fsencode(path) for path in paths[start : start + ROWS_AT_ONCE]]
                by_path |= {entry.path: entry for entry in _parsed(self.engine.find(some))}
        return {path: by_path[path] for path in paths if path in by_path}

    def paths_below(self, path: str) -> list[str]:
        """Return the videos and unreadable files that are a path, or below it as a folder."""
        below = os.path.join(path, "")
        videos = [entry.path for entry in self.listed(Filter(folders=(path,)))]
        return [*videos, *(each for each in self.unreadable if each == path or each.startswith(below))]

    def by_key(self, key: str) -> Entry | None:
        """Return the video of a key, 32 hexadecimal digits; None if there is none."""
        record = self.engine.find_key(key) if self.exists else None
        return None if record is None else next(iter(_parsed([record])), None)

    @property
    def unreadable(self) -> dict[str, Unreadable]:
        """Files that could not be read, by path."""
        records = self.engine.unreadable() if self.exists else []
        return {each.path: each for record in records if (each := _parse(unreadable_from, record)) is not None}

    def add(self, videos: Sequence[EncodedVideo]) -> None:
        """Add or replace videos; inside :meth:`locked` they are written some at a time, else at once."""
        size = self.vector_size
        assert size is not None, "add before start"
        with self._lock:
            for video in videos:
                entry = video.entry
                self._waiting[entry.path] = StoredVideo(
                    os.fsencode(entry.path),
                    entry.key,
                    json.dumps(asdict(entry)),
                    entry.seconds,
                    entry.mtime_ns,
                    stored_vectors(video, size),
                )
            waited = time.monotonic() - self._written
            if not self._depth or len(self._waiting) >= WRITTEN_AT_ONCE or waited > WRITE_SECONDS:
                self._write()

    def note_unreadable(self, records: Sequence[Unreadable]) -> None:
        """Record files that cannot be read, in place of older versions of them."""
        self.remove([record.path for record in records])
        self.engine.put_unreadable({os.fsencode(record.path): json.dumps(asdict(record)) for record in records})

    def remove(self, paths: Sequence[str]) -> None:
        """Remove videos and records of unreadable files."""
        with self._lock:
            for path in paths:  # the others go on waiting: a write takes time in the number of all videos
                self._waiting.pop(path, None)
            for start in range(0, len(paths), ROWS_AT_ONCE):
                self.engine.remove([os.fsencode(path) for path in paths[start : start + ROWS_AT_ONCE]])

    def compact(self, *, always: bool = False) -> None:
        """Have the engine merge what was written in many parts."""
        with self._lock:
            self._write()
            if always or self._writes:
                self.engine.optimize()
            self._writes = 0

    def states(self, paths: Sequence[str]) -> dict[str, bool]:
        """Return which of some files are videos of the index, and whether indexing each again would change nothing."""
        return {path: entry.is_up_to_date() for path, entry in self.found(paths).items()}

    def vectors(self, path: str) -> Tensor:
        """Return the vectors of a video's clips, float32 (K, P).

        Raises:
            VideoIndexError: If they are missing.
        """
        found = self.engine.vectors(os.fsencode(path))
        if found is None:
            raise VideoIndexError(f"{printable(path)} is not in the index {self.name}; index it again.")
        return torch.from_numpy(found.astype(np.float32))

    def nearest(self, query: Tensor, count: int, *, pooling: str, where: Filter | None = None) -> Nearest:
        """Return the videos whose vectors are nearest; the engine finds candidates, whose vectors are compared here exactly.

        By "max" and "mean" the engine compares what is asked for. By another pooling it returns the videos with the nearest
        clips, more and more until none of the others can be nearer, but at most :data:`WIDENED` times as many as wanted, or
        :data:`WIDENED_LEAST`.

        Args:
            query: Unit vector of a text, video or image, (P,).
            count: Most videos to return.
            pooling: How the similarities of a video's clips become one, of :data:`~clipbert_mm.index.vectors.VECTOR_POOLINGS`.
            where: Conditions that the videos meet; None for all videos.

        Raises:
            VideoIndexError: If the engine fails, or the query has another size.
            OptionError: If there is no such pooling.
        """
        if pooling not in VECTOR_POOLINGS:
            raise OptionError(f"Vectors are pooled by one of {', '.join(VECTOR_POOLINGS)}, got {quoted(pooling)}.")
        facts = self.manifest
        if query.shape != (facts["vector_size"],):
            raise VideoIndexError(
                f"The vectors of {self.name} have {facts['vector_size']} numbers, and the query has {tuple(query.shape)}. Use "
                "the model that made the index."
            )
        vector, where = query.float().cpu().numpy(), where or Filter()
        searched, asked = self.engine.count(where), count + 16  # a few more: the engine rounds differently
        while True:
            rows = self.engine.nearest(vector.astype(np.float16), asked, where, by_mean=pooling == "mean")
            found = [(each[0], vectors) for record, vectors in rows if (each := _parsed([record]))]
            pooled, largest, left_out = _compared(found, vector, pooling)
            best = sorted(pooled, key=lambda path: -pooled[path])[:count]
            # What the pooled similarity of a video that the engine did not return is at most, for its farthest clip.
            most = -math.inf if pooling in ("max", "mean") else largest + _excess(facts["most_clips"], pooling)
            enough = len(best) == count and pooled[best[-1]] >= most
            if enough or len(rows) < asked or asked >= max(WIDENED * count, WIDENED_LEAST):
                return Nearest({path: pooled[path] for path in best}, searched - len(left_out), left_out)
            asked *= 4

    def nearest_of_each(
        self, queries: Tensor, count: int, *, pooling: str, where: Filter | None = None
    ) -> list[Nearest]:
        """Return the nearest videos of each query, (Q, P), one after the other; see :meth:`nearest`."""
        return [self.nearest(query, count, pooling=pooling, where=where) for query in queries]

    def build_approximate(self, recall: float = 0.95) -> Facts:
        """Refuse: an approximate index is one of the engine.

        Raises:
            OptionError: Always.
        """
        raise OptionError(
            f"{self.name} is searched by its engine, whose own approximate index is used once it has one. Build it there, "
            "and leave --approximate out."
        )

    @property
    def recall(self) -> float | None:
        """None: what the engine finds is not measured here."""
        return None

    def use_approximate(self) -> None:
        """Refuse, as :meth:`build_approximate`."""
        self.build_approximate()

    def nearest_means(self, query: Tensor, count: int, *, where: Filter | None = None) -> Nearest:
        """Return the videos whose mean vectors are nearest, of those whose sums are: a few more than are wanted."""
        nearest = self.nearest(query, WIDENED * count, pooling="mean", where=where)
        means = {path: dot / float(self.vectors(path).mean(0).norm()) for path, dot in nearest.similarities.items()}
        best = sorted(means, key=lambda path: -means[path])[:count]
        return Nearest({path: means[path] for path in best}, nearest.searched, nearest.left_out)

    def tokens(self, path: str, which: str = "clips") -> Tensor:
        """Refuse: no visual tokens are kept.

        Raises:
            VideoIndexError: Always.
        """
        raise VideoIndexError(f"{self.name} keeps no visual tokens; they are made again from {printable(path)}.")

    def tokens_of(self, entry: Entry, which: str = "clips") -> Tensor:
        """Refuse: no visual tokens are kept; see :meth:`tokens`."""
        return self.tokens(entry.path, which)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Write what is added in the block some at a time, and the rest at its end, however it ends; nobody else waits."""
        with self._lock:
            self._depth += 1
        try:
            yield
        finally:
            with self._lock:
                self._depth -= 1
                self._write()

    def _write(self) -> None:
        """Write the videos that wait."""
        if self._waiting:
            most_clips = max(len(each.vectors) for each in self._waiting.values())
            if most_clips > self.manifest["most_clips"]:  # before the videos, so that no search misses one of them
                self.engine.set_facts({"most_clips": most_clips})
            self.engine.put(list(self._waiting.values()))
            self._waiting.clear()
            self._writes += 1
            if self._writes % OPTIMIZED_AFTER == 0:
                self.engine.optimize()
        self._written = time.monotonic()


def _compared(
    found: Sequence[tuple[Entry, np.ndarray]], query: np.ndarray, pooling: str
) -> tuple[dict[str, float], float, dict[str, str]]:
    """Return pooled similarities by path, the nearest clip of the farthest video, and videos that cannot be compared."""
    pooled: dict[str, float] = {}
    left_out: dict[str, str] = {}
    farthest = math.inf
    for entry, vectors in found:
        similarities = vectors.astype(np.float32) @ query
        value = float(pool_similarities(similarities, np.array([0]), np.array([len(vectors)]), pooling)[0])
        if math.isfinite(value):
            pooled[entry.path] = value
            farthest = min(farthest, float(similarities.max()))
        else:
            left_out[entry.path] = NOT_FINITE
    return pooled, farthest, left_out


def _excess(clips: int, pooling: str) -> float:
    """Return by how much the pooled similarity of a video exceeds the largest of its clips at most."""
    return TEMPERATURE * math.log(clips) if pooling == "logsumexp" else 0.0


def _parse(parse: Any, record: str) -> Any:  # noqa: ANN401
    """Parse the JSON of a record; None if it is damaged."""
    try:
        return parse(json.loads(record))
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError):
        return None


def _parsed(records: Any) -> list[Entry]:  # noqa: ANN401
    """Parse records of videos; damaged ones are left out."""
    return [entry for record in records if (entry := _parse(entry_from, record)) is not None]
