"""Videos that visitors of the page bring along."""

import hashlib
import json
import logging
import os
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from pathlib import Path

import anyio
import anyio.to_thread

from clipbert_mm.apis.indexing import VIDEOS
from clipbert_mm.apis.page.playback import check_upload, own_folder
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import BrokenMediaError, BusyFolderError, ClipBertError, VideoIndexError
from clipbert_mm.fileio import atomic_write, scratch, sweep

LONGEST_NAME = 80
"""Letters of an upload's name that are shown."""
AT_ONCE = 4
"""Uploads that are taken at a time; more are asked to come again."""
UPLOAD_SECONDS = 900.0
"""Time in which an upload must have come."""
DECODE_SECONDS = 120.0
"""Time in which an upload must be decoded."""


class UploadError(ClipBertError, ValueError):
    """An upload that is not taken.

    Args:
        message: Why not, for the visitor.
        status: HTTP status of the answer.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Uploads:
    """The uploads of a gallery. Each is stored under its own digest; what it was called is only ever shown.

    Args:
        search: The search whose gallery takes them.
        max_bytes: Size of the largest, in bytes.
        max_files: Most uploads that are kept; so they take at most ``max_bytes * max_files`` of the disk.

    Raises:
        VideoIndexError: If the list of their names is damaged.
    """

    def __init__(self, search: VideoSearch, max_bytes: int, max_files: int = 100) -> None:
        self.search = search
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.folder = own_folder(search.gallery, "uploads")
        self.list = self.folder / "names.json"
        self.names = self._read_names()
        self._coming = 0
        self._taking = threading.Lock()
        sweep(self.folder)  # what a page that was killed had half of

    async def receive(self, chunks: AsyncIterator[bytes], name: str) -> str:
        """Take an upload into the gallery as it comes; nothing of it is left where it is not taken.

        Args:
            chunks: Its content.
            name: What its owner calls it.

        Returns:
            What it is called on the page.

        Raises:
            UploadError: If it is too large or too slow, of another type, no video, or there is no room for it.
        """
        shown, suffix = _shown(name)
        if self._coming >= AT_ONCE:
            raise UploadError(f"{shown}: {AT_ONCE} other uploads are being taken. Try again in a minute.", 503)
        self._coming += 1
        try:
            self._check_room(shown)
            self.folder.mkdir(parents=True, exist_ok=True)
            with scratch(self.folder, folder=False) as part:
                with anyio.fail_after(UPLOAD_SECONDS):
                    digest = await self._write(chunks, part, shown)
                return await anyio.to_thread.run_sync(self._take, part, self.folder / f"{digest}{suffix}", shown)
        except TimeoutError:
            raise UploadError(f"{shown}: it did not come within {UPLOAD_SECONDS / 60:.0f} minutes.", 408) from None
        except OSError as error:
            logging.getLogger(__name__).exception("an upload cannot be stored")
            raise UploadError(f"{shown}: the page cannot store it ({error.strerror}).", 507) from error
        finally:
            self._coming -= 1

    async def _write(self, chunks: AsyncIterator[bytes], part: Path, shown: str) -> str:
        """Write an upload to the disk while its size is within the bound; returns its digest."""
        digest, size = hashlib.sha256(), 0
        with open(part, "wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > self.max_bytes:
                    raise UploadError(f"{shown}: expected at most {self.max_bytes / 1e6:.0f} MB, got more.", 413)
                digest.update(chunk)
                file.write(chunk)
        if not size:
            raise UploadError(f"{shown} cannot be read: the file is empty.")
        return digest.hexdigest()[:32]

    def _check_room(self, shown: str) -> None:
        there = sum(path.suffix in VIDEOS for path in self.folder.glob("*")) + self._coming
        if there > self.max_files:
            raise UploadError(f"{shown}: the page keeps {self.max_files} uploads, and has them. Ask who runs it.", 507)

    def _take(self, part: Path, target: Path, shown: str) -> str:
        """Move a whole upload to its place and index it, one at a time, in a process of its own."""
        with self._taking:
            if str(target) not in self.search.gallery.entries:
                os.replace(part, target)
                try:
                    self._index(target, shown)
                except BaseException:
                    target.unlink(missing_ok=True)
                    raise
            if str(target) not in self.names:  # who was first says what it is called
                self.names = {**self.names, str(target): shown}
                with atomic_write(self.list) as file:
                    json.dump({os.path.basename(path): name for path, name in self.names.items()}, file, indent=1)
            return self.names[str(target)]

    def _index(self, target: Path, shown: str) -> None:
        """Decode and encode an upload.

        Raises:
            UploadError: If it is no video or cannot be read, or another process is changing the gallery.
        """
        try:
            check_upload(str(target))
            reason = self.search.index(target, workers=1, timeout=DECODE_SECONDS).unreadable.get(str(target))
        except BrokenMediaError as error:
            reason = error.reason
        except BusyFolderError as error:
            raise UploadError(f"{shown}: the videos are being changed. Try again in a minute.", 503) from error
        if reason is not None:
            with suppress(VideoIndexError, BusyFolderError):
                self.search.remove(target)  # the gallery need not remember what does not stay
            raise UploadError(f"{shown} cannot be read: {reason.replace(str(target), shown)}.")

    def _read_names(self) -> Mapping[str, str]:
        """Return what uploads are called, by path.

        Raises:
            VideoIndexError: If the list of the names is damaged.
        """
        if not self.list.is_file():
            return {}
        try:
            names = json.loads(self.list.read_bytes())
        except (ValueError, RecursionError):
            names = None
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise VideoIndexError(f"{self.list} is no list of names. Delete it; only the names are lost.")
        return {str(self.folder / os.path.basename(path)): _printed(name) for path, name in names.items()}


def _shown(name: str) -> tuple[str, str]:
    """Return what an upload is called on the page, and its ending.

    Raises:
        UploadError: If the ending is no video's.
    """
    shown = _printed(os.path.basename(name.replace("\\", "/")))
    suffix = os.path.splitext(shown)[1].lower()
    if suffix not in VIDEOS:
        raise UploadError(f"{shown}: expected a video ({', '.join(VIDEOS)}), got {suffix or 'no ending'}.")
    return shown, suffix


def _printed(name: str) -> str:
    return "".join(letter for letter in name if letter.isprintable())[-LONGEST_NAME:]
