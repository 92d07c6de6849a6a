"""Visual tokens of videos on disk, each video encoded once, and a bounded number of them in memory."""

import json
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipbert_mm.errors import VideoIndexError, quoted
from clipbert_mm.fileio import atomic_write

SUFFIX = ".safetensors"
OLD_NAMES = {"coarse": "overview"}
"""Names of tokens in files of earlier releases, by their names today."""


def _checksum(content: Tensor | str) -> int:
    """Return the CRC-32 of a text, or of a tensor's type, shape and bytes."""
    if isinstance(content, str):
        return zlib.crc32(content.encode())
    described = zlib.crc32(f"{content.dtype} {tuple(content.shape)}".encode())
    return zlib.crc32(content.contiguous().view(-1).view(torch.uint8).numpy().data, described)


class FeatureStore:
    """Store encoded videos in a folder, one file per video, written atomically and memory-mapped when read.

    Several processes may add to a store and read it. A file holds the video's visual tokens by name, as
    :meth:`~clipbert_mm.models.ClipBert.encode_with_coarse_tokens` returns them (none for a video that cannot be read), a
    record, and a checksum of each. Checksums are compared whenever a file is read; files of old releases have none.

    Args:
        folder: The folder; it is created when the first video is added.
        budget: Most bytes of visual tokens to keep in memory after they are read; None for no limit.
    """

    def __init__(self, folder: str | os.PathLike, *, budget: int | None = None) -> None:
        self.folder = Path(folder)
        self.budget = budget
        # By video and kind of tokens, with the version of the file.
        self._cached: dict[str, dict[str, tuple[tuple[int, int], Tensor]]] = {}
        self._cached_bytes = 0
        self._lock = threading.RLock()

    def __contains__(self, name: str) -> bool:
        return self.path_of(name).is_file()

    def path_of(self, name: str) -> Path:
        """Return the file of a video."""
        return self.folder / f"{name}{SUFFIX}"

    def names(self) -> list[str]:
        """Return the names of all videos, sorted."""
        return sorted(path.name.removesuffix(SUFFIX) for path in self.folder.glob(f"*{SUFFIX}"))

    def add(self, name: str, tokens: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Add or replace a video.

        Args:
            name: Its name: a file name without suffix.
            tokens: Visual tokens by name, (K, S, D) each; empty for a video that cannot be read.
            record: What else to store about it, as JSON.
        """
        tensors = {key: value.detach().cpu().contiguous().clone() for key, value in tokens.items()}
        text = json.dumps(record)
        checksums = {"record": _checksum(text)} | {key: _checksum(value) for key, value in tensors.items()}
        with atomic_write(self.path_of(name), "wb") as file:
            file.write(save(tensors, {"record": text, "checksums": json.dumps(checksums)}))
        self._forget(name)

    def remove(self, name: str) -> None:
        """Remove a video."""
        self.path_of(name).unlink()
        self._forget(name)

    def record(self, name: str) -> dict[str, Any]:
        """Return the record of a video.

        Raises:
            VideoIndexError: If its file is missing, damaged, or of another kind.
        """
        with self._open(name) as (file, checksums):
            text = file.metadata()["record"]
            self._verify(name, checksums, "record", text)
            return json.loads(text)

    def read(self, names: Sequence[str], which: str = "clips") -> Tensor:
        """Return the visual tokens of some videos, on the CPU.

        Args:
            names: The videos.
            which: "clips" for the tokens of all clips, "coarse" for the coarse tokens, or the vector.

        Returns:
            Visual tokens, (V, K, S, D); where videos have different numbers of them, the shorter ones end with tokens of zeros,
            which encoders leave out.

        Raises:
            VideoIndexError: If a file is missing or damaged.
        """
        tokens = [self._tokens(name, which) for name in names]
        most = max((each.shape[1] for each in tokens), default=0)
        return torch.stack(
            [F.pad(each, (0, 0, 0, most - each.shape[1])) if each.shape[1] < most else each for each in tokens]
        )

    def _tokens(self, name: str, which: str) -> Tensor:
        try:
            status = self.path_of(name).stat()  # another process may have replaced the file
        except OSError as error:
            raise self._error(name, error) from error
        version, cached = (status.st_mtime_ns, status.st_ino), self._cached.get(name, {}).get(which)
        if cached is not None and cached[0] == version:
            return cached[1]
        self._forget(name, which)  # of an older file
        with self._open(name) as (file, checksums):
            key = which if which in file.keys() else OLD_NAMES.get(which, which)  # noqa: SIM118
            tokens = file.get_tensor(key)
            self._verify(name, checksums, key, tokens)
            if tokens.ndim < 2:
                raise self._error(name, f"its {key} have the shape {tuple(tokens.shape)}")
        if self.budget is None or self._cached_bytes + tokens.nbytes <= self.budget:
            tokens = tokens.clone()  # out of the memory-mapped file
            with self._lock:
                self._forget(name, which)  # another thread may have added it meanwhile
                self._cached.setdefault(name, {})[which] = version, tokens
                self._cached_bytes += tokens.nbytes
        return tokens

    @contextmanager
    def _open(self, name: str) -> Iterator[tuple[Any, dict[str, int]]]:
        """Open the file of a video, with the checksums of its content; errors name its path."""
        try:
            with safe_open(self.path_of(name), framework="pt") as file:
                checksums = json.loads((file.metadata() or {}).get("checksums", "{}"))
                if not isinstance(checksums, dict):
                    raise ValueError(f"its checksums are {quoted(checksums)}")
                yield file, checksums
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise error if isinstance(error, VideoIndexError) else self._error(name, error) from error

    def _verify(self, name: str, checksums: dict[str, int], key: str, content: Tensor | str) -> None:
        if checksums and checksums.get(key) != _checksum(content):
            raise self._error(name, f"the checksum of its {key} does not match")

    def _error(self, name: str, reason: object) -> VideoIndexError:
        path = self.path_of(name)
        if not path.exists():
            return VideoIndexError(
                f"{path} is missing. Index the video again, or start the test again, to encode it again."
            )
        return VideoIndexError(
            f"{path} is damaged or not a file of visual tokens: {reason}. Delete it, and the video will be encoded again."
        )

    def _forget(self, name: str, which: str | None = None) -> None:
        """Drop the tokens of a video from memory, all or some; other threads may read at the same time."""
        with self._lock:
            own = self._cached.get(name, {})
            for key in [key for key in own if which in (None, key)]:
                self._cached_bytes -= own.pop(key)[1].nbytes
            if not own:
                self._cached.pop(name, None)
