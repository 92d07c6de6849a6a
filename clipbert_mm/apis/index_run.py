"""A long indexing: its progress in words, signals that end it, and the disk that it fills."""

import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from clipbert_mm.engine.loader_workers import STOP_SIGNALS
from clipbert_mm.engine.signals import StoppedBySignal
from clipbert_mm.errors import VideoIndexError
from clipbert_mm.fileio import DISK_FULL
from clipbert_mm.index import VideoIndex
from clipbert_mm.log import logger

Progress = Callable[[int, int, str], None]
"""Called with the number of videos done, the number in total, and the path of the last one."""
LOG_SECONDS = 60.0
"""Seconds between two lines about the progress."""
RATE_LINES = 10
"""Lines whose time the rate is measured over."""


class RunProgress:
    """What an indexing has done: counts, and a line a minute for the log.

    Args:
        total: Number of videos.
        done: Those that need nothing, or were not tried.
        unreadable: Those of them that cannot be read.
        progress: Called after each video.
        name: What the lines begin with.
    """

    def __init__(
        self, total: int, done: int = 0, unreadable: int = 0, progress: Progress | None = None, name: str = "indexing"
    ) -> None:
        self.total, self.done, self.unreadable, self.progress, self.name = total, done, unreadable, progress, name
        self._marks: deque[tuple[float, int]] = deque([(time.monotonic(), done)], maxlen=RATE_LINES + 1)

    def note(self, path: str, *, unreadable: bool) -> None:
        """Count a video; log a line if the last one is a minute ago."""
        self.done += 1
        self.unreadable += unreadable
        if self.progress is not None:
            self.progress(self.done, self.total, path)
        if time.monotonic() - self._marks[-1][0] >= LOG_SECONDS:
            logger.info(str(self))
            self._marks.append((time.monotonic(), self.done))

    def __str__(self) -> str:
        """Say how much is done, how quickly, and how long the rest will take."""
        since, before = self._marks[0]
        rate = (self.done - before) / max(time.monotonic() - since, 1e-9)
        left = f", {duration((self.total - self.done) / rate)} left" if rate > 0 else ""
        return f"{self.name}: {self.done:,} of {self.total:,} videos, {self.unreadable:,} unreadable, {rate:.3g} videos/s{left}"


def duration(seconds: float) -> str:
    """Return a time of hours or days, to the minute, rounded up.

    >>> duration(30), duration(3 * 3600 + 1), duration(200_000)
    ('0:01 h', '3:01 h', '2 days 7:34 h')
    """
    minutes = -int(-seconds // 60)
    days, minutes = divmod(minutes, 24 * 60)
    clock = f"{minutes // 60}:{minutes % 60:02} h"
    return f"{days} day{'s' if days > 1 else ''} {clock}" if days else clock


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """End the block by SIGTERM and SIGUSR1 as by Ctrl-C, with the exit status of "try again later"; in the main thread only.

    Raises:
        StoppedBySignal: If one came.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        for each in STOP_SIGNALS:
            signal.signal(each, signal.SIG_IGN)  # it ends already; a launcher may send more than one
        raise StoppedBySignal

    before = {number: signal.signal(number, end) for number in STOP_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def told_how_far(progress: RunProgress) -> Iterator[None]:
    """Say what is done and kept if the block ends early: by Ctrl-C, a signal, or a full disk.

    Raises:
        VideoIndexError: If the disk is full.
    """
    kept = "The index keeps them, and the same command goes on with the rest."
    try:
        yield
    except (KeyboardInterrupt, StoppedBySignal):
        logger.warning(f"{progress.name}: stopped after {progress.done:,} of {progress.total:,} videos. {kept}")
        raise
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        raise VideoIndexError(
            f"{error.strerror}: {error.filename}. {progress.done:,} of {progress.total:,} videos are done. {kept} Free some "
            "space before."
        ) from error


class DiskSpace:
    """Compares what an indexing will write, by what its first videos took, with the free space of its disk.

    Args:
        video_index: The index.
        videos: Videos to write.
    """

    def __init__(self, video_index: VideoIndex, videos: int) -> None:
        self.video_index, self.videos = video_index, videos
        self._checked = False

    def check(self, written: int, videos: int) -> None:
        """Check, the first time, that the disk has space for the videos that are left.

        Args:
            written: Bytes that some videos took.
            videos: Their number; none is not yet the first time.

        Raises:
            VideoIndexError: If it has not.
        """
        if self._checked or not videos:
            return
        self._checked = True
        left, each = self.videos - videos, written / videos
        free = self.video_index.free_bytes()
        if free is not None and left * each > free:
            raise VideoIndexError(
                f"The disk of {self.video_index.name} has {free / 1e9:.3g} GB free, and {left:,} videos will take about "
                f"{left * each / 1e9:.3g} GB ({each / 1e6:.3g} MB each). Free some space, put the index on another disk, or "
                "make it without --keep-tokens if the model has vectors."
            )
