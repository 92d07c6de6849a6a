"""Visual tokens of videos on disk, each video encoded once; of them only as many in memory as may be."""

import json
import os
import shutil
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipbert_mm.errors import VideoIndexError, quoted
from clipbert_mm.fileio import atomic_write

SUFFIX = ".safetensors"


def _checksum(content: Tensor | str) -> int:
    """Return the CRC-32 of a text, or of a tensor's type, shape and bytes."""
    if isinstance(content, str):
        return zlib.crc32(content.encode())
    described = zlib.crc32(f"{content.dtype} {tuple(content.shape)}".encode())
    return zlib.crc32(content.contiguous().view(-1).view(torch.uint8).numpy().data, described)


class FeatureStore:
    """Encoded videos in a folder: a file of each, memory-mapped when it is read, there whole or not at all.

    Several processes may add to a gallery and read it. A file holds the video's visual tokens by name, as
    :meth:`~clipbert_mm.retrieval.PairScorer.encode_video` makes them, none if it could not be read, a record about
    it, and the checksum of each, which is compared when they are read from disk; files of releases before have none.

    Args:
        folder: The folder, made when the first video is added.
        budget: Bytes of visual tokens that stay in this process' memory once they are read; None for all.
    """

    def __init__(self, folder: str | os.PathLike, *, budget: int | None = None) -> None:
        self.folder = Path(folder)
        self.budget = budget
        self._held: dict[tuple[str, str], tuple[tuple[int, int], Tensor]] = {}  # with the version of the file
        self._held_bytes = 0
        self._holding = threading.RLock()

    def __contains__(self, name: str) -> bool:
        return self.path_of(name).is_file()

    def path_of(self, name: str) -> Path:
        """Return the file of a video."""
        return self.folder / f"{name}{SUFFIX}"

    def names(self) -> list[str]:
        """Name the videos that are there, in the order of their names."""
        return sorted(path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))

    def add(self, name: str, tokens: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Add a video, or put it in the place of what was there.

        Args:
            name: Its name, a file's name without its ending.
            tokens: Visual tokens by name, (K, S, D) each; empty if it could not be read.
            record: What JSON can hold about it.
        """
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tokens.items()}
        text = json.dumps(record)
        checksums = {"record": _checksum(text)} | {key: _checksum(value) for key, value in tensors.items()}
        with atomic_write(self.path_of(name), "wb") as file:
            file.write(save(tensors, {"record": text, "checksums": json.dumps(checksums)}))
        self._let_go(name)

    def remove(self, name: str) -> None:
        """Take a video out."""
        self.path_of(name).unlink()
        self._let_go(name)

    def record(self, name: str) -> dict[str, Any]:
        """Return the record about a video.

        Raises:
            VideoIndexError: If its file is missing or damaged, or not one of a gallery.
        """
        with self._opened(name) as (file, checksums):
            text = file.metadata()["record"]
            self._compare(name, checksums, "record", text)
            return json.loads(text)

    def read(self, names: Sequence[str], which: str = "clips") -> Tensor:
        """Return the visual tokens of some videos that could be read, on the CPU.

        Args:
            names: The videos.
            which: Which of their tokens: "clips", all of them, or "overview", one clip of all frames.

        Returns:
            Visual tokens, (V, K, S, D).

        Raises:
            VideoIndexError: If a file is missing or damaged.
        """
        return torch.stack([self._tokens(name, which) for name in names])

    def _tokens(self, name: str, which: str) -> Tensor:
        try:
            found = self.path_of(name).stat()  # another process may have put another file there
        except OSError as error:
            raise self._error(name, error) from error
        version, held = (found.st_mtime_ns, found.st_ino), self._held.get((name, which))
        if held is not None and held[0] == version:
            return held[1]
        with self._opened(name) as (file, checksums):
            tokens = file.get_tensor(which)
            self._compare(name, checksums, which, tokens)
        if self.budget is None or self._held_bytes + tokens.nbytes <= self.budget:
            tokens = tokens.clone()  # not the mapped file
            with self._holding:
                self._let_go(name, which)  # another thread may have been here
                self._held[name, which] = version, tokens
                self._held_bytes += tokens.nbytes
        return tokens

    @contextmanager
    def _opened(self, name: str) -> Iterator[tuple[Any, dict[str, int]]]:
        """Open the file of a video, with the checksums of what is in it; what is wrong with it is told with its path."""
        try:
            with safe_open(self.path_of(name), framework="pt") as file:
                checksums = json.loads((file.metadata() or {}).get("checksums", "{}"))
                if not isinstance(checksums, dict):
                    raise ValueError(f"its checksums are {quoted(checksums)}")
                yield file, checksums
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise error if isinstance(error, VideoIndexError) else self._error(name, error) from error

    def _compare(self, name: str, checksums: dict[str, int], key: str, content: Tensor | str) -> None:
        if checksums and checksums.get(key) != _checksum(content):
            raise self._error(name, f"the checksum of its {key} does not agree")

    def _error(self, name: str, reason: object) -> VideoIndexError:
        path = self.path_of(name)
        if not path.exists():
            return VideoIndexError(
                f"{path} of the gallery is missing. Index the video again, and it will be made anew."
            )
        return VideoIndexError(
            f"{path} is damaged, or no file of a gallery: {reason}. Remove it, and it will be made anew."
        )

    def _let_go(self, name: str, which: str | None = None) -> None:
        """Hold the tokens of a video no longer, all of them or some; other threads may read at the same time."""
        with self._holding:
            for key in [(name, which)] if which else [key for key in self._held if key[0] == name]:
                held = self._held.pop(key, None)
                self._held_bytes -= held[1].nbytes if held is not None else 0

    def delete(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._held.clear()
        self._held_bytes = 0
