"""WorkerStatus: which file each data-loading process reads, in shared memory, so that it is known when one hangs or dies."""

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
"""Workers of one loader with a row of their own; with more, two share a row."""
ROW = np.dtype([("pid", np.int64), ("since", np.float64), ("busy", np.bool_), ("path", "U2048")])


def share(tensor: torch.Tensor) -> torch.Tensor:
    """Move a tensor to shared memory.

    Raises:
        WorkerError: If there is no shared memory left.
    """
    try:
        return tensor.share_memory_()
    except (RuntimeError, OSError) as error:
        raise WorkerError(
            f"There is no shared memory left for the workers of a dataloader. {SHARED_MEMORY_IS_FULL}"
        ) from error


@dataclass(frozen=True)
class FileProgress:
    """Which file a process reads.

    Args:
        since: When it began to read the file or, if it is not busy, when it had read the file; by time.monotonic.
        path: The file that it reads, or has read last.
        busy: Whether it is reading.
    """

    since: float
    path: str
    busy: bool

    @property
    def seconds(self) -> float:
        """How long it has been reading the file or, if it is not busy, waiting since it has read the file."""
        return time.monotonic() - self.since


class WorkerStatus:
    """Which file each process reads, in memory that the workers of a dataset share with the main process."""

    def __init__(self) -> None:
        self._bytes = share(torch.zeros((WORKERS + 1) * ROW.itemsize, dtype=torch.uint8))

    @property
    def _rows(self) -> np.ndarray:
        return self._bytes.numpy().view(ROW)

    @contextmanager
    def at(self, path: str) -> Iterator[None]:
        """Record that this process reads a file, for the duration of a block."""
        self._record(path, True)
        try:
            yield
        finally:
            self._record(path, False)

    def _record(self, path: str, busy: bool) -> None:
        worker = get_worker_info()
        number = WORKERS if worker is None else worker.id % WORKERS
        self._rows[number] = (os.getpid(), time.monotonic(), busy, path[-2048:])

    def loading(self) -> dict[int, FileProgress]:
        """Return which file each process reads or has read last, by process id."""
        return {
            int(row["pid"]): FileProgress(float(row["since"]), str(row["path"]), bool(row["busy"]))
            for row in self._rows[self._rows["pid"] != 0].copy()
        }
