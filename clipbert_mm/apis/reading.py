"""Reading many videos in processes of their own, which a damaged file may crash or hang without harm to the others."""

import os
import re
import stat
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import QUOTED, BrokenMediaError
from clipbert_mm.index import file_digest
from clipbert_mm.media.media_file import Media, read_media
from clipbert_mm.media.worker_status import FileProgress, WorkerStatus

MEMORY = 4 * 2**30
"""Most bytes of memory for decoding one file."""
OUT_OF_MEMORY = re.compile(r"allocate memory|[Ii]nsufficient memory|not enough memory|[Oo]ut of memory")
"""Messages of libraries that ran out of memory."""
TOO_LARGE = f"decoding it takes more than {MEMORY / 2**30:.3g} GiB of memory"


@dataclass(frozen=True)
class ReadResult:
    """A file that was read, or the reason why it could not be.

    Args:
        path: The file.
        status: Its size and modification time; None if they are unknown.
        media: The video or image; None if it cannot be read.
        reason: Why it cannot be read.
        lasting: Whether it stays unreadable until the file changes.
        digest: Its digest, if it can be read; see :func:`~clipbert_mm.index.file_digest`.
    """

    path: str
    status: os.stat_result | None = None
    media: Media | None = None
    reason: str = ""
    lasting: bool = False
    digest: str = ""


class _Files(Dataset):
    """Reads videos in the workers of a loader; an unreadable one is returned with the reason."""

    def __init__(self, steps: Sequence[Any], paths: Sequence[str]) -> None:
        self.steps = steps
        self.paths = paths
        self.skipped: dict[str, str] = {}
        self.worker_status = WorkerStatus()

    def __len__(self) -> int:
        return len(self.paths)

    def loading(self) -> dict[int, FileProgress]:
        """Return the file that each worker is reading."""
        return self.worker_status.loading()

    def give_up(self, path: str, reason: str) -> bool:
        """Mark a file as unreadable that makes its worker hang or crash."""
        self.skipped[path] = reason
        return True

    def __getitem__(self, idx: int) -> ReadResult:
        path = self.paths[idx]
        with self.worker_status.at(path):
            try:
                status = os.stat(path)
                if not stat.S_ISREG(status.st_mode):
                    return ReadResult(path, reason="it is a pipe or a device, not a file")
                if path not in self.skipped:
                    open(path, "rb").close()  # check the permission
            except OSError as error:
                return ReadResult(path, reason=error.strerror or str(error))
            media, reason, lasting = self._media(path)
            digest = "" if media is None else file_digest(path)
        return ReadResult(path, status, media, reason, lasting, digest)

    def _media(self, path: str) -> tuple[Media | None, str, bool]:
        """Return a file's media, or None and the reason, and whether it stays unreadable until the file changes."""
        if path in self.skipped:
            return None, self.skipped[path], True
        try:
            return read_media(self.steps, path), "", False
        except MemoryError:
            return None, TOO_LARGE, True
        except BrokenMediaError as error:
            return None, TOO_LARGE if OUT_OF_MEMORY.search(error.reason) else error.reason, True
        except Exception as error:  # a bug in a library or here must not cost other files
            return None, f"{type(error).__name__}: {str(error)[:QUOTED]}", False


def read_videos(
    steps: Sequence[Any], paths: Sequence[str], *, workers: int, batch_size: int, timeout: float, fork: bool = True
) -> Iterator[list[ReadResult]]:
    """Read videos, or images, in batches and in their order.

    Args:
        steps: Transforms that read a file.
        paths: The files.
        workers: Processes that decode; 0 for this process.
        batch_size: Files of a batch.
        timeout: Most seconds for one file.
        fork: Whether the processes may be forked from this one; they start more slowly otherwise.
    """
    workers = min(workers, len(paths))
    # A fork from one of several threads, as in the web page, may copy a lock that nobody releases.
    in_thread = threading.current_thread() is not threading.main_thread()
    loader: DataLoader = DataLoader(
        _Files(steps, paths),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
        timeout=timeout if workers else 0,
        multiprocessing_context="forkserver" if workers and (in_thread or not fork) else None,
    )
    yield from WatchedLoader(loader, memory_limit=MEMORY)
