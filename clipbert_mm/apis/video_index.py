"""The index that ``clipbert index`` writes: its videos, how they were encoded, and their visual tokens."""

import fcntl
import json
import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipbert_mm.apis.index_records import Entry, Unreadable, entry_from, expect, shown, unreadable_from
from clipbert_mm.errors import BusyFolderError, VideoIndexError, printable
from clipbert_mm.fileio import atomic_write
from clipbert_mm.retrieval.feature_store import FeatureStore
from clipbert_mm.version import __version__

FORMAT = 1
"""Version of the layout on disk; other versions are refused."""
DEFAULT_FOLDER, OLD_DEFAULT_FOLDER = "clipbert_index", "clipbert_gallery"
"""Folder of the index when none is given, now and in earlier releases."""
SAVE_SECONDS = 10
"""Seconds between two writes of the manifest while videos are added."""
CACHE_BYTES = 2**30
"""Bytes of visual tokens that are kept in memory for the next search."""
MAX_MANIFEST_BYTES, MAX_TOKEN_BYTES = 2**30, 2**28
"""Bytes of the largest manifest, and of the largest file of visual tokens, that are read."""
STORED_DTYPE = torch.float16
"""Data type of the tokens on disk; they are normalized, so half precision is enough."""


def is_index(folder: str | os.PathLike) -> bool:
    """Whether a folder is an index, whose uploads and previews are not videos to index."""
    return (Path(folder) / "manifest.json").is_file() and (Path(folder) / "tokens").is_dir()


def default_folder() -> str:
    """Return the folder of the index when none is given; that of earlier releases if only that one exists."""
    return OLD_DEFAULT_FOLDER if is_index(OLD_DEFAULT_FOLDER) and not is_index(DEFAULT_FOLDER) else DEFAULT_FOLDER


class VideoIndex:
    """Index of videos: a folder with a ``manifest.json`` and the visual tokens of each video, (K, S, D) float16, in ``tokens``.

    Each file of tokens names its video, so the work of a killed indexing is found again. The manifest lists the videos, and
    the files that could not be read, which are not tried again until they change. One process at a time changes an index;
    other processes and threads may read it meanwhile: :attr:`entries` is replaced, never changed.

    Args:
        folder: The folder; it is created when the first video is added.

    Raises:
        VideoIndexError: If the manifest is damaged or of another version.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.store = FeatureStore(self.folder / "tokens", budget=CACHE_BYTES)
        self.manifest: dict[str, Any] = {}
        self.entries: dict[str, Entry] = {}
        """The videos, by path."""
        self.missing: dict[str, Entry] = {}
        """Videos in the manifest whose file of tokens is missing."""
        self.unreadable: dict[str, Unreadable] = {}
        """Files that could not be read, by path."""
        self._seen: dict[str, tuple[int, int]] = {}  # versions of the files of tokens that were checked
        self._saved = time.monotonic()
        self._read_at: tuple[int, int, int] | None = None
        self._changing = threading.RLock()
        self.refresh()

    @property
    def exists(self) -> bool:
        """Whether there is an index in the folder."""
        return (self.folder / "manifest.json").is_file()

    def refresh(self) -> None:
        """Read the manifest again if another process has changed it.

        Raises:
            VideoIndexError: If it is damaged, or of another version.
        """
        with self._changing:
            if self._version() not in (None, self._read_at):
                self._read()

    def start(self, identity: str, source: str, weights: str) -> None:
        """Create the index, or check that the existing one was made by the same model.

        Args:
            identity: Digest of model, weights and transforms; see :class:`~clipbert_mm.apis.predictor.Predictor`.
            source: Checkpoint or config that the model was built from.
            weights: The checkpoint.

        Raises:
            VideoIndexError: If it was made by another model, or the folder contains something else.
        """
        if self.exists:
            self.check_identity(identity, source)
            return
        if any(not name.startswith(".") for name in _listed(self.folder)):
            raise VideoIndexError(
                f"{self.folder} is not an index and not empty. Give a new or an empty folder: --index FOLDER."
            )
        self.manifest = dict(
            format=FORMAT, version=__version__, identity=identity, source=source, weights=os.path.abspath(weights)
        )
        self.save()

    @property
    def folders(self) -> list[str]:
        """The folders that were indexed; none in the index of an earlier release."""
        listed = self.manifest.get("folders")
        return [folder for folder in listed if isinstance(folder, str)] if isinstance(listed, list) else []

    def note_folders(self, folders: Sequence[str]) -> None:
        """Record folders that are indexed; to be followed by :meth:`save`."""
        if new := [folder for folder in dict.fromkeys(folders) if folder not in self.folders]:
            self.manifest = {**self.manifest, "folders": [*self.folders, *new]}

    def check_identity(self, identity: str, source: str) -> None:
        """Check that a model is the one that made the index.

        Raises:
            VideoIndexError: If it is another one.
        """
        if self.manifest["identity"] != identity:
            raise VideoIndexError(
                f"The index {self.folder} was made by {shown(self.manifest['weights'])} (digest "
                f"{shown(self.manifest['identity'])}), not by {source} (digest {identity}): weights, clips or frame size "
                "differ. Use that model, or index the videos into a new folder."
            )

    def add(self, entry: Entry, tokens: dict[str, Tensor]) -> None:
        """Add or replace a video with its visual tokens: ``clips`` (K, S, D) and ``coarse`` (1, S, D)."""
        with self._refuse_folder(entry):
            self.store.add(entry.key, {name: value.to(STORED_DTYPE) for name, value in tokens.items()}, asdict(entry))
        with self._changing:
            self.entries = {**self.entries, entry.path: entry}
            self.missing.pop(entry.path, None)
            self.unreadable.pop(entry.path, None)
        self._save_if_due()

    def note_unreadable(self, record: Unreadable) -> None:
        """Record a file that cannot be read, in place of an older version of it."""
        with self._changing:
            self.remove([record.path])
            self.unreadable[record.path] = record
        self._save_if_due()

    def remove(self, paths: Sequence[str]) -> None:
        """Remove videos and records of unreadable files; to be followed by :meth:`save`."""
        with self._changing:
            removed = {path: entry for path in paths if (entry := self.entries.get(path) or self.missing.get(path))}
            self.entries = {path: entry for path, entry in self.entries.items() if path not in removed}
            for path in paths:
                self.missing.pop(path, None)
                self.unreadable.pop(path, None)
            for entry in removed.values():
                with self._refuse_folder(entry), suppress(FileNotFoundError):
                    self.store.remove(entry.key)

    def _save_if_due(self) -> None:
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def save(self) -> None:
        """Write the manifest."""
        with self._changing:
            videos = {**self.missing, **self.entries}
            listed = dict(
                videos=[asdict(videos[path]) for path in sorted(videos)],
                unreadable=[asdict(self.unreadable[path]) for path in sorted(self.unreadable)],
            )
            with atomic_write(self.folder / "manifest.json") as file:
                json.dump(self.manifest | listed, file, indent=1)
            self._saved = time.monotonic()
            self._read_at = self._version()

    def tokens(self, path: str, which: str = "clips") -> Tensor:
        """Read the visual tokens of a video, float32: its ``clips``, (K, S, D), or its ``coarse`` tokens, (1, S, D).

        Raises:
            VideoIndexError: If their file is missing or damaged.
        """
        entry = self.entries.get(path) or Entry(path, 0, 0, None, None, (0, 0))
        file = self.store.path_of(entry.key)
        try:
            status = os.stat(file)
            if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_TOKEN_BYTES:
                raise VideoIndexError(f"{file} is not a file of at most {MAX_TOKEN_BYTES / 2**20:.0f} MiB")
            version = status.st_mtime_ns, status.st_ino
            if self._seen.get(entry.key) != version and self.store.record(entry.key).get("path") != path:
                raise VideoIndexError(f"{file} belongs to another video")
            self._seen[entry.key] = version
            tokens = self.store.read([entry.key], which)[0]
            if tokens.ndim != 3 or not tokens.is_floating_point() or tokens.numel() == 0:
                raise VideoIndexError(
                    f"{file}: expected floats of shape (K, S, D), got {tokens.dtype} {tuple(tokens.shape)}"
                )
            if which == "clips" and entry.clip_times is not None and len(entry.clip_times) != len(tokens):
                raise VideoIndexError(f"{file}: expected {len(entry.clip_times)} clips, got {len(tokens)}")
            return tokens.float()
        except (OSError, VideoIndexError, RuntimeError, AttributeError) as error:
            raise VideoIndexError(
                f"Cannot read the visual tokens of {printable(path)}: {_reason(error).rstrip('.')}. Delete their file if it "
                "exists, and index the video again."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Lock the index against changes by other processes and threads.

        Raises:
            BusyFolderError: If another one is changing it.
            VideoIndexError: If a file or folder to write is a symbolic link, which may lead out of the index.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokens", "manifest.json", ".lock"):
            if (self.folder / name).is_symlink():
                raise VideoIndexError(
                    f"{self.folder / name} is a symbolic link, and an index is never written outside its folder. Replace the "
                    "link by its target."
                )
        try:
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise VideoIndexError(
                f"Cannot change the index {self.folder}: {error.strerror} ({error.filename})."
            ) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BusyFolderError(
                    f"Another process is changing the index {self.folder}. Wait until it is done."
                ) from None
            self.refresh()
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _refuse_folder(self, entry: Entry) -> Iterator[None]:
        """Refuse to change the file of a video's tokens if a folder has its name.

        Raises:
            VideoIndexError: If it is a folder.
        """
        try:
            yield
        except IsADirectoryError as error:
            raise VideoIndexError(
                f"{self.store.path_of(entry.key)} is a folder, expected a file of visual tokens. Delete it."
            ) from error

    def _version(self) -> tuple[int, int, int] | None:
        """Return modification time, size and inode of the manifest; None if there is none."""
        try:
            status = os.stat(self.folder / "manifest.json")
        except OSError:
            return None
        return status.st_mtime_ns, status.st_size, status.st_ino

    def _read(self) -> None:
        """Read the manifest, and find the videos that were added after it was written."""
        file = self.folder / "manifest.json"
        version = self._version()
        try:
            if version is None or version[1] > MAX_MANIFEST_BYTES or not file.is_file():
                raise ValueError(f"expected a file of at most {MAX_MANIFEST_BYTES / 2**30:.0f} GiB")
            manifest = json.loads(file.read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                raise VideoIndexError(
                    f"The index {self.folder} was made by clipbert_mm {shown(manifest.get('version'))} in format "
                    f"{shown(manifest.get('format'))}, and clipbert_mm {__version__} reads format {FORMAT}. Index the videos "
                    "into a new folder."
                )
            entries = [entry_from(values) for values in manifest.pop("videos")]
            unreadable = [unreadable_from(values) for values in manifest.pop("unreadable", [])]
            for name in ("version", "identity", "source", "weights"):
                expect(manifest[name], str, name)
            keys = {entry.key for entry in entries}
        except VideoIndexError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
            raise VideoIndexError(f"{file} is damaged or not the manifest of an index: {_reason(error)}.") from error
        on_disk = set(self.store.names())
        videos = {entry.path: entry for entry in entries}
        for key in on_disk - keys:
            with suppress(KeyError, TypeError, ValueError, OSError, RuntimeError):  # ignore damaged files
                entry = entry_from(self.store.record(key))
                if entry.key == key:
                    videos[entry.path] = entry
        self.manifest = manifest
        self.missing = {path: entry for path, entry in videos.items() if entry.key not in on_disk}
        self.entries = {path: entry for path, entry in videos.items() if entry.key in on_disk}
        self.unreadable = {each.path: each for each in unreadable if each.path not in videos}
        self._read_at = version


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _reason(error: Exception) -> str:
    """Describe an error in at most 200 characters."""
    reason = str(error) if isinstance(error, VideoIndexError) else f"{type(error).__name__}: {error}"
    return reason if len(reason) <= 200 else f"{reason[:200]}..."
