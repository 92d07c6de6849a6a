"""The videos of a gallery: which files they are, how they were encoded, and where their visual tokens lie."""

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
from clipbert_mm.retrieval import FeatureStore
from clipbert_mm.version import __version__

FORMAT = 1
"""Version of the layout; another one is not read."""
SAVE_SECONDS = 10
"""Time between two writings of the manifest while videos are added."""
HELD = 2**30
"""Bytes of visual tokens that are kept in memory for the next search."""
LARGEST_MANIFEST, LARGEST_TOKENS = 2**30, 2**28
"""Bytes of the largest manifest, and of the largest file of visual tokens, that are read."""
STORED = torch.float16
"""Type of the tokens on disk; they are normalized, so half precision holds them."""


def is_gallery(folder: str | os.PathLike) -> bool:
    """Whether a folder is a gallery, whose uploads and previews are no videos to index."""
    return (Path(folder) / "manifest.json").is_file() and (Path(folder) / "tokens").is_dir()


class VideoIndex:
    """A folder with a ``manifest.json`` and, in ``tokens``, the visual tokens of each video, (K, S, D) float16.

    Each file of tokens says itself which video it is of; so what a killed indexing had written is found again. The manifest
    lists the videos, and the files that could not be read, which are not tried again until they change. One process at a time
    changes a gallery; others, and other threads, may read it meanwhile: :attr:`entries` is replaced, never changed.

    Args:
        folder: The folder; it is made when the first video is added.

    Raises:
        VideoIndexError: If there is something else in the folder, or the gallery is of another version.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.store = FeatureStore(self.folder / "tokens", budget=HELD)
        self.manifest: dict[str, Any] = {}
        self.entries: dict[str, Entry] = {}
        """The videos, by path."""
        self.missing: dict[str, Entry] = {}
        """Videos of the manifest whose file of tokens is gone."""
        self.unreadable: dict[str, Unreadable] = {}
        """Files that could not be read, by path."""
        self._seen: dict[str, tuple[int, int]] = {}  # versions of files of tokens that were read
        self._saved = time.monotonic()
        self._read_at: tuple[int, int, int] | None = None
        self._changing = threading.RLock()
        self.refresh()

    @property
    def exists(self) -> bool:
        """Whether there is a gallery in the folder."""
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
        """Begin a gallery, or see that the one there is was made by the same model.

        Args:
            identity: Digest of model, weights and transforms; see :class:`~clipbert_mm.apis.predictor.Predictor`.
            source: Checkpoint or config that the model was built from.
            weights: The checkpoint.

        Raises:
            VideoIndexError: If it was made by another model.
        """
        if self.exists:
            self.check_identity(identity, source)
            return
        if any(not name.startswith(".") for name in _listed(self.folder)):
            raise VideoIndexError(f"{self.folder} is no gallery and is not empty. Name a new folder, or an empty one.")
        self.manifest = dict(
            format=FORMAT, version=__version__, identity=identity, source=source, weights=os.path.abspath(weights)
        )
        self.save()

    def check_identity(self, identity: str, source: str) -> None:
        """See that a model is the one that the gallery was made with.

        Raises:
            VideoIndexError: If it is not.
        """
        if self.manifest["identity"] != identity:
            raise VideoIndexError(
                f"The gallery {self.folder} was made with {shown(self.manifest['weights'])} (digest "
                f"{shown(self.manifest['identity'])}), not with {source} (digest {identity}): other weights, clips or frame "
                "size. Use that one, or index the videos into a new gallery."
            )

    def add(self, entry: Entry, tokens: dict[str, Tensor]) -> None:
        """Add or replace a video with its visual tokens: ``clips`` (K, S, D) and ``coarse`` (1, S, D)."""
        with self._own_file(entry):
            self.store.add(entry.key, {name: value.to(STORED) for name, value in tokens.items()}, asdict(entry))
        with self._changing:
            self.entries = {**self.entries, entry.path: entry}
            self.missing.pop(entry.path, None)
            self.unreadable.pop(entry.path, None)
        self._save_now_and_then()

    def note_unreadable(self, found: Unreadable) -> None:
        """Remember a file that cannot be read, instead of an older version of it."""
        with self._changing:
            self.remove([found.path])
            self.unreadable[found.path] = found
        self._save_now_and_then()

    def remove(self, paths: Sequence[str]) -> None:
        """Take videos out, and what is noted of files that cannot be read; to be followed by :meth:`save`."""
        with self._changing:
            gone = {path: entry for path in paths if (entry := self.entries.get(path) or self.missing.get(path))}
            self.entries = {path: entry for path, entry in self.entries.items() if path not in gone}
            for path in paths:
                self.missing.pop(path, None)
                self.unreadable.pop(path, None)
            for entry in gone.values():
                with self._own_file(entry), suppress(FileNotFoundError):
                    self.store.remove(entry.key)

    def _save_now_and_then(self) -> None:
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
            found = os.stat(file)
            if not stat.S_ISREG(found.st_mode) or found.st_size > LARGEST_TOKENS:
                raise VideoIndexError(f"{file} is no file of at most {LARGEST_TOKENS / 2**20:.0f} MiB")
            version = found.st_mtime_ns, found.st_ino
            if self._seen.get(entry.key) != version and self.store.record(entry.key).get("path") != path:
                raise VideoIndexError(f"{file} is of another video")
            self._seen[entry.key] = version
            tokens = self.store.read([entry.key], which)[0]
            if tokens.ndim != 3 or not tokens.is_floating_point() or tokens.numel() == 0:
                raise VideoIndexError(
                    f"{file} has {tokens.dtype} {tuple(tokens.shape)}, expected numbers of shape (K, S, D)"
                )
            if which == "clips" and entry.clip_times is not None and len(entry.clip_times) != len(tokens):
                raise VideoIndexError(f"{file} has {len(tokens)} clips, expected {len(entry.clip_times)}")
            return tokens.float()
        except (OSError, VideoIndexError, RuntimeError, AttributeError) as error:
            raise VideoIndexError(
                f"The visual tokens of {printable(path)} cannot be read: {_why(error)} Remove their file, if it is there, and "
                "index the video again."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes, and other threads, from changing the gallery meanwhile.

        Raises:
            BusyFolderError: If one is changing it already.
            VideoIndexError: If what is to be written to is a link, which may lead out of the gallery.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in ("tokens", "manifest.json", ".lock"):
            if (self.folder / name).is_symlink():
                raise VideoIndexError(
                    f"{self.folder / name} is a link, and nothing is written out of a gallery. Move what it leads to into the "
                    "gallery's folder."
                )
        try:
            lock = os.open(self.folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        except OSError as error:
            raise VideoIndexError(
                f"The gallery {self.folder} cannot be changed: {error.strerror} ({error.filename})."
            ) from error
        try:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise BusyFolderError(f"Another process is changing the gallery {self.folder}. Wait for it.") from None
            self.refresh()
            yield
        finally:
            os.close(lock)

    @contextmanager
    def _own_file(self, entry: Entry) -> Iterator[None]:
        """See that it is a file that a video's tokens lie in.

        Raises:
            VideoIndexError: If it is a folder.
        """
        try:
            yield
        except IsADirectoryError as error:
            raise VideoIndexError(
                f"{self.store.path_of(entry.key)} is a folder, not a file of tokens. Remove it."
            ) from error

    def _version(self) -> tuple[int, int, int] | None:
        """Return what tells whether the manifest has changed; None if there is none."""
        try:
            found = os.stat(self.folder / "manifest.json")
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino

    def _read(self) -> None:
        """Read the manifest, and find what was written after it."""
        file = self.folder / "manifest.json"
        version = self._version()
        try:
            if version is None or version[1] > LARGEST_MANIFEST or not file.is_file():
                raise ValueError(f"expected a file of at most {LARGEST_MANIFEST / 2**30:.0f} GiB")
            manifest = json.loads(file.read_text(encoding="utf-8"))
            if manifest["format"] != FORMAT:
                raise VideoIndexError(
                    f"The gallery {self.folder} was made by clipbert_mm {shown(manifest.get('version'))} in format "
                    f"{shown(manifest.get('format'))}; this is {__version__}, which reads format {FORMAT}. Index the videos "
                    "into a new gallery."
                )
            entries = [entry_from(values) for values in manifest.pop("videos")]
            unreadable = [unreadable_from(values) for values in manifest.pop("unreadable", [])]
            for name in ("version", "identity", "source", "weights"):
                expect(manifest[name], str, name)
            keys = {entry.key for entry in entries}
        except VideoIndexError:
            raise
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError, OverflowError) as error:
            raise VideoIndexError(f"{file} is no manifest of a gallery: {_why(error)}.") from error
        on_disk = set(self.store.names())
        found = {entry.path: entry for entry in entries}
        for key in on_disk - keys:
            with suppress(KeyError, TypeError, ValueError, OSError, RuntimeError):  # a damaged file is of no video
                entry = entry_from(self.store.record(key))
                if entry.key == key:
                    found[entry.path] = entry
        self.manifest = manifest
        self.missing = {path: entry for path, entry in found.items() if entry.key not in on_disk}
        self.entries = {path: entry for path, entry in found.items() if entry.key in on_disk}
        self.unreadable = {each.path: each for each in unreadable if each.path not in found}
        self._read_at = version


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []


def _why(error: Exception) -> str:
    """Say in a few words what an error was."""
    words = str(error) if isinstance(error, VideoIndexError) else f"{type(error).__name__}: {error}"
    return words if len(words) <= 200 else f"{words[:200]}..."
