"""What a browser may play: the videos of the gallery, by their keys, and nothing else."""

import threading
from pathlib import Path

import av

from clipbert_mm.apis.gallery import Entry, VideoGallery
from clipbert_mm.datasets.reencoding import Encoding, reencode

PLAYABLE = {".mp4": "video/mp4", ".m4v": "video/mp4", ".mov": "video/mp4", ".webm": "video/webm"}
"""Files that browsers take, by their ending, with the type to name."""
CODECS = ("h264", "vp8", "vp9", "av1")
PREVIEW = Encoding(height=480)
"""How a video is written anew that browsers do not play."""


class PlayableMedia:
    """Finds the file to play for a key of a gallery.

    Args:
        gallery: The gallery.
    """

    def __init__(self, gallery: VideoGallery) -> None:
        self.gallery = gallery
        self._writing = threading.Lock()

    def find(self, key: str) -> tuple[str, str]:
        """Return the file of a key and its media type; a preview where browsers do not play the video itself.

        Raises:
            FileNotFoundError: If no video of the gallery has that key, or its file is gone or broken.
        """
        entry = next((own for own in self.gallery.entries.values() if own.key == key), None)
        if entry is None or not Path(entry.path).is_file():
            raise FileNotFoundError(key)
        kind = PLAYABLE.get(Path(entry.path).suffix.lower())
        if kind is not None and _codec(entry.path) in CODECS:
            return entry.path, kind
        return self._preview(key, entry), "video/mp4"

    def _preview(self, key: str, entry: Entry) -> str:
        target = self.gallery.folder / "previews" / f"{key}-{entry.mtime_ns}.mp4"
        with self._writing:
            if not target.is_file() and reencode((entry.path, str(target), PREVIEW)):
                raise FileNotFoundError(key)
        return str(target)


def _codec(path: str) -> str | None:
    try:
        with av.open(path) as container:
            return container.streams.video[0].codec_context.name
    except (av.error.FFmpegError, IndexError):
        return None
