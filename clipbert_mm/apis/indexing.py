"""From folders and files to the videos of a gallery: finding, decoding in the background, encoding in batches."""

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from clipbert_mm.apis.gallery import Entry, VideoGallery
from clipbert_mm.apis.predictor import Media, Predictor, read_media
from clipbert_mm.apis.results import IndexReport
from clipbert_mm.errors import BrokenMediaError, OptionError

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
Progress = Callable[[int, int, str], None]
"""Is told how many videos are done, of how many, and the last one's path."""


def find_videos(places: str | os.PathLike | Sequence[str | os.PathLike], *, images: bool = False) -> list[str]:
    """List the videos of folders, with those below, and files; absolute paths, each once.

    Args:
        places: A folder or file, or several.
        images: Whether images are wanted instead of videos.

    Raises:
        FileNotFoundError: If there is no such file or folder.
        OptionError: If there is no video among them.
    """
    places = [places] if isinstance(places, (str, os.PathLike)) else list(places)
    wanted = IMAGES if images else VIDEOS
    found: dict[str, None] = {}
    for place in map(os.path.abspath, places):
        if os.path.isdir(place):
            for parent, folders, names in os.walk(place, followlinks=True):
                folders[:] = sorted(name for name in folders if not name.startswith("."))
                chosen = (
                    n for n in sorted(names) if os.path.splitext(n)[1].lower() in wanted and not n.startswith(".")
                )
                found |= dict.fromkeys(os.path.join(parent, name) for name in chosen)
        elif os.path.exists(place):
            found[place] = None
        else:
            raise FileNotFoundError(f"There is no file or folder {place}.")
    if not found:
        kind = "image" if images else "video"
        raise OptionError(f"There is no {kind} in {', '.join(map(str, places))}. Looked for {' '.join(wanted)}.")
    return list(found)


class _Files(Dataset):
    """Reads videos in the processes of a DataLoader; what cannot be read comes back as the reason."""

    def __init__(self, steps: Sequence[Any], paths: Sequence[str]) -> None:
        self.steps = steps
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, idx: int) -> tuple[str, os.stat_result | None, Media | str]:
        path = self.paths[idx]
        try:
            found = os.stat(path)
            return path, found, read_media(self.steps, path)
        except OSError as error:
            return path, None, error.strerror or str(error)
        except BrokenMediaError as error:
            return path, None, error.reason


def index(
    predictor: Predictor,
    gallery: VideoGallery,
    places: str | os.PathLike | Sequence[str | os.PathLike],
    *,
    workers: int = 2,
    batch_size: int = 4,
    progress: Progress | None = None,
) -> IndexReport:
    """Put the videos of some places into a gallery; those that are there already, unchanged, are left as they are.

    A video of the gallery that lay in one of the places and is gone is taken out. What is done is on disk: a killed
    indexing goes on where it was.

    Args:
        predictor: The model.
        gallery: The gallery.
        places: Folders and files.
        workers: Processes that decode; 0 decodes in this one.
        batch_size: Videos encoded together.
        progress: Is told of each video.

    Raises:
        FileNotFoundError: If a place does not exist.
        GalleryError: If the gallery is another model's, or another process is changing it.
        OptionError: If there is no video.
    """
    images = any(type(step).__name__ == "LoadImage" for step in predictor.media_steps)
    paths = find_videos(places, images=images)
    with gallery.locked():
        gallery.start(predictor.identity, predictor.source, predictor.weights)
        gone = _gone(gallery, places, paths)
        gallery.remove(gone)
        known = set(gallery.entries)
        unchanged = [path for path in paths if path in known and gallery.entries[path].is_current()]
        todo = sorted(set(paths) - set(unchanged))
        unreadable: dict[str, str] = {}
        try:
            done = len(unchanged)
            for path, reason in _encode(predictor, gallery, todo, workers, batch_size):
                done += 1
                if reason is not None:
                    unreadable[path] = reason
                if progress is not None:
                    progress(done, len(paths), path)
            gallery.remove([path for path in unreadable if path in gallery.entries])  # an older version of the file
        finally:
            gallery.save()
    encoded = [path for path in todo if path not in unreadable]
    return IndexReport(
        added=tuple(path for path in encoded if path not in known),
        changed=tuple(path for path in encoded if path in known),
        unchanged=tuple(unchanged),
        removed=tuple(gone),
        unreadable=unreadable,
    )


def _gone(
    gallery: VideoGallery, places: str | os.PathLike | Sequence[str | os.PathLike], paths: Sequence[str]
) -> list[str]:
    """Return the videos of the gallery that lay below a folder that is indexed, and are not there any more."""
    places = [places] if isinstance(places, (str, os.PathLike)) else places
    folders = [os.path.join(os.path.abspath(place), "") for place in places if os.path.isdir(place)]
    there = set(paths)
    return [path for path in gallery.entries if path not in there and path.startswith(tuple(folders))]


def _encode(
    predictor: Predictor, gallery: VideoGallery, paths: Sequence[str], workers: int, batch_size: int
) -> Iterator[tuple[str, str | None]]:
    """Encode videos into a gallery; yields each path with the reason where it could not be read."""
    loader: DataLoader = DataLoader(
        _Files(predictor.media_steps, paths),
        batch_size=batch_size,
        num_workers=min(workers, len(paths)),
        collate_fn=list,
        worker_init_fn=_one_thread,
    )
    for batch in loader:
        readable = [(path, found, media) for path, found, media in batch if isinstance(media, Media)]
        if readable:
            tokens = predictor.encode_with_overview([media.frames for _, _, media in readable])
            for i, (path, found, media) in enumerate(readable):
                gallery.add(entry_of(path, found, media), {name: value[i] for name, value in tokens.items()})
        for path, _, media in batch:
            yield path, media if isinstance(media, str) else None


def entry_of(path: str, found: os.stat_result, media: Media) -> Entry:
    """Return the entry of a video that was read."""
    times = None if media.clip_times is None else tuple((float(start), float(end)) for start, end in media.clip_times)
    return Entry(path, found.st_size, found.st_mtime_ns, media.seconds, times, media.content_shape)


def _one_thread(worker: int) -> None:
    """Leave the cores to one another's decoders and to the model."""
    torch.set_num_threads(1)
