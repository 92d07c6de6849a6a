"""Files that the browser plays: the videos of the index by key, and nothing else."""

import logging
from dataclasses import dataclass
from pathlib import Path

from clipbert_mm.errors import BrokenMediaError, VideoIndexError, printable
from clipbert_mm.index import Entry, VideoIndex
from clipbert_mm.media.isolation import run_isolated
from clipbert_mm.media.media_file import probe_media
from clipbert_mm.media.reencoding import Encoding, reencode

PLAYABLE = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}
"""Media types of files that browsers play, by suffix."""
CODECS = ("h264", "vp8", "vp9", "av1")
PREVIEW = Encoding(height=480)
"""Encoding of the preview of a video that browsers do not play."""
PROBE_SECONDS = 20.0
"""Timeout for probing a file."""
PREVIEW_SECONDS = 600.0
"""Timeout for re-encoding a video."""


@dataclass(frozen=True)
class Playable:
    """A file for a browser.

    Args:
        path: The file.
        media_type: Its media type.
    """

    path: str
    media_type: str


class PlayableMedia:
    """Find the file to play for a key of the index, and remember it until the video changes.

    Times of the player and of the index are equal: both count from the first frame, where a preview starts too.

    Args:
        video_index: The index.

    Raises:
        VideoIndexError: If its folder of previews is a symbolic link, which may lead out of the index.
    """

    def __init__(self, video_index: VideoIndex) -> None:
        self.video_index = video_index
        self.folder = subfolder(video_index, "previews")
        self._playable: dict[tuple[str, int], Playable | None] = {}

    def entry(self, key: str) -> Entry | None:
        """Return the video of a key; None if there is none, or its file has changed since it was indexed."""
        entry = self.video_index.by_key(key)
        return entry if entry is not None and entry.is_current() else None

    def find(self, key: str) -> Playable:
        """Return the file of a key: the video, or its preview if browsers do not play it.

        Raises:
            FileNotFoundError: If no video of the index has this key, or its file is missing, changed or broken.
        """
        entry = self.entry(key)
        if entry is None:
            raise FileNotFoundError(key)
        version = key, entry.mtime_ns
        if version not in self._playable:
            self._playable[version] = self._prepare(key, entry)
        playable = self._playable[version]
        if playable is None or not Path(playable.path).is_file():
            raise FileNotFoundError(key)
        return playable

    def is_known(self, key: str) -> bool:
        """Whether :meth:`find` returns without decoding anything."""
        entry = self.entry(key)
        return entry is None or (key, entry.mtime_ns) in self._playable

    def _prepare(self, key: str, entry: Entry) -> Playable | None:
        """Probe a video, and re-encode it if necessary; None if it cannot be played."""
        media_type = PLAYABLE.get(Path(entry.path).suffix.lower())
        target = self.folder / f"{key}-{entry.mtime_ns}.mp4"
        try:
            if media_type is not None:
                description = run_isolated(probe_media, (entry.path,), PROBE_SECONDS)
                if description.codec in CODECS and description.plays_from_start:
                    return Playable(entry.path, media_type)
            if target.is_symlink() or not target.is_file():
                for old in target.parent.glob(f"{key}-*.mp4"):
                    old.unlink(missing_ok=True)
                if run_isolated(reencode, (entry.path, str(target), PREVIEW), PREVIEW_SECONDS):
                    return None
        except (BrokenMediaError, OSError):
            logging.getLogger(__name__).exception("cannot play %s", printable(entry.path))
            return None
        return Playable(str(target), "video/mp4")


def subfolder(video_index: VideoIndex, name: str) -> Path:
    """Return a folder inside the index that the page writes to.

    Raises:
        VideoIndexError: If it is a symbolic link, which may lead out of the index.
    """
    folder = video_index.folder.absolute() / name
    if folder.is_symlink():
        raise VideoIndexError(
            f"{folder} is a symbolic link, and the page never writes outside the folder of the index. Delete the link."
        )
    return folder


def check_upload(path: str) -> None:
    """Check that a file is a video, whatever its name.

    Raises:
        BrokenMediaError: If it is an image, or cannot be read.
    """
    description = run_isolated(probe_media, (path,), PROBE_SECONDS)
    if description.is_image:
        raise BrokenMediaError(path, "expected a video, got an image")
    if description.codec is None:
        raise BrokenMediaError(path, "it has no video stream")
