"""Thumbnails of the videos of the index: made once, when they are first shown, and kept in the index up to a size."""

import logging
import os
import queue
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path

from clipbert_mm.apis.page.playback import subfolder
from clipbert_mm.errors import VideoIndexError, printable
from clipbert_mm.fileio import atomic_write
from clipbert_mm.index import Entry, VideoIndex
from clipbert_mm.media.isolation import MEMORY_OF_ONE, run_each
from clipbert_mm.media.thumbnails import draw_thumbnail

NAME = re.compile(r"([0-9a-f]{32})-[0-9a-f]{16}")
"""Name of a thumbnail, of the key of the video and the time of its file, so that browsers may keep it."""
MAX_BYTES = 2**28
"""Most bytes of all thumbnails, some 20,000; of more, those that were not shown for the longest time are removed."""
KEPT_SHARE = 0.9
"""Share of the most bytes that are left then."""
MAX_THUMBNAIL_BYTES = 2**18
"""Most bytes of a thumbnail."""
SECONDS = 20.0
"""Timeout for decoding a video."""
IDLE_SECONDS = 60.0
"""Seconds without a new thumbnail after which the process that decodes ends."""
MAX_WAITING = 256
"""Most thumbnails that wait to be made."""
RETRY_SECONDS, MAX_FAILED = 600.0, 10_000
"""Seconds until a video that could not be decoded is tried again, and most videos of which that is remembered."""
TOUCHED_SECONDS = 3600.0
"""Seconds until it is noted again that a thumbnail was shown."""


def thumbnail_name(entry: Entry) -> str:
    """Return the name of the thumbnail of a video."""
    return f"{entry.key}-{entry.mtime_ns & (2**64 - 1):016x}"


class BusyError(Exception):
    """Too many thumbnails wait to be made."""


class Thumbnails:
    """Thumbnails of the videos of an index, decoded in a separate process that stays for the next ones.

    Args:
        video_index: The index.
        max_bytes: Most bytes of all thumbnails.

    Raises:
        VideoIndexError: If its folder of thumbnails is a symbolic link, which may lead out of the index.
    """

    def __init__(self, video_index: VideoIndex, max_bytes: int = MAX_BYTES) -> None:
        self.video_index, self.max_bytes = video_index, max_bytes
        self.folder = subfolder(video_index, "thumbnails")
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()  # names and paths
        self._waiting: dict[str, Future[bytes | None]] = {}
        self._failed: OrderedDict[str, float] = OrderedDict()
        self._thread: threading.Thread | None = None
        self._bytes: int | None = None  # of all thumbnails; counted when the first one is written

    def find(self, name: str) -> "bytes | Future[bytes | None]":
        """Return a thumbnail, or what will be it, or None if the video cannot be decoded, as soon as it is made.

        Raises:
            FileNotFoundError: If the index has no such video, or its file is missing, changed or broken.
            BusyError: If too many wait.
        """
        match = NAME.fullmatch(name)
        entry = None if match is None else self.video_index.by_key(match[1])
        if entry is None or thumbnail_name(entry) != name:
            raise FileNotFoundError(name)
        content = self._read(name)
        if content is not None:
            return content
        with self._lock:
            if name in self._waiting:
                return self._waiting[name]
            if time.monotonic() - self._failed.get(name, -RETRY_SECONDS) < RETRY_SECONDS or not entry.is_current():
                raise FileNotFoundError(name)
            if len(self._waiting) >= MAX_WAITING:
                raise BusyError
            future = self._waiting[name] = Future()
            self._jobs.put((name, entry.path))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="thumbnails", daemon=True)
                self._thread.start()
            return future

    def _read(self, name: str) -> bytes | None:
        """Read a thumbnail from disk, and note that it was shown; None if there is none."""
        path = self._path(name)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            return None
        with open(descriptor, "rb") as file, suppress(OSError):
            content = file.read(MAX_THUMBNAIL_BYTES + 1)
            if _is_jpeg(content):
                if time.time() - os.fstat(descriptor).st_mtime > TOUCHED_SECONDS:
                    with suppress(OSError):  # of a folder that is read-only
                        os.utime(descriptor)
                return content
        return None

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.jpg"

    def _work(self) -> None:
        """Make thumbnails until none was asked for for a while; runs in a thread."""
        while True:
            names: list[str] = []  # of the job at work
            try:
                for outcome in run_each(
                    draw_thumbnail, self._paths(names), workers=1, timeout=SECONDS, memory=MEMORY_OF_ONE
                ):
                    name = names.pop(0)
                    content = outcome.value if isinstance(outcome.value, bytes) and _is_jpeg(outcome.value) else None
                    if content is None:
                        reason = outcome.failure or str(outcome.value)
                        logging.getLogger(__name__).info("no thumbnail of %s: %s", printable(outcome.job), reason)
                    self._end(name, content)
            except Exception:
                logging.getLogger(__name__).exception("a thumbnail cannot be made")
            for name in names:
                self._end(name, None)
            with self._lock:
                if self._jobs.empty():
                    self._thread = None
                    return

    def _paths(self, names: list[str]) -> Iterator[str]:
        """Yield the paths of videos whose thumbnails are asked for, and add the thumbnails' names to ``names``."""
        while True:
            try:
                name, path = self._jobs.get(timeout=IDLE_SECONDS)
            except queue.Empty:
                return
            names.append(name)
            yield path

    def _end(self, name: str, content: bytes | None) -> None:
        """Keep a thumbnail, and give it to those who wait for it; None if it could not be made."""
        if content is not None:
            try:
                self._keep(name, content)
            except (OSError, VideoIndexError):
                logging.getLogger(__name__).exception("a thumbnail cannot be kept")
        with self._lock:
            if content is None:
                self._failed[name] = time.monotonic()
                self._failed.move_to_end(name)
                if len(self._failed) > MAX_FAILED:
                    self._failed.popitem(last=False)
            future = self._waiting.pop(name)
        future.set_result(content)

    def _keep(self, name: str, content: bytes) -> None:
        """Write a thumbnail, and remove others if they are too many.

        Raises:
            VideoIndexError: If the folder has become a symbolic link.
            OSError: If it cannot be written.
        """
        folder = subfolder(self.video_index, "thumbnails")
        with atomic_write(folder / f"{name}.jpg", "wb") as file:
            file.write(content)
        self._bytes = None if self._bytes is None else self._bytes + len(content)
        if self._bytes is None or self._bytes > self.max_bytes:
            self._bytes = self._trim()

    def _trim(self) -> int:
        """Remove the thumbnails that were not shown for the longest time if there are too many; returns the bytes left."""
        found = []
        for each in os.scandir(self.folder):
            with suppress(OSError):
                if each.name.endswith(".jpg"):
                    status = each.stat(follow_symlinks=False)
                    found.append((status.st_mtime_ns, status.st_size, each.path))
        total = sum(size for _, size, _ in found)
        if total <= self.max_bytes:
            return total
        for _, size, path in sorted(found):
            if total <= KEPT_SHARE * self.max_bytes:
                break
            with suppress(OSError):
                os.unlink(path)
            total -= size
        return total


def _is_jpeg(content: bytes) -> bool:
    return content.startswith(b"\xff\xd8") and len(content) <= MAX_THUMBNAIL_BYTES
