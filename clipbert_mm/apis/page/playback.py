"""What a browser may play: the videos of the gallery, by their keys, and nothing else."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from clipbert_mm.apis.index_records import Entry
from clipbert_mm.apis.video_index import VideoIndex
from clipbert_mm.errors import BrokenMediaError, VideoIndexError, printable
from clipbert_mm.media.isolation import run_isolated
from clipbert_mm.media.media_file import probe_media
from clipbert_mm.media.reencoding import Encoding, reencode

PLAYABLE = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}
"""Files that browsers take, by their ending, with the type to name."""
CODECS = ("h264", "vp8", "vp9", "av1")
PREVIEW = Encoding(height=480)
"""How a video is written anew that browsers do not play."""
PROBE_SECONDS = 20.0
"""Time in which a file must say what it is."""
PREVIEW_SECONDS = 600.0
"""Time in which a video must be written anew."""


@dataclass(frozen=True)
class Playable:
    """A file for a browser.

    Args:
        path: The file.
        kind: Its media type.
    """

    path: str
    kind: str


class PlayableMedia:
    """Finds the file to play for a key of a gallery. What was found is remembered as long as the video is the same file.

    A player stands at the seconds that the index counts, from the first frame on; a preview begins with it.

    Args:
        gallery: The gallery.

    Raises:
        VideoIndexError: If its folder of previews is a link, which may lead out of it.
    """

    def __init__(self, gallery: VideoIndex) -> None:
        self.gallery = gallery
        self.folder = own_folder(gallery, "previews")
        self._entries: Mapping[str, Entry] = {}
        self._by_key: dict[str, Entry] = {}
        self._found: dict[tuple[str, int], Playable | None] = {}

    def entry(self, key: str) -> Entry | None:
        """Return the video of a key; None if the gallery has none, or the file is not the one that was indexed."""
        entries = self.gallery.entries
        if entries is not self._entries:  # a gallery that changes has another dict of them
            self._by_key, self._entries = {entry.key: entry for entry in entries.values()}, entries
        entry = self._by_key.get(key)
        return entry if entry is not None and entry.is_current() else None

    def find(self, key: str) -> Playable:
        """Return the file of a key; a preview where browsers do not play the video itself.

        Raises:
            FileNotFoundError: If no video of the gallery has that key, or its file is gone, changed or broken.
        """
        entry = self.entry(key)
        if entry is None:
            raise FileNotFoundError(key)
        version = key, entry.mtime_ns
        if version not in self._found:
            self._found[version] = self._prepare(key, entry)
        found = self._found[version]
        if found is None or not Path(found.path).is_file():
            raise FileNotFoundError(key)
        return found

    def is_known(self, key: str) -> bool:
        """Whether :meth:`find` answers without decoding anything."""
        entry = self.entry(key)
        return entry is None or (key, entry.mtime_ns) in self._found

    def _prepare(self, key: str, entry: Entry) -> Playable | None:
        """Look what a video is, and write it anew where need be; None for what cannot be played."""
        kind = PLAYABLE.get(Path(entry.path).suffix.lower())
        target = self.folder / f"{key}-{entry.mtime_ns}.mp4"
        try:
            if kind is not None:
                found = run_isolated(probe_media, (entry.path,), PROBE_SECONDS)
                if found.codec in CODECS and found.plays_from_start:
                    return Playable(entry.path, kind)
            if target.is_symlink() or not target.is_file():
                for old in target.parent.glob(f"{key}-*.mp4"):
                    old.unlink(missing_ok=True)
                if run_isolated(reencode, (entry.path, str(target), PREVIEW), PREVIEW_SECONDS):
                    return None
        except (BrokenMediaError, OSError):
            logging.getLogger(__name__).exception("%s cannot be played", printable(entry.path))
            return None
        return Playable(str(target), "video/mp4")


def own_folder(gallery: VideoIndex, name: str) -> Path:
    """Return a folder of a gallery that the page writes to.

    Raises:
        VideoIndexError: If it is a link, which may lead out of the gallery.
    """
    folder = gallery.folder.absolute() / name
    if folder.is_symlink():
        raise VideoIndexError(
            f"{folder} is a link, and the page writes to the gallery's own folder alone. Remove the link."
        )
    return folder


def check_upload(path: str) -> None:
    """See that a file is a video, whatever it is called.

    Raises:
        BrokenMediaError: If it is an image, or cannot be read.
    """
    found = run_isolated(probe_media, (path,), PROBE_SECONDS)
    if found.is_image:
        raise BrokenMediaError(path, "it is an image, and a video is expected")
    if found.codec is None:
        raise BrokenMediaError(path, "it has no video stream")
