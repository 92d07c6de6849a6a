"""Indexing: find the videos of folders, decode them in separate processes, encode them in batches."""

import os
import re
import stat
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils.data import DataLoader, Dataset

from clipbert_mm.apis.index_records import Entry, Unreadable
from clipbert_mm.apis.predictor import Predictor, indices_by_shape
from clipbert_mm.apis.results import IndexReport
from clipbert_mm.apis.video_index import VideoIndex, is_index
from clipbert_mm.apis.video_search import Paths
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import QUOTED, BrokenMediaError, OptionError, is_count, printable, quoted
from clipbert_mm.media import DECODING_RULES
from clipbert_mm.media.listing import IMAGES, VIDEOS, walk_files
from clipbert_mm.media.media_file import Media, read_media
from clipbert_mm.media.worker_status import FileProgress, WorkerStatus

MEMORY = 4 * 2**30
"""Most bytes of memory for decoding one file."""
OUT_OF_MEMORY = re.compile(r"allocate memory|[Ii]nsufficient memory|not enough memory|[Oo]ut of memory")
"""Messages of libraries that ran out of memory."""
TOO_LARGE = f"decoding it takes more than {MEMORY / 2**30:.3g} GiB of memory"
Progress = Callable[[int, int, str], None]
"""Called with the number of videos done, the number in total, and the path of the last one."""


def find_videos(paths: Paths, *, images: bool = False) -> list[str]:
    """List video files and the videos below folders: absolute paths, each once.

    Pipes and devices are skipped, and so are folders that are an index.

    Args:
        paths: A folder or file, or several.
        images: Whether to list images instead of videos.

    Raises:
        FileNotFoundError: If a file or folder does not exist.
        OptionError: If there is no video among them.
        StorageError: If a folder cannot be listed.
    """
    suffixes = IMAGES if images else VIDEOS
    videos: dict[str, None] = {}
    for path in _absolute(paths):
        if os.path.isdir(path):
            if is_index(path):
                raise OptionError(f"{printable(path)} is an index, expected a folder of videos.")
            below = walk_files(path, enter=lambda folder: not is_index(folder))
            videos |= dict.fromkeys(file for file in below if os.path.splitext(file)[1].lower() in suffixes)
        elif os.path.isfile(path):
            videos[path] = None
        elif os.path.lexists(path):
            raise OptionError(f"{printable(path)} is a pipe, a device or a broken link, expected a file or folder.")
        else:
            raise FileNotFoundError(f"There is no file or folder {printable(path)}.")
    if not videos:
        kind = "image" if images else "video"
        listed = ", ".join(printable(path) for path in _absolute(paths))
        raise OptionError(
            f"There is no {kind} in {listed} (suffixes {' '.join(suffixes)}). If it is a disk, check that it is mounted. "
            "Nothing was removed from the index."
        )
    return list(videos)


def _absolute(paths: Paths) -> list[str]:
    return [os.path.abspath(path) for path in ([paths] if isinstance(paths, (str, os.PathLike)) else paths)]


@dataclass(frozen=True)
class ReadResult:
    """A file that was read, or the reason why it could not be.

    Args:
        path: The file.
        status: Its size and modification time; None if they are unknown.
        media: The video or image; None if it cannot be read.
        reason: Why it cannot be read.
        lasting: Whether it stays unreadable until the file changes.
    """

    path: str
    status: os.stat_result | None = None
    media: Media | None = None
    reason: str = ""
    lasting: bool = False


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
        return ReadResult(path, status, media, reason, lasting)

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


def index(
    predictor: Predictor,
    video_index: VideoIndex,
    paths: Paths,
    *,
    workers: int = 2,
    batch_size: int = 4,
    timeout: float = 120.0,
    prune: bool = False,
    retry: bool = False,
    progress: Progress | None = None,
) -> IndexReport:
    """Encode the videos of folders and files into an index; videos that are unchanged since they were indexed are skipped.

    Videos that an earlier release read by other rules are encoded again.

    Videos are decoded in separate processes. A video that crashes its process, or takes more than ``timeout`` seconds or more
    than 4 GiB of memory, is left out, and the others are indexed. The index remembers unreadable files and does not try them
    again until they change. Every encoded video is on disk at once, so a killed indexing resumes where it was.

    Args:
        predictor: The model.
        video_index: The index.
        paths: Folders and files.
        workers: Processes that decode. 0 decodes in this process, for debugging; then a video that crashes or hangs the
            decoder crashes or hangs this process.
        batch_size: Videos to encode in one batch.
        timeout: Most seconds for decoding one video.
        prune: Whether to remove videos from the index that were below one of the folders and no longer exist; otherwise they
            are only counted.
        retry: Whether to try unreadable files again.
        progress: Called after each video.

    Raises:
        BusyFolderError: If another process is changing the index.
        FileNotFoundError: If a file or folder does not exist.
        VideoIndexError: If the index was made by another model.
        OptionError: If there is no video, or a number is too small.
        StorageError: If a folder cannot be listed; nothing is removed from the index then.
    """
    if not (is_count(workers, 0) and is_count(batch_size) and isinstance(timeout, (int, float)) and timeout > 0):
        given = ", ".join(map(quoted, (workers, batch_size)))
        raise OptionError(
            f"index expects workers >= 0, batch_size >= 1 and timeout > 0, got {given} and {quoted(timeout)}."
        )
    images = any(type(step).__name__ == "LoadImage" for step in predictor.media_steps)
    videos = find_videos(paths, images=images)
    with video_index.locked():
        video_index.start(predictor.identity, predictor.source, predictor.weights)
        video_index.note_folders([path for path in _absolute(paths) if os.path.isdir(path)])
        gone = _gone(video_index, paths)
        if prune:
            video_index.remove(gone)
        entries = video_index.entries
        known = {*entries, *video_index.missing}
        unchanged = [path for path in videos if path in entries and entries[path].is_up_to_date()]
        failed = {} if retry else video_index.unreadable
        not_tried = [path for path in videos if path in failed and failed[path].is_current()]
        unreadable = {path: failed[path].reason for path in not_tried}
        todo = sorted(set(videos) - set(unchanged) - set(not_tried))
        done = len(videos) - len(todo)
        try:
            for path, reason in _encode(predictor, video_index, todo, workers, batch_size, timeout):
                done += 1
                if reason is not None:
                    unreadable[path] = reason
                if progress is not None:
                    progress(done, len(videos), path)
        finally:
            video_index.save()
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


def _gone(video_index: VideoIndex, paths: Paths) -> list[str]:
    """Return the videos of the index that were below one of the folders and no longer exist."""
    folders = tuple(os.path.join(path, "") for path in _absolute(paths) if os.path.isdir(path))
    known = {**video_index.entries, **video_index.missing}
    return [path for path in known if path.startswith(folders) and _is_gone(path)]


def _is_gone(path: str) -> bool:
    """Whether a file certainly does not exist; False if that cannot be determined."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False


def _encode(
    predictor: Predictor, video_index: VideoIndex, paths: Sequence[str], workers: int, batch_size: int, timeout: float
) -> Iterator[tuple[str, str | None]]:
    """Encode videos into an index; yields each path, with the reason if it could not be read."""
    workers = min(workers, len(paths))
    # A fork from one of several threads, as in the web page, may copy a lock that nobody releases.
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
        readable = [(read.path, read.status, read.media) for read in batch if read.status and read.media]
        for same in indices_by_shape([media.frames for _, _, media in readable]):
            media = [readable[i][2] for i in same]
            shapes = [each.content_shape for each in media]
            tokens = predictor.encode_with_coarse_tokens([each.frames for each in media], shapes)
            for row, i in enumerate(same):
                video_index.add(_entry_of(*readable[i]), {name: value[row] for name, value in tokens.items()})
        for read in batch:
            if read.lasting and read.status:
                size, mtime_ns = read.status.st_size, read.status.st_mtime_ns
                video_index.note_unreadable(Unreadable(read.path, size, mtime_ns, read.reason))
            yield read.path, None if read.media is not None else read.reason


def _entry_of(path: str, status: os.stat_result, media: Media) -> Entry:
    """Return the index entry of a video that was read."""
    times = None if media.clip_times is None else tuple((float(start), float(end)) for start, end in media.clip_times)
    return Entry(path, status.st_size, status.st_mtime_ns, media.seconds, times, media.content_shape, DECODING_RULES)
