"""From folders and files to the videos of a gallery: finding, decoding in processes of its own, encoding in batches."""

import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from clipbert_mm.apis.index_records import Entry, Unreadable
from clipbert_mm.apis.predictor import Media, Predictor, read_media
from clipbert_mm.apis.results import IndexReport
from clipbert_mm.apis.video_index import VideoIndex, is_gallery
from clipbert_mm.datasets.transforms.decoding import RULES
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import QUOTED, BrokenMediaError, OptionError, printable
from clipbert_mm.media.listing import walk_files
from clipbert_mm.media.worker_status import FileProgress, WorkerStatus

VIDEOS = (
    ".mp4",
    ".m4v",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".wmv",
    ".flv",
    ".mpg",
    ".mpeg",
    ".ts",
    ".ogv",
    ".3gp",
    ".gif",
)
IMAGES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Endings of the files that are taken from a folder; a file that is named itself may have any."""
MEMORY = 4 * 2**30
"""Bytes of memory that decoding one file may take."""
OUT_OF_MEMORY = re.compile(r"allocate memory|[Ii]nsufficient memory|not enough memory|[Oo]ut of memory")
"""How libraries say that they got no memory."""
TOO_LARGE = f"decoding it takes more than {MEMORY / 2**30:.3g} GiB of memory"
Places = str | os.PathLike | Sequence[str | os.PathLike]
Progress = Callable[[int, int, str], None]
"""Is told how many videos are done, of how many, and the last one's path."""


def find_videos(places: Places, *, images: bool = False) -> list[str]:
    """List the videos of folders, with those below, and files; absolute paths, each once.

    Pipes and devices are no videos, and what lies in a gallery is none to index.

    Args:
        places: A folder or file, or several.
        images: Whether images are wanted instead of videos.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        OptionError: If there is no video among them.
        StorageError: If a folder cannot be listed.
    """
    wanted = IMAGES if images else VIDEOS
    found: dict[str, None] = {}
    for place in _absolute(places):
        if os.path.isdir(place):
            if is_gallery(place):
                raise OptionError(f"{printable(place)} is a gallery, not a folder of videos.")
            below = walk_files(place, enter=lambda folder: not is_gallery(folder))
            found |= dict.fromkeys(path for path in below if os.path.splitext(path)[1].lower() in wanted)
        elif os.path.isfile(place):
            found[place] = None
        elif os.path.lexists(place):
            raise OptionError(f"{printable(place)} is no file or folder but a pipe, a device, or a link to nothing.")
        else:
            raise FileNotFoundError(f"There is no file or folder {printable(place)}.")
    if not found:
        kind = "image" if images else "video"
        listed = ", ".join(printable(place) for place in _absolute(places))
        raise OptionError(
            f"There is no {kind} in {listed}. Looked for {' '.join(wanted)}. If a disk should be there, mount it; nothing was "
            "taken out of the gallery."
        )
    return list(found)


def _absolute(places: Places) -> list[str]:
    """Return places as absolute paths."""
    return [os.path.abspath(place) for place in ([places] if isinstance(places, (str, os.PathLike)) else places)]


@dataclass(frozen=True)
class Read:
    """What became of a file.

    Args:
        path: The file.
        size: Its size in bytes; None if it could not be seen.
        mtime_ns: When it was last written to.
        media: The video or image; None if it cannot be read.
        reason: Why not.
        lasting: Whether it cannot be read as long as it does not change.
    """

    path: str
    size: int | None = None
    mtime_ns: int = 0
    media: Media | None = None
    reason: str = ""
    lasting: bool = False


class _Files(Dataset):
    """Reads videos in the processes of a loader; what cannot be read comes back with the reason."""

    def __init__(self, steps: Sequence[Any], paths: Sequence[str]) -> None:
        self.steps = steps
        self.paths = paths
        self.given_up: dict[str, str] = {}
        self.whereabouts = WorkerStatus()

    def __len__(self) -> int:
        return len(self.paths)

    def loading(self) -> dict[int, FileProgress]:
        """Return the files that processes are at."""
        return self.whereabouts.loading()

    def give_up(self, path: str, reason: str) -> bool:
        """Take a file for broken that hangs or ends what reads it; the others are read."""
        self.given_up[path] = reason
        return True

    def __getitem__(self, idx: int) -> Read:
        path = self.paths[idx]
        with self.whereabouts.at(path):
            try:
                found = os.stat(path)
                if not stat.S_ISREG(found.st_mode):
                    return Read(path, reason="it is no file but a pipe or a device")
                if path not in self.given_up:
                    open(path, "rb").close()  # whether it may be read at all
            except OSError as error:
                return Read(path, reason=error.strerror or str(error))
            media, reason, lasting = self._media(path)
        return Read(path, found.st_size, found.st_mtime_ns, media, reason, lasting)

    def _media(self, path: str) -> tuple[Media | None, str, bool]:
        """Read a file; returns it or, with the reason, None, and whether that is so as long as the file does not change."""
        if path in self.given_up:
            return None, self.given_up[path], True
        try:
            return read_media(self.steps, path), "", False
        except MemoryError:
            return None, TOO_LARGE, True
        except BrokenMediaError as error:
            return None, TOO_LARGE if OUT_OF_MEMORY.search(error.reason) else error.reason, True
        except Exception as error:  # a defect, of a library or ours, which costs no other file
            return None, f"{type(error).__name__}: {str(error)[:QUOTED]}", False


def index(
    predictor: Predictor,
    gallery: VideoIndex,
    places: Places,
    *,
    workers: int = 2,
    batch_size: int = 4,
    timeout: float = 120.0,
    prune: bool = False,
    retry: bool = False,
    progress: Progress | None = None,
) -> IndexReport:
    """Put the videos of some places into a gallery; those that are there already, unchanged, are left as they are.

    Those that an older version of this package read by other rules are read again.

    Videos are decoded in processes of their own. One at which such a process crashes, takes more than ``timeout`` seconds or
    more memory than 4 GiB costs that video alone. The gallery remembers what could not be read, and does not try it again
    until it changes. What is done is on disk: a killed indexing goes on where it was.

    Args:
        predictor: The model.
        gallery: The gallery.
        places: Folders and files.
        workers: Processes that decode. 0 decodes in this one, for debugging: what crashes or hangs a decoder, crashes or hangs
            it too.
        batch_size: Videos encoded together.
        timeout: Seconds that decoding one video may take.
        prune: Whether videos of the gallery that lay in one of the folders and are gone are taken out of it; else they are
            counted.
        retry: Whether to try again what could not be read before.
        progress: Is told of each video.

    Raises:
        BusyFolderError: If another process is changing the gallery.
        FileNotFoundError: If a place does not exist.
        VideoIndexError: If the gallery is another model's.
        OptionError: If there is no video, or a number is too small.
        StorageError: If a folder cannot be listed; nothing is taken out of the gallery then.
    """
    if workers < 0 or batch_size < 1 or not timeout > 0:
        raise OptionError(
            f"index expects workers >= 0, batch_size >= 1 and timeout > 0, got {workers}, {batch_size} and {timeout}."
        )
    images = any(type(step).__name__ == "LoadImage" for step in predictor.media_steps)
    paths = find_videos(places, images=images)
    with gallery.locked():
        gallery.start(predictor.identity, predictor.source, predictor.weights)
        gone = _gone(gallery, places)
        if prune:
            gallery.remove(gone)
        known = {*gallery.entries, *gallery.missing}
        unchanged = [path for path in paths if path in gallery.entries and gallery.entries[path].is_up_to_date()]
        noted = {} if retry else gallery.unreadable
        not_tried = [path for path in paths if path in noted and noted[path].is_current()]
        unreadable = {path: noted[path].reason for path in not_tried}
        todo = sorted(set(paths) - set(unchanged) - set(not_tried))
        done = len(paths) - len(todo)
        try:
            for path, reason in _encode(predictor, gallery, todo, workers, batch_size, timeout):
                done += 1
                if reason is not None:
                    unreadable[path] = reason
                if progress is not None:
                    progress(done, len(paths), path)
        finally:
            gallery.save()
    encoded = [path for path in todo if path not in unreadable]
    return IndexReport(
        added=tuple(path for path in encoded if path not in known),
        changed=tuple(path for path in encoded if path in known),
        unchanged=tuple(unchanged),
        removed=tuple(gone) if prune else (),
        unreadable=dict(sorted(unreadable.items())),
        not_tried=tuple(not_tried),
        gone=() if prune else tuple(gone),
    )


def _gone(gallery: VideoIndex, places: Places) -> list[str]:
    """Return the videos of the gallery that lay below a folder that is indexed, and are not there any more."""
    folders = tuple(os.path.join(place, "") for place in _absolute(places) if os.path.isdir(place))
    return [path for path in {**gallery.entries, **gallery.missing} if path.startswith(folders) and _is_gone(path)]


def _is_gone(path: str) -> bool:
    """Whether a file is known not to be there; one that cannot be looked for is not."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _encode(
    predictor: Predictor, gallery: VideoIndex, paths: Sequence[str], workers: int, batch_size: int, timeout: float
) -> Iterator[tuple[str, str | None]]:
    """Encode videos into a gallery; yields each path with the reason where it could not be read."""
    workers = min(workers, len(paths))
    # A fork from one of several threads, as the page has, may take along a lock that nobody will let go of.
    in_thread = threading.current_thread() is not threading.main_thread()
    loader: DataLoader = DataLoader(
        _Files(predictor.media_steps, paths),
        batch_size=batch_size,
        num_workers=workers,
        collate_fn=list,
        timeout=timeout if workers else 0,
        multiprocessing_context="forkserver" if workers and in_thread else None,
    )
    for batch in WatchedLoader(loader, memory_limit=MEMORY):
        readable = [(read, read.media) for read in batch if read.media is not None]
        if readable:
            tokens = predictor.encode_with_coarse_tokens([media.frames for _, media in readable])
            for i, (read, media) in enumerate(readable):
                gallery.add(_entry_of(read, media), {name: value[i] for name, value in tokens.items()})
        for read in batch:
            if read.lasting and read.size is not None:
                gallery.note_unreadable(Unreadable(read.path, read.size, read.mtime_ns, read.reason))
            yield read.path, None if read.media is not None else read.reason


def _entry_of(read: Read, media: Media) -> Entry:
    """Return the entry of a video that was read."""
    times = None if media.clip_times is None else tuple((float(start), float(end)) for start, end in media.clip_times)
    return Entry(read.path, read.size or 0, read.mtime_ns, media.seconds, times, media.content_shape, RULES)
