"""Visual tokens of videos on disk, each video encoded once; of them only as many in memory as may be."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from clipbert_mm.structures import written_whole

SUFFIX = ".safetensors"


class Gallery:
    """Encoded videos in a folder: a file of each, memory-mapped when it is read, there whole or not at all.

    Several processes may add to a gallery and read it. A file holds the video's visual tokens by name, as
    :meth:`~clipbert_mm.engine.retrieval.PairScorer.encode_video` makes them, none if it could not be read, and a record about
    it.

    Args:
        folder: The folder, made when the first video is added.
        budget: Bytes of visual tokens that stay in this process' memory once they are read; None for all.
    """

    def __init__(self, folder: str | os.PathLike, *, budget: int | None = None) -> None:
        self.folder = Path(folder)
        self.budget = budget
        self._held: dict[tuple[str, str], tuple[tuple[int, int], Tensor]] = {}  # with the version of the file
        self._held_bytes = 0

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
        with written_whole(self.path_of(name), "wb") as file:
            file.write(save(tensors, {"record": json.dumps(record)}))
        self._let_go(name)

    def remove(self, name: str) -> None:
        """Take a video out."""
        self.path_of(name).unlink()
        self._let_go(name)

    def record(self, name: str) -> dict[str, Any]:
        """Return the record about a video.

        Raises:
            ValueError: If its file is not one of a gallery.
        """
        path = self.path_of(name)
        try:
            with safe_open(path, framework="pt") as file:
                return json.loads(file.metadata()["record"])
        except (SafetensorError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} is no file of a gallery ({error}). Remove it, and it will be made anew."
            ) from error

    def read(self, names: Sequence[str], which: str = "clips") -> Tensor:
        """Return the visual tokens of some videos that could be read, on the CPU.

        Args:
            names: The videos.
            which: Which of their tokens: "clips", all of them, or "overview", one clip of all frames.

        Returns:
            Visual tokens, (V, K, S, D).
        """
        return torch.stack([self._tokens(name, which) for name in names])

    def _tokens(self, name: str, which: str) -> Tensor:
        path = self.path_of(name)
        found = path.stat()  # another process may have put another file there
        version, held = (found.st_mtime_ns, found.st_ino), self._held.get((name, which))
        if held is not None and held[0] == version:
            return held[1]
        if held is not None:
            self._let_go(name)
        with safe_open(path, framework="pt") as file:
            tokens = file.get_tensor(which)
        if self.budget is None or self._held_bytes + tokens.nbytes <= self.budget:
            tokens = tokens.clone()  # not the mapped file
            self._held[name, which] = version, tokens
            self._held_bytes += tokens.nbytes
        return tokens

    def _let_go(self, name: str) -> None:
        for key in [key for key in self._held if key[0] == name]:
            self._held_bytes -= self._held.pop(key)[1].nbytes

    def delete(self) -> None:
        """Remove the folder with all that is in it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._held.clear()
        self._held_bytes = 0
