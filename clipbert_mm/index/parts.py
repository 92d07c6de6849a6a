"""Parts of an index, which several processes write at the same time, moving them into it, and what kills leave behind."""

import os
import re
import shutil
from collections.abc import Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any

from clipbert_mm.errors import VideoIndexError
from clipbert_mm.index.folders import PARTS, RECORDS
from clipbert_mm.index.records import Entry

if TYPE_CHECKING:
    from clipbert_mm.index.video_index import EncodedVideo, VideoIndex

NAME = re.compile(r"\d{1,6}-of-\d{1,6}")
"""Name of a part's folder."""
KEY = re.compile(r"[0-9a-f]{32}")
"""Name of a video's tokens; see :attr:`~clipbert_mm.index.records.Entry.key`."""
VIDEOS_AT_ONCE = 256
"""Videos that are moved in one transaction."""


def open_part(index: "VideoIndex", number: int, processes: int) -> "VideoIndex":
    """Return the part of an index that a process writes, an index of its own, which a kill leaves as it is.

    Args:
        index: The index, which exists.
        number: Number of the process, from 0.
        processes: Number of processes.
    """
    part, facts = type(index)(index.folder / PARTS / f"{number}-of-{processes}"), index.manifest
    part.start(
        facts["identity"],
        facts["source"],
        facts["weights"],
        vector_size=facts["vector_size"],
        keeps_tokens=facts["keeps_tokens"],
    )
    return part


def absorb_parts(index: "VideoIndex") -> int:
    """Move all parts of an index into it, those of a killed indexing too, and remove their folders.

    Returns:
        The number of videos that were moved.

    Raises:
        VideoIndexError: If a part is damaged or of another model; then it stays.
        BusyFolderError: If a process is writing to one.
    """
    folder, moved = index.folder / PARTS, 0
    for path in sorted(path for path in folder.glob("*") if NAME.fullmatch(path.name)):
        if path.is_symlink():
            raise VideoIndexError(
                f"{path} is a symbolic link, and an index is never changed outside its folder. Delete it."
            )
        try:
            part = type(index)(path)
        except VideoIndexError as error:
            raise VideoIndexError(
                f"A part of an interrupted indexing cannot be read: {error} Or delete {path}, and its videos are encoded again."
            ) from error
        with part.locked():
            moved += absorb(index, part)
            part.table.close()
            (path / RECORDS).unlink(missing_ok=True)  # first, so that no records remain of tokens that are gone
            shutil.rmtree(path)
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return moved


def absorb(index: "VideoIndex", other: "VideoIndex") -> int:
    """Move the videos, vectors and tokens of another index of the same model into an index, decoding nothing.

    After a kill it can be done again. Videos whose vectors or tokens are damaged or missing are left out.

    Args:
        index: The index, which the caller has locked.
        other: The other one, on the same disk, which the caller has locked too; its tokens are gone afterwards.

    Returns:
        The number of videos that were moved.

    Raises:
        VideoIndexError: If the other one was made by another model, or otherwise.
    """
    if not other.exists:
        return 0
    index.check_identity(other.manifest["identity"], other.manifest["source"])
    if (other.vector_size, other.keeps_tokens) != (index.vector_size, index.keeps_tokens):
        raise VideoIndexError(
            f"{other.folder} was not made as {index.folder} was: vectors and kept tokens are {other.vector_size} and "
            f"{other.keeps_tokens}, not {index.vector_size} and {index.keeps_tokens}. Index its videos again."
        )
    entries, moved = other.listed(), 0
    damaged = set(index.video_vectors.damaged())  # read once, since no video that is added damages another one
    while some := list(islice(entries, VIDEOS_AT_ONCE)):
        known = index.found([entry.path for entry in some])
        new = [entry for entry in some if known.get(entry.path) != entry or not index.is_whole(entry, damaged)]
        videos = list(_moved(index, other, new))
        index.add(videos)
        moved += len(videos)
    unreadable = other.unreadable
    readable = index.found(list(unreadable))
    index.note_unreadable([each for path, each in unreadable.items() if path not in readable])
    return moved


def _moved(index: "VideoIndex", other: "VideoIndex", entries: list[Entry]) -> "Iterator[EncodedVideo]":
    """Move the tokens of videos, and yield those whose vectors and tokens are there."""
    from clipbert_mm.index.video_index import EncodedVideo  # which imports this module

    for entry in entries:
        try:
            vectors = None if other.vector_size is None else other.vectors(entry.path)
        except VideoIndexError:
            continue
        if not other.keeps_tokens or _move_tokens(index, other, entry):
            yield EncodedVideo(entry, vectors)


def _move_tokens(index: "VideoIndex", other: "VideoIndex", entry: Entry) -> bool:
    """Move the tokens of a video, unless that was done before a kill; returns whether they are there."""
    source, target = other.store.path_of(entry.key), index.store.path_of(entry.key)
    target.parent.mkdir(exist_ok=True)
    if source.is_file() and not source.is_symlink() and not target.is_dir():
        os.replace(source, target)
    try:
        record: Any = index.store.record(entry.key) if target.is_file() else None
    except VideoIndexError:
        return False
    return isinstance(record, dict) and record.get("path") == entry.path


def remove_lost_tokens(index: "VideoIndex") -> None:
    """Remove files of tokens without a record, which a killed indexing may leave."""
    names = [name for name in index.store.names() if KEY.fullmatch(name)]
    known = {coded.hex() for coded in index.table.find("key", [bytes.fromhex(name) for name in names])}
    for name in names:
        if name not in known and not index.store.path_of(name).is_dir():
            index.store.remove(name)
