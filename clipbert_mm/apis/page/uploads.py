"""Videos that visitors of the page bring along."""

import hashlib
import json
import os
import shutil
from pathlib import Path

from clipbert_mm.apis.indexing import VIDEOS
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import ClipBertError
from clipbert_mm.structures import written_whole

LONGEST_NAME = 80
"""Letters of an upload's name that are shown."""


class UploadError(ClipBertError, ValueError):
    """An upload that is not taken."""


class Uploads:
    """The uploads of a gallery. Each is stored under its own digest; what it was called is only ever shown.

    Args:
        search: The search whose gallery takes them.
        max_bytes: Size of the largest, in bytes.
    """

    def __init__(self, search: VideoSearch, max_bytes: int) -> None:
        self.search = search
        self.max_bytes = max_bytes
        self.folder = search.gallery.folder.absolute() / "uploads"
        self.list = self.folder / "names.json"
        self.names: dict[str, str] = json.loads(self.list.read_text(encoding="utf-8")) if self.list.is_file() else {}

    def add(self, file: str, name: str) -> str:
        """Take an upload into the gallery.

        Args:
            file: Where it lies now.
            name: What its owner calls it.

        Returns:
            Its path in the gallery.

        Raises:
            UploadError: If it is too large, of another type, or no video.
        """
        shown = "".join(letter for letter in os.path.basename(name.replace("\\", "/")) if letter.isprintable())
        shown = shown[-LONGEST_NAME:]
        suffix = os.path.splitext(shown)[1].lower()
        if suffix not in VIDEOS:
            raise UploadError(f"{shown}: expected a video ({', '.join(VIDEOS)}), got {suffix or 'no ending'}.")
        size = os.path.getsize(file)
        if size > self.max_bytes:
            raise UploadError(f"{shown}: expected at most {self.max_bytes / 1e6:.0f} MB, got {size / 1e6:.0f} MB.")
        target = self.folder / f"{_digest(file)}{suffix}"
        if str(target) not in self.search.gallery.entries:
            self.folder.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            report = self.search.index(target, workers=0)
            if report.unreadable:
                target.unlink()
                raise UploadError(f"{shown} cannot be read: {report.unreadable[str(target)]}.")
        self.names[str(target)] = shown
        with written_whole(self.list) as names:
            json.dump(self.names, names, indent=1)
        return str(target)


def _digest(file: str | Path) -> str:
    digest = hashlib.sha256()
    with open(file, "rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()[:32]
