"""The folder of an index: which folder is one, where it is by default, and its lock against two writers."""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipbert_mm.errors import BusyFolderError, VideoIndexError

RECORDS, OLD_MANIFEST = "records.sqlite3", "manifest.json"
"""File of the records, and of what an index of format 1 has in its place."""
PARTS = "parts"
"""Folder of what several processes are writing."""
DEFAULT_FOLDER, OLD_DEFAULT_FOLDER = "clipbert_index", "clipbert_gallery"
"""Folder of the index when none is given, now and in earlier releases."""


def is_index(folder: str | os.PathLike) -> bool:
    """Whether a folder is an index, whose uploads and previews are not videos to index."""
    folder = Path(folder)
    return (folder / RECORDS).is_file() or ((folder / OLD_MANIFEST).is_file() and (folder / "tokens").is_dir())


def default_folder() -> str:
    """Return the folder of the index when none is given; that of earlier releases if only that one exists."""
    return OLD_DEFAULT_FOLDER if is_index(OLD_DEFAULT_FOLDER) and not is_index(DEFAULT_FOLDER) else DEFAULT_FOLDER


@contextmanager
def lock_index(folder: Path) -> Iterator[None]:
    """Lock the folder of an index against changes by other processes and threads.

    Raises:
        BusyFolderError: If another one is changing it.
        VideoIndexError: If a file or folder to write is a symbolic link, which may lead out of the index.
    """
    folder.mkdir(parents=True, exist_ok=True)
    databases = (RECORDS, *(f"{RECORDS}-{kind}" for kind in ("journal", "wal", "shm")))
    for name in ("tokens", PARTS, ".lock", OLD_MANIFEST, *databases, *(path.name for path in folder.glob("vectors-*"))):
        if (folder / name).is_symlink():
            raise VideoIndexError(
                f"{folder / name} is a symbolic link, and an index is never written outside its folder. Replace the link "
                "by its target."
            )
    for name in ("tokens", PARTS):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise VideoIndexError(f"{folder / name} is a file or a pipe, expected a folder. Delete it.")
    try:
        lock = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        raise VideoIndexError(f"Cannot change the index {folder}: {error.strerror} ({error.filename}).") from error
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise BusyFolderError(f"Another process is changing the index {folder}. Wait until it is done.") from None
        yield
    finally:
        os.close(lock)
