"""The videos of a gallery: which files they are, how they were encoded, and where their visual tokens lie."""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from clipbert_mm.engine.retrieval import Gallery
from clipbert_mm.errors import GalleryError
from clipbert_mm.structures import written_whole
from clipbert_mm.version import __version__

FORMAT = 1
"""Version of the layout; another one is not read."""
SAVE_SECONDS = 10
"""Time between two writings of the manifest while videos are added."""
HELD = 2**30
"""Bytes of visual tokens that are kept in memory for the next search."""
STORED = torch.float16
"""Type of the tokens on disk; they are normalised, so half precision holds them."""


@dataclass(frozen=True)
class Entry:
    """A video of a gallery.

    Args:
        path: Absolute path of the video.
        size: Size of the file in bytes, when it was encoded.
        mtime_ns: When the file was last written to, in nanoseconds.
        seconds: Length of the video; None for images.
        clip_times: Start and end of each clip in seconds, K pairs; None for images.
        content_shape: Height and width of the picture in the model's frame, without padding, in pixels.
    """

    path: str
    size: int
    mtime_ns: int
    seconds: float | None
    clip_times: tuple[tuple[float, float], ...] | None
    content_shape: tuple[int, int]

    @property
    def key(self) -> str:
        """Its name in the gallery, which tells nothing of its path."""
        return hashlib.sha256(self.path.encode(errors="surrogateescape")).hexdigest()[:32]

    def is_current(self) -> bool:
        """Whether the video is still the file that was encoded."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.size, self.mtime_ns)


def _entry(values: dict[str, Any]) -> Entry:
    times = values["clip_times"]
    return Entry(
        **values
        | dict(
            clip_times=None if times is None else tuple((start, end) for start, end in times),
            content_shape=tuple(values["content_shape"]),
        )
    )


class VideoGallery:
    """A folder with a ``manifest.json`` and, in ``tokens``, the visual tokens of each video, (K, S, D) float16.

    Each file of tokens says itself which video it is of; so what a killed indexing had written is found again.

    Args:
        folder: The folder; it is made when the first video is added.

    Raises:
        GalleryError: If there is something else in the folder, or the gallery is of another version.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.folder = Path(folder)
        self.store = Gallery(self.folder / "tokens", budget=HELD)
        self.manifest: dict[str, Any] = {}
        self.entries: dict[str, Entry] = {}
        self._saved = time.monotonic()
        if self.exists:
            self._read()

    @property
    def exists(self) -> bool:
        """Whether there is a gallery in the folder."""
        return (self.folder / "manifest.json").is_file()

    def start(self, identity: str, source: str, weights: str) -> None:
        """Begin a gallery, or see that the one there is was made by the same model.

        Args:
            identity: Digest of model, weights and transforms; see :class:`~clipbert_mm.apis.predictor.Predictor`.
            source: Checkpoint or config that the model was built from.
            weights: The checkpoint.

        Raises:
            GalleryError: If it was made by another model.
        """
        if self.exists:
            self.check_identity(identity, source)
            return
        if any(not name.startswith(".") for name in _listed(self.folder)):
            raise GalleryError(f"{self.folder} is no gallery and is not empty. Name a new folder, or an empty one.")
        self.manifest = dict(
            format=FORMAT, version=__version__, identity=identity, source=source, weights=os.path.abspath(weights)
        )
        self.save()

    def check_identity(self, identity: str, source: str) -> None:
        """See that a model is the one that the gallery was made with.

        Raises:
            GalleryError: If it is not.
        """
        if self.manifest["identity"] != identity:
            raise GalleryError(
                f"The gallery {self.folder} was made with {self.manifest['weights']} (digest {self.manifest['identity']}), not "
                f"with {source} (digest {identity}): other weights, clips or frame size. Use that one, or index the "
                "videos into a new gallery."
            )

    def add(self, entry: Entry, tokens: dict[str, Tensor]) -> None:
        """Put a video in, or another version of it: its visual tokens, ``clips`` (K, S, D) and ``overview`` (1, S, D)."""
        self.store.add(entry.key, {name: value.to(STORED) for name, value in tokens.items()}, asdict(entry))
        self.entries[entry.path] = entry
        if time.monotonic() - self._saved > SAVE_SECONDS:
            self.save()

    def remove(self, paths: Sequence[str]) -> None:
        """Take videos out; to be followed by :meth:`save`."""
        for path in paths:
            self.store.remove(self.entries.pop(path).key)

    def save(self) -> None:
        """Write the manifest."""
        videos = [asdict(self.entries[path]) for path in sorted(self.entries)]
        with written_whole(self.folder / "manifest.json") as file:
            json.dump(self.manifest | dict(videos=videos), file, indent=1)
        self._saved = time.monotonic()

    def tokens(self, path: str, which: str = "clips") -> Tensor:
        """Read the visual tokens of a video, float32: its ``clips``, (K, S, D), or its ``overview``, (1, S, D).

        Raises:
            GalleryError: If their file is missing or damaged.
        """
        entry = self.entries[path]
        try:
            return self.store.read([entry.key], which)[0].float()
        except GalleryError as error:
            raise GalleryError(
                f"{self.store.path_of(entry.key)}, with the tokens of {path}, cannot be read ({error}). Delete it and index "
                "the video again."
            ) from error

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from changing the gallery meanwhile.

        Raises:
            GalleryError: If one is changing it already.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with open(self.folder / ".lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise GalleryError(f"Another process is changing the gallery {self.folder}. Wait for it.") from None
            yield

    def _read(self) -> None:
        """Read the manifest, and find what was written after it."""
        file = self.folder / "manifest.json"
        try:
            manifest = json.loads(file.read_text(encoding="utf-8"))
            videos = manifest.pop("videos")
            entries = [_entry(values) for values in videos]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise GalleryError(f"{file} is no manifest of a gallery: {type(error).__name__}: {error}.") from error
        if manifest.get("format") != FORMAT:
            raise GalleryError(
                f"The gallery {self.folder} was made by clipbert_mm {manifest.get('version')} in format "
                f"{manifest.get('format')}; this is {__version__}, which reads format {FORMAT}. Index the videos into a new "
                "gallery."
            )
        self.manifest = manifest
        on_disk = set(self.store.names())
        self.entries = {entry.path: entry for entry in entries if entry.key in on_disk}
        for key in on_disk - {entry.key for entry in entries}:
            with suppress(KeyError, TypeError, ValueError):  # a damaged file is of no video
                entry = _entry(self.store.record(key))
                self.entries[entry.path] = entry


def _listed(folder: Path) -> list[str]:
    return os.listdir(folder) if folder.is_dir() else []
