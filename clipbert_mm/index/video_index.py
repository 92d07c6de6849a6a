"""The index that ``clipbert index`` writes: its videos, how they were encoded, their vectors, and visual tokens if kept."""

import os
import re
import shutil
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.errors import VideoIndexError, printable
from clipbert_mm.index.approximate import Facts
from clipbert_mm.index.filters import Filter
from clipbert_mm.index.folders import OLD_MANIFEST, RECORDS, lock_index
from clipbert_mm.index.names import NamePart
from clipbert_mm.index.parts import absorb, absorb_parts, open_part, remove_lost_tokens
from clipbert_mm.index.record_table import Entries, RecordTable, Rows
from clipbert_mm.index.records import Entry, Unreadable, expect, shown
from clipbert_mm.index.token_reading import read_tokens
from clipbert_mm.index.video_vectors import Nearest, VideoVectors, file_name
from clipbert_mm.retrieval.feature_store import FeatureStore

VECTORS = re.compile(r"vectors-\d{1,9}\.f16")
"""Name of a file of vectors."""
CACHE_BYTES = 2**30
"""Bytes of visual tokens that are kept in memory for the next search."""
STORED_DTYPE = torch.float16
"""Data type of the tokens on disk; they are normalized, so half precision is enough."""


@dataclass(frozen=True)
class EncodedVideo:
    """A video that is to be added to an index.

    Args:
        entry: Its record.
        vectors: A vector of each clip, (K, P); None if the model has none.
        tokens: Its visual tokens by name: ``clips`` (K, S, D) and, without vectors, ``coarse`` (1, S, D); None to keep none.
    """

    entry: Entry
    vectors: Tensor | None = None
    tokens: Mapping[str, Tensor] | None = None

    @property
    def stored_bytes(self) -> int:
        """Bytes of its vectors and tokens on disk."""
        stored = [*(() if self.vectors is None else (self.vectors,)), *(self.tokens or {}).values()]
        return sum(each.numel() for each in stored) * STORED_DTYPE.itemsize


class VideoIndex:
    """Index of videos: a folder with records in SQLite, a file of vectors, and visual tokens of each video if they are kept.

    What is added is on disk as a whole, or not at all, whenever the process is killed. One process at a time changes an index
    (:meth:`locked`); other processes and threads read it meanwhile.

    Args:
        folder: The folder; it is created when the first video is added.

    Raises:
        VideoIndexError: If the records are damaged or of another format.
    """

    safe_to_fork = True
    """Whether a process may be forked while the index is open."""
    gives_all_vectors = True
    """Whether :meth:`means` reads the vectors of all videos."""
    is_shared = False
    """Whether several processes may write at the same time."""

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.table = RecordTable(self.folder / RECORDS)
        self.video_vectors = VideoVectors(self.folder, self.table)
        self.store = FeatureStore(self.folder / "tokens", budget=CACHE_BYTES)
        self._seen: dict[str, tuple[int, int]] = {}  # versions of the files of tokens that were checked
        self._changing = threading.RLock()
        if not self.table.exists and (self.folder / OLD_MANIFEST).is_file():
            raise VideoIndexError(
                f"The index {self.folder} was made by an earlier release, in format 1. Take it over, which decodes nothing: "
                f"clipbert index --take-over --index {self.folder}"
            )
        if self.exists:
            self.check_facts()

    @property
    def name(self) -> str:
        """What messages call the index, by its folder or its URL."""
        return str(self.folder)

    @property
    def exists(self) -> bool:
        """Whether there is an index in the folder."""
        return self.table.exists

    @property
    def manifest(self) -> dict[str, Any]:
        """Facts about the index, such as the model that made it; empty if there is none."""
        return self.table.facts() if self.exists else {}

    @property
    def entries(self) -> Mapping[str, Entry]:
        """The videos, by path; they are read when they are asked for."""
        return Entries(self.table if self.exists else None)

    def count(self, where: Filter | None = None) -> int:
        """Return the number of videos, or of those that meet conditions."""
        return self.table.count(where) if self.exists else 0

    def listed(self, where: Filter | None = None, *, first: int = 0, most: int | None = None) -> Iterator[Entry]:
        """Yield videos in the order of their paths; see :meth:`~clipbert_mm.index.record_table.RecordTable.entries`."""
        return self.table.entries(where, first=first, most=most) if self.exists else iter(())

    def named(self, part: NamePart, *, first: int = 0, most: int | None = None) -> tuple[list[Entry], int]:
        """Return videos with a text in their names, as :meth:`listed`, and how many there are."""
        if not self.exists:
            return [], 0
        return list(self.table.entries(part, first=first, most=most)), self.table.count(part)

    def found(self, paths: Sequence[str]) -> dict[str, Entry]:
        """Return those of some videos that are in the index, by path, in their order."""
        by_path = self.table.find("path", [os.fsencode(path) for path in paths]) if self.exists else {}
        return {path: by_path[coded] for path in paths if (coded := os.fsencode(path)) in by_path}

    def paths_below(self, path: str) -> list[str]:
        """Return the videos and unreadable files that are a path, or below it as a folder."""
        return [*self.table.paths(Filter(folders=(path,))), *self.table.paths(Filter(folders=(path,)), "unreadable")]

    def by_key(self, key: str) -> Entry | None:
        """Return the video of a key, 32 hexadecimal digits; None if there is none."""
        return next(iter(self.table.find("key", [bytes.fromhex(key)]).values()), None) if self.exists else None

    @property
    def unreadable(self) -> dict[str, Unreadable]:
        """Files that could not be read, by path."""
        return self.table.unreadable() if self.exists else {}

    @property
    def vector_size(self) -> int | None:
        """Numbers of a vector; None if the videos have no vectors."""
        return self.manifest.get("vector_size")

    @property
    def keeps_tokens(self) -> bool:
        """Whether visual tokens are kept."""
        return self.manifest.get("keeps_tokens", True)

    def check_facts(self) -> None:
        """Check the facts about the index.

        Raises:
            VideoIndexError: If one is missing or of another type.
        """
        facts = self.manifest
        try:
            for name in ("version", "identity", "source", "weights", "vectors"):
                expect(facts[name], str, name)
            sizes = [expect(facts[name], (int, type(None)), name) for name in ("vector_size", "vector_rows")]
            if sizes[1] is None or min(1 if sizes[0] is None else sizes[0], sizes[1] + 1) < 1:
                raise ValueError(f"vector_size and vector_rows are {sizes}")
            if not isinstance(facts["keeps_tokens"], bool) or not VECTORS.fullmatch(facts["vectors"]):
                raise ValueError(f"keeps_tokens and vectors are {facts['keeps_tokens']} and {shown(facts['vectors'])}")
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"[:200]
            raise VideoIndexError(
                f"{self.table.file} is damaged or not the records of an index: {reason}. Index the videos into a new folder."
            ) from error

    def start(
        self,
        identity: str,
        source: str,
        weights: str,
        *,
        vector_size: int | None = None,
        keeps_tokens: bool = True,
    ) -> None:
        """Create the index, or check that the existing one was made by the same model.

        Args:
            identity: Digest of model, weights and transforms; see :class:`~clipbert_mm.apis.predictor.Predictor`.
            source: Checkpoint or config that the model was built from.
            weights: The checkpoint.
            vector_size: Numbers of a clip's vector; None for a model without vectors.
            keeps_tokens: Whether visual tokens are kept.

        Raises:
            VideoIndexError: If it was made by another model, or otherwise, or the folder contains something else.
        """
        if self.exists:
            self.check_identity(identity, source)
            if self.keeps_tokens != keeps_tokens:
                with_or_without = ("with", "without") if keeps_tokens else ("without", "with")
                raise VideoIndexError(
                    f"The index {self.folder} was made {with_or_without[1]} visual tokens, and is to be continued "
                    f"{with_or_without[0]} them. Leave out --keep-tokens as when it was made, or give a new folder."
                )
            return
        if any(not name.startswith(".") and name != RECORDS for name in _listed(self.folder)):
            raise VideoIndexError(
                f"{self.folder} is not an index and not empty. Give a new or an empty folder: --index FOLDER."
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        self.table.create(
            dict(
                identity=identity,
                source=source,
                weights=os.path.abspath(weights),
                vector_size=vector_size,
                vectors=file_name(0),
                vector_rows=0,
                keeps_tokens=keeps_tokens,
                folders=[],
            )
        )

    @property
    def folders(self) -> list[str]:
        """The folders that were indexed; none in the index of an earlier release."""
        listed = self.manifest.get("folders")
        return [folder for folder in listed if isinstance(folder, str)] if isinstance(listed, list) else []

    def note_folders(self, folders: Sequence[str]) -> None:
        """Record folders that are indexed."""
        noted = dict.fromkeys(self.folders)
        if new := [folder for folder in dict.fromkeys(folders) if folder not in noted]:
            self.set_facts({"folders": [*noted, *new]})

    def set_facts(self, facts: Mapping[str, Any]) -> None:
        """Set some facts about the index, JSON values by name."""
        self.table.set_facts(facts)

    def check_identity(self, identity: str, source: str) -> None:
        """Check that a model is the one that made the index.

        Raises:
            VideoIndexError: If it is another one.
        """
        facts = self.manifest
        if facts["identity"] != identity:
            raise VideoIndexError(
                f"The index {self.name} was made by {shown(facts['weights'])} (digest {shown(facts['identity'])}), not by "
                f"{source} (digest {identity}): weights, clips or frame size differ. Use that model, or index the videos "
                "into a new folder."
            )

    def add(self, videos: Sequence[EncodedVideo]) -> None:
        """Add or replace videos: when this returns they are on disk, and before, all of them or none count."""
        with self._changing:
            for video in videos:
                if video.tokens is not None:
                    with self._refuse_folder(video.entry):
                        stored = {name: value.to(STORED_DTYPE) for name, value in video.tokens.items()}
                        self.store.add(video.entry.key, stored, asdict(video.entry))
            with self.table.changing():
                rows: list[Rows] | list[None] = [None] * len(videos)
                if self.vector_size is not None:
                    rows = self.video_vectors.append([stored_vectors(video, self.vector_size) for video in videos])
                self.table.put(zip([video.entry for video in videos], rows, strict=True))

    def note_unreadable(self, records: Sequence[Unreadable]) -> None:
        """Record files that cannot be read, in place of older versions of them."""
        with self._changing, self.table.changing():
            self.remove([record.path for record in records])
            self.table.put_unreadable(records)

    def remove(self, paths: Sequence[str]) -> None:
        """Remove videos and records of unreadable files."""
        with self._changing:
            entries = self.table.find("path", [os.fsencode(path) for path in paths]).values()
            self.table.remove(paths)
            for entry in entries:
                with self._refuse_folder(entry), suppress(FileNotFoundError):
                    self.store.remove(entry.key)

    def part(self, number: int, processes: int) -> "VideoIndex":
        """Return the index that a process of several writes to; see :func:`~clipbert_mm.index.parts.open_part`."""
        return self if self.is_shared else open_part(self, number, processes)

    def absorb(self, other: "VideoIndex") -> int:
        """Move the videos of another index of the same model here; see :func:`~clipbert_mm.index.parts.absorb`."""
        return absorb(self, other)

    def absorb_parts(self) -> int:
        """Move what several processes have written here; see :func:`~clipbert_mm.index.parts.absorb_parts`."""
        return 0 if self.is_shared else absorb_parts(self)

    def free_bytes(self) -> int | None:
        """Return the free space of its disk; None of an engine's."""
        return None if self.is_shared else shutil.disk_usage(self.folder).free

    def compact(self, *, always: bool = False) -> None:
        """Free the disk of what belongs to no video, if that is worth its time, or ``always``."""
        if self.vector_size is not None:
            self.video_vectors.compact(always=always)
        if always:
            remove_lost_tokens(self)
            self.table.compact()

    def states(self, paths: Sequence[str]) -> dict[str, bool]:
        """Return which of some files are videos of the index, and whether indexing each again would change nothing."""
        if not self.exists:
            return {}
        damaged = set(self.video_vectors.damaged())
        return {path: self.is_whole(entry, damaged) for path, entry in self.found(paths).items()}

    def is_whole(self, entry: Entry, damaged: Collection[str]) -> bool:
        """Whether indexing a video again would change nothing, given all videos whose vectors are damaged."""
        current = entry.path not in damaged and entry.is_up_to_date()
        return current and (not self.keeps_tokens or entry.key in self.store)

    def nearest(self, query: Tensor, count: int, *, pooling: str, where: Filter | None = None) -> Nearest:
        """Return the videos whose vectors are nearest to a unit vector, (P,); see :meth:`nearest_of_each`."""
        return self.nearest_of_each(query[None], count, pooling=pooling, where=where)[0]

    def nearest_of_each(
        self, queries: Tensor, count: int, *, pooling: str, where: Filter | None = None
    ) -> list[Nearest]:
        """Return the nearest videos of each query; see :meth:`~clipbert_mm.index.video_vectors.VideoVectors.nearest`."""
        return self.video_vectors.nearest(queries, count, pooling=pooling, where=where)

    def build_approximate(self, recall: float = 0.95) -> Facts:
        """Build an approximate index; see :meth:`~clipbert_mm.index.video_vectors.VideoVectors.build_approximate`."""
        return self.video_vectors.build_approximate(recall)

    @property
    def recall(self) -> float | None:
        """Share of the nearest videos that a search by vectors finds, as it was measured; None if it is exact."""
        return self.video_vectors.recall

    def use_approximate(self) -> None:
        """Search by it from now on; see :meth:`~clipbert_mm.index.video_vectors.VideoVectors.use_approximate`."""
        self.video_vectors.use_approximate()

    def nearest_means(self, query: Tensor, count: int, *, where: Filter | None = None) -> Nearest:
        """Return the videos whose mean vectors are nearest to a unit vector, (P,); exact, but on an engine."""
        return self.video_vectors.nearest_means(query, count, where=where)

    def means(self, where: Filter | None = None) -> tuple[list[Entry], Tensor]:
        """Return videos and their mean vectors; see :meth:`~clipbert_mm.index.video_vectors.VideoVectors.means`."""
        return self.video_vectors.means(where)

    def vectors(self, path: str) -> Tensor:
        """Return the vectors of a video's clips; see :meth:`~clipbert_mm.index.video_vectors.VideoVectors.of`."""
        return self.video_vectors.of(path)

    def tokens(self, path: str, which: str = "clips") -> Tensor:
        """Read the visual tokens of a video, float32: its ``clips``, (K, S, D), or its ``coarse`` tokens, (1, S, D).

        Raises:
            VideoIndexError: If they are not kept, or their file is missing or damaged.
        """
        return self.tokens_of(self.entries.get(path) or Entry(path, 0, 0, None, None, (0, 0)), which)

    def tokens_of(self, entry: Entry, which: str = "clips") -> Tensor:
        """Read the visual tokens of a video, which need not be recorded; see :meth:`tokens`."""
        return read_tokens(self.store, entry, which, self._seen)

    def locked(self) -> AbstractContextManager[None]:
        """Lock the index against changes by other processes and threads; see :func:`~clipbert_mm.index.folders.lock_index`."""
        return lock_index(self.folder)

    @contextmanager
    def _refuse_folder(self, entry: Entry) -> Iterator[None]:
        """Raise a VideoIndexError where a folder has the name of a video's tokens."""
        try:
            yield
        except IsADirectoryError as error:
            raise VideoIndexError(
                f"{self.store.path_of(entry.key)} is a folder, expected a file of visual tokens. Delete it."
            ) from error


def stored_vectors(video: EncodedVideo, size: int) -> np.ndarray:
    """Return the vectors of a video as they are stored, float16 (K, P).

    Raises:
        VideoIndexError: If it has none, or they have another size.
    """
    shape = None if video.vectors is None else tuple(video.vectors.shape)
    if video.vectors is None or shape is None or len(shape) != 2 or shape[0] < 1 or shape[1] != size:
        raise VideoIndexError(
            f"{printable(video.entry.path)}: expected vectors of {size} numbers, one a clip, got {shape}. Use the model that "
            "made the index."
        )
    return np.ascontiguousarray(video.vectors.detach().cpu().to(STORED_DTYPE).numpy())


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []
