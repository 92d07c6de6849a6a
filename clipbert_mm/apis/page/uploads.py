"""Uploads of videos by visitors of the page."""

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
from clipbert_mm.apis.page.playback import check_upload, subfolder
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import BrokenMediaError, BusyFolderError, ClipBertError, VideoIndexError
from clipbert_mm.fileio import atomic_write, scratch, sweep

MAX_NAME_LENGTH = 80
"""Most characters of an upload's name."""
CONCURRENT_UPLOADS = 4
"""Most uploads at a time; further ones are asked to try again later."""
UPLOAD_SECONDS = 900.0
"""Timeout for receiving an upload."""
DECODE_SECONDS = 120.0
"""Timeout for decoding an upload."""


class UploadError(ClipBertError, ValueError):
    """A rejected upload.

    Args:
        message: Reason, for the visitor.
        status: HTTP status of the response.
    """

    def __init__(self, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.status = status


class Uploads:
    """Uploads in an index. Each is stored under its digest; its name is only displayed.

    Args:
        search: The search whose index takes them.
        max_bytes: Most bytes of an upload.
        max_files: Most uploads to keep, so that they take at most ``max_bytes * max_files`` of the disk.

    Raises:
        VideoIndexError: If the list of their names is damaged.
    """

    def __init__(self, search: VideoSearch, max_bytes: int, max_files: int = 100) -> None:
        self.search = search
        self.max_bytes = max_bytes
        self.max_files = max_files
        self.folder = subfolder(search.video_index, "uploads")
        self.list = self.folder / "names.json"
        self.names = self._read_names()
        self._receiving = 0
        self._storing = threading.Lock()
        sweep(self.folder)  # partial uploads of a page that was killed

    async def receive(self, chunks: AsyncIterator[bytes], name: str) -> str:
        """Store an upload while it is received, and index it; a rejected one leaves nothing behind.

        Args:
            chunks: Its content.
            name: Name that the visitor gave it.

        Returns:
            Its name on the page.

        Raises:
            UploadError: If it is too large, too slow, or not a video, or there is no room for it.
        """
        shown, suffix = _shown(name)
        if self._receiving >= CONCURRENT_UPLOADS:
            raise UploadError(
                f"{shown}: {CONCURRENT_UPLOADS} other uploads are in progress. Try again in a minute.", 503
            )
        self._receiving += 1
        try:
            self._check_room(shown)
            self.folder.mkdir(parents=True, exist_ok=True)
            with scratch(self.folder, folder=False) as part:
                with anyio.fail_after(UPLOAD_SECONDS):
                    digest = await self._write(chunks, part, shown)
                return await anyio.to_thread.run_sync(self._store, part, self.folder / f"{digest}{suffix}", shown)
        except TimeoutError:
            raise UploadError(f"{shown} did not arrive within {UPLOAD_SECONDS / 60:.0f} minutes.", 408) from None
        except OSError as error:
            logging.getLogger(__name__).exception("cannot store an upload")
            raise UploadError(f"{shown} cannot be stored: {error.strerror}.", 507) from error
        finally:
            self._receiving -= 1

    async def _write(self, chunks: AsyncIterator[bytes], part: Path, shown: str) -> str:
        """Write an upload to the disk up to the size limit; returns its digest."""
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
        count = sum(path.suffix in VIDEOS for path in self.folder.glob("*")) + self._receiving
        if count > self.max_files:
            raise UploadError(
                f"{shown}: the limit of {self.max_files} uploads is reached. Ask the owner of the page.", 507
            )

    def _store(self, part: Path, target: Path, shown: str) -> str:
        """Move a complete upload to its path and index it; one at a time."""
        with self._storing:
            if str(target) not in self.search.video_index.entries:
                os.replace(part, target)
                try:
                    self._index(target, shown)
                except BaseException:
                    target.unlink(missing_ok=True)
                    raise
            if str(target) not in self.names:  # of equal uploads the first one gives the name
                self.names = {**self.names, str(target): shown}
                with atomic_write(self.list) as file:
                    json.dump({os.path.basename(path): name for path, name in self.names.items()}, file, indent=1)
            return self.names[str(target)]

    def _index(self, target: Path, shown: str) -> None:
        """Decode and encode an upload.

        Raises:
            UploadError: If it is not a video or cannot be read, or another process is changing the index.
        """
        try:
            check_upload(str(target))
            reason = self.search.index(target, workers=1, timeout=DECODE_SECONDS).unreadable.get(str(target))
        except BrokenMediaError as error:
            reason = error.reason
        except BusyFolderError as error:
            raise UploadError(f"{shown}: the index is in use. Try again in a minute.", 503) from error
        if reason is not None:
            with suppress(VideoIndexError, BusyFolderError):
                self.search.remove(target)  # the index need not remember a rejected file
            raise UploadError(f"{shown} cannot be read: {reason.replace(str(target), shown)}.")

    def _read_names(self) -> Mapping[str, str]:
        """Return the names of the uploads, by path.

        Raises:
            VideoIndexError: If the list of names is damaged.
        """
        if not self.list.is_file():
            return {}
        try:
            names = json.loads(self.list.read_bytes())
        except (ValueError, RecursionError):
            names = None
        if not isinstance(names, dict) or not all(isinstance(name, str) for name in names.values()):
            raise VideoIndexError(
                f"{self.list} is damaged: expected names of uploads by file. Delete it; only the names are lost."
            )
        return {str(self.folder / os.path.basename(path)): _printable(name) for path, name in names.items()}


def _shown(name: str) -> tuple[str, str]:
    """Return the name of an upload on the page, and its suffix.

    Raises:
        UploadError: If the suffix is not that of a video.
    """
    shown = _printable(os.path.basename(name.replace("\\", "/")))
    suffix = os.path.splitext(shown)[1].lower()
    if suffix not in VIDEOS:
        raise UploadError(f"{shown}: expected a video ({', '.join(VIDEOS)}), got {suffix or 'no suffix'}.")
    return shown, suffix


def _printable(name: str) -> str:
    return "".join(char for char in name if char.isprintable())[-MAX_NAME_LENGTH:]
