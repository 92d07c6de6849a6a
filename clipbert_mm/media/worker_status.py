"""Which file each process that loads data is at: for the case that one hangs or dies and cannot say so itself."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.data import get_worker_info

from clipbert_mm.errors import WorkerError
from clipbert_mm.processes import SHARED_MEMORY_IS_FULL

WORKERS = 256
"""Workers of one loader that are told apart; of more, two share a row."""
ROW = np.dtype([("pid", np.int64), ("since", np.float64), ("busy", np.bool_), ("path", "U2048")])


def share(tensor: torch.Tensor) -> torch.Tensor:
    """Move a tensor to memory that other processes see.

    Raises:
        WorkerError: If there is no such memory left.
    """
    try:
        return tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        raise WorkerError(
            f"No memory can be shared with the workers of a dataloader. {SHARED_MEMORY_IS_FULL}"
        ) from error


@dataclass(frozen=True)
class Loading:
    """What a process is at.

    Args:
        seconds: How long it has been at it, or between two files.
        path: The file that it is at, or was at last.
        busy: Whether it is at it.
    """

    seconds: float
    path: str
    busy: bool


class WorkerStatus:
    """What each process is at, in memory that a dataset's workers share with the process that reads from them."""

    def __init__(self) -> None:
        self._bytes = share(torch.zeros((WORKERS + 1) * ROW.itemsize, dtype=torch.uint8))

    @property
    def _rows(self) -> np.ndarray:
        return self._bytes.numpy().view(ROW)

    @contextmanager
    def at(self, path: str) -> Iterator[None]:
        """Note that this process is at a file until the block ends, well or not."""
        self._note(path, True)
        try:
            yield
        finally:
            self._note(path, False)

    def _note(self, path: str, busy: bool) -> None:
        worker = get_worker_info()
        number = WORKERS if worker is None else worker.id % WORKERS
        self._rows[number] = (os.getpid(), time.monotonic(), busy, path[-2048:])

    def loading(self) -> dict[int, Loading]:
        """Return what processes are at, by their ids."""
        now = time.monotonic()
        return {
            int(row["pid"]): Loading(now - float(row["since"]), str(row["path"]), bool(row["busy"]))
            for row in self._rows[self._rows["pid"] != 0].copy()
        }
