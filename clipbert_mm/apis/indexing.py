"""Indexing: find the videos of folders, decode them in separate processes, encode them in batches."""

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

from clipbert_mm.apis.index_run import DiskSpace, Progress, RunProgress, ending_on_signals, told_how_far
from clipbert_mm.apis.predictor import Predictor, indices_by_shape
from clipbert_mm.apis.reading import ReadResult, read_videos
from clipbert_mm.apis.results import IndexReport
from clipbert_mm.apis.video_search import Paths
from clipbert_mm.engine.team import Team
from clipbert_mm.errors import OptionError, is_count, printable, quoted
from clipbert_mm.index import EncodedVideo, Entry, Filter, Unreadable, VideoIndex, is_index, outermost_folders
from clipbert_mm.media import DECODING_RULES
from clipbert_mm.media.listing import IMAGES, VIDEOS, walk_files
from clipbert_mm.media.media_file import Media


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
    keep_tokens: bool | None = None,
    together: bool = False,
    progress: Progress | None = None,
) -> IndexReport:
    """Encode the videos of folders and files into an index; videos that are unchanged since they were indexed are skipped.

    Videos that an earlier release read by other rules are encoded again.

    Videos are decoded in separate processes. A video that crashes its process, or takes more than ``timeout`` seconds or more
    than 4 GiB of memory, is left out, and the others are indexed. The index remembers unreadable files and does not try them
    again until they change. Every encoded video is on disk at once, so a killed indexing resumes where it was. Ctrl-C,
    SIGTERM and SIGUSR1 end it within seconds. Once a minute the logger ``clipbert_mm`` gets a line with counts, rate and time
    left.

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
        keep_tokens: Whether to keep visual tokens, so that a search decodes nothing; without them it decodes its shortlist.
            None for what the index was made with. A model without vectors always keeps them, one of vectors alone never does.
        together: Whether all processes of torch's process group call this, for the same paths: each encodes its share into a
            part of the index, and the first one moves the parts into it at the end, or at the beginning of the next indexing.
        progress: Called after each video; of several processes, in the first one, for its share.

    Raises:
        BusyFolderError: If another process is changing the index.
        FileNotFoundError: If a file or folder does not exist.
        VideoIndexError: If the index was made by another model, or the disk is full.
        OptionError: If there is no video, or a number is too small.
        StorageError: If a folder cannot be listed; nothing is removed from the index then.
        StoppedBySignal: If SIGTERM or SIGUSR1 came; it exits with status 75, "try again later".
    """
    options, team = ReadingOptions(workers, batch_size, timeout), Team(together=together)

    def make() -> Plan:
        videos = find_videos(paths, images=takes_images(predictor))
        start(predictor, video_index, keep_tokens)
        video_index.absorb_parts()
        return make_plan(video_index, paths, videos, prune=prune, retry=retry)

    def finish() -> IndexReport:
        video_index.absorb_parts()
        video_index.compact()
        return plan.report({path: reason for each in unreadable for path, reason in each.items()})

    with ending_on_signals(), video_index.locked() if team.is_first else nullcontext():
        plan = team.from_first(make)
        own = video_index.part(team.rank, team.size) if team.size > 1 else video_index
        run = plan.progress(progress, team.rank, team.size)
        with nullcontext() if own is video_index and team.is_first else own.locked():
            unreadable = team.gather(encode_files(predictor, own, plan.share(team.rank, team.size), options, run))
        return team.from_first(finish)


def takes_images(predictor: Predictor) -> bool:
    """Whether a model takes images instead of videos."""
    return any(type(step).__name__ == "LoadImage" for step in predictor.media_steps)


@dataclass(frozen=True)
class ReadingOptions:
    """How videos are read; see :func:`index`.

    Raises:
        OptionError: If a number is too small.
    """

    workers: int = 2
    batch_size: int = 4
    timeout: float = 120.0

    def __post_init__(self) -> None:
        workers, batch_size, timeout = self.workers, self.batch_size, self.timeout
        if not (is_count(workers, 0) and is_count(batch_size) and isinstance(timeout, (int, float)) and timeout > 0):
            given = ", ".join(map(quoted, (workers, batch_size)))
            raise OptionError(
                f"index expects workers >= 0, batch_size >= 1 and timeout > 0, got {given} and {quoted(timeout)}."
            )


@dataclass(frozen=True)
class Plan:
    """What an indexing has to do.

    Args:
        todo: Videos to encode, sorted.
        indexed: Those of them that are in the index, but have changed.
        unchanged: Videos that are in the index as they are.
        not_tried: Files that could not be read before, with the reason.
        gone: Videos of the index that no longer exist.
        pruned: Whether those were removed.
    """

    todo: list[str]
    indexed: frozenset[str]
    unchanged: list[str]
    not_tried: dict[str, str]
    gone: list[str]
    pruned: bool

    def share(self, number: int, processes: int) -> list[str]:
        """Return what one of several processes encodes."""
        return self.todo[number::processes]

    def progress(self, progress: Progress | None, number: int, processes: int) -> RunProgress:
        """Return the progress of one of several processes at the beginning; it calls ``progress`` in the first one alone."""
        if processes > 1:
            name = f"indexing, process {number + 1} of {processes}"
            return RunProgress(len(self.share(number, processes)), 0, 0, None if number else progress, name)
        done = len(self.unchanged) + len(self.not_tried)
        return RunProgress(done + len(self.todo), done, len(self.not_tried), progress)

    def report(self, unreadable: dict[str, str]) -> IndexReport:
        """Return what was done, given which of the videos to encode cannot be read, with the reason."""
        encoded = [path for path in self.todo if path not in unreadable]
        return IndexReport(
            added=tuple(path for path in encoded if path not in self.indexed),
            changed=tuple(path for path in encoded if path in self.indexed),
            unchanged=tuple(self.unchanged),
            removed=tuple(self.gone) if self.pruned else (),
            unreadable=dict(sorted((self.not_tried | unreadable).items())),
            not_tried=tuple(self.not_tried),
            gone=() if self.pruned else tuple(self.gone),
        )


def make_plan(video_index: VideoIndex, paths: Paths, videos: Sequence[str], *, prune: bool, retry: bool) -> Plan:
    """Find out what is to be done for videos below paths; remove those that are gone, if ``prune``."""
    video_index.note_folders([path for path in _absolute(paths) if os.path.isdir(path)])
    gone = _gone(video_index, paths)
    if prune:
        video_index.remove(gone)
    states = video_index.states(videos)
    unchanged = [path for path in videos if states.get(path)]
    failed = {} if retry else video_index.unreadable
    not_tried = {path: failed[path].reason for path in videos if path in failed and failed[path].is_current()}
    todo = sorted(set(videos) - set(unchanged) - set(not_tried))
    return Plan(todo, frozenset(states), unchanged, not_tried, gone, prune)


def encode_files(
    predictor: Predictor, video_index: VideoIndex, todo: Sequence[str], options: ReadingOptions, progress: RunProgress
) -> dict[str, str]:
    """Encode files into an index, and return those that cannot be read, with the reason.

    Raises:
        VideoIndexError: If the disk is full, or will be.
    """
    unreadable: dict[str, str] = {}
    space = DiskSpace(video_index, len(todo))
    batches = read_videos(predictor.media_steps, todo, **vars(options), fork=video_index.safe_to_fork)
    with told_how_far(progress):
        for batch in batches:
            written = add(predictor, video_index, batch)
            for read in batch:
                if read.media is None:
                    unreadable[read.path] = read.reason
                progress.note(read.path, unreadable=read.media is None)
            space.check(written, sum(read.media is not None for read in batch))
    return unreadable


def start(predictor: Predictor, video_index: VideoIndex, keep_tokens: bool | None = None) -> None:
    """Create an index for a model, or check that it is one of this model; see :meth:`~clipbert_mm.index.VideoIndex.start`.

    Raises:
        OptionError: If ``keep_tokens`` does not go with the model.
        VideoIndexError: If the index was made by another model, or otherwise.
    """
    encoder = predictor.model.encoder
    if keep_tokens is False and not encoder.has_vectors:
        raise OptionError(
            f"{predictor.source} has no vectors, so that its index keeps visual tokens. Leave keep_tokens out."
        )
    if keep_tokens and encoder.has_vectors and encoder.compares_vectors:
        raise OptionError(
            f"{predictor.source} compares vectors alone, so that there are no tokens to keep. Leave keep_tokens out."
        )
    if keep_tokens is None:
        keep_tokens = video_index.keeps_tokens if video_index.exists else not encoder.has_vectors
    video_index.start(
        predictor.identity,
        predictor.source,
        predictor.weights,
        vector_size=encoder.vector_size if encoder.has_vectors else None,
        keeps_tokens=keep_tokens,
    )


def add(predictor: Predictor, video_index: VideoIndex, batch: Sequence[ReadResult]) -> int:
    """Encode the videos of a batch into an index, record those that cannot be read, and return the bytes that were added."""
    readable = [(read, read.media) for read in batch if read.media is not None]
    encoded = []
    for same in indices_by_shape([media.frames for _, media in readable]):
        media = [readable[i][1] for i in same]
        parts = predictor.encode_for_index([each.frames for each in media], [each.content_shape for each in media])
        vectors = parts.pop("vectors", None)
        for row, i in enumerate(same):
            tokens = {name: value[row] for name, value in parts.items()} if video_index.keeps_tokens else None
            encoded.append(EncodedVideo(entry_of(*readable[i]), None if vectors is None else vectors[row], tokens))
    if encoded:
        video_index.add(encoded)
    lasting = [
        Unreadable(read.path, read.status.st_size, read.status.st_mtime_ns, read.reason)
        for read in batch
        if read.lasting and read.status
    ]
    if lasting:
        video_index.note_unreadable(lasting)
    return sum(video.stored_bytes for video in encoded)


def entry_of(read: ReadResult, media: Media) -> Entry:
    """Return the index entry of a video that was read."""
    times = None if media.clip_times is None else tuple((float(start), float(end)) for start, end in media.clip_times)
    assert read.status is not None
    size, mtime_ns = read.status.st_size, read.status.st_mtime_ns
    return Entry(read.path, size, mtime_ns, media.seconds, times, media.content_shape, DECODING_RULES, read.digest)


def _gone(video_index: VideoIndex, paths: Paths) -> list[str]:
    """Return the videos of the index that were below one of the folders and no longer exist."""
    folders = outermost_folders(path for path in _absolute(paths) if os.path.isdir(path))
    below = (entry.path for folder in folders for entry in video_index.listed(Filter(folders=(folder,))))
    return sorted(path for path in below if _is_gone(path))


def _is_gone(path: str) -> bool:
    """Whether a file certainly does not exist; False if that cannot be determined."""
    try:
        os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
