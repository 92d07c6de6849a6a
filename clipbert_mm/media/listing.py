"""Listing media files in folders, LMDBs and file backends, and finding out which ones are missing."""

import os
from collections.abc import Callable, Iterator, Sequence

from clipbert_mm.errors import StorageError, printable
from clipbert_mm.media.lmdb_reader import LmdbReader
from clipbert_mm.media.storage import candidate_keys, encode_key, file_backend, is_address, split_lmdb

FEW = 4
"""Files of a folder that are looked up one by one; a folder with more of them is listed."""
LOOK_UP = 50
"""Keys of an LMDB that can be listed in the time of one look-up."""
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
"""File suffixes that are indexed from a folder; a file that is given itself may have any suffix."""


def list_names(folder: str) -> list[str]:
    """List the files below a folder of any storage: sorted paths relative to it, without hidden files.

    If there is no such folder, the list is empty.

    Raises:
        StorageError: If the file backend cannot list files, the LMDB cannot be opened, or a folder cannot be listed.
    """
    if is_address(folder):
        listing = getattr(file_backend(folder), "list_dir_or_file", None)
        if listing is None:  # MMEngine's HTTP backend, for one
            raise StorageError(f"The file backend of {folder} cannot list files.")
        names = list(listing(folder, list_dir=False, recursive=True))
    elif lmdb := split_lmdb(folder):
        prefix = os.fsencode(f"{lmdb[1]}/") if lmdb[1] else b""
        with LmdbReader(lmdb[0]) as reader:
            names = [os.fsdecode(key[len(prefix) :]) for key in reader.list_keys(prefix)]
    elif os.path.isdir(folder):
        names = [os.path.relpath(path, folder).replace(os.sep, "/") for path in walk_files(folder)]
    else:
        names = []
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def walk_files(folder: str, enter: Callable[[str], bool] = lambda folder: True) -> Iterator[str]:
    """List the files below a folder of the file system, folder by folder, without hidden files.

    Links are followed, but each real folder is listed once, however many links lead to it: by its own path if that is below
    ``folder``. A link to a file counts as a file, and so does a dangling link, so that reading it gives an error. Pipes,
    sockets and devices do not count. Bytes of a name that are not UTF-8 are surrogates, as ``os.fsdecode`` returns them.

    Args:
        folder: The folder.
        enter: Returns for the path of each folder below whether to enter it.

    Yields:
        Paths that begin with ``folder``.

    Raises:
        StorageError: If a folder cannot be listed; without its files the list would be incomplete.
    """
    seen: set[tuple[int, int]] = set()
    folders: list[str] = [folder]
    links: list[str] = []
    while folders or links:
        folder = folders.pop() if folders else links.pop(0)  # real folders first
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            entries = _list_folder(folder)
        except OSError as error:
            raise _listing_error(folder, error) from error
        for path, kind in entries:
            if kind == "file":
                yield path
        below = [(path, kind) for path, kind in entries if kind != "file" and enter(path)]
        folders += [path for path, kind in reversed(below) if kind == "folder"]
        links += [path for path, kind in below if kind == "link"]


def _listing_error(folder: str, error: OSError) -> StorageError:
    return StorageError(
        f"The folder {printable(error.filename or folder)} cannot be listed: {error.strerror}. Make it readable, mount it, or "
        "move it away."
    )


def _list_folder(folder: str) -> list[tuple[str, str]]:
    """Return the paths in a folder, sorted, each a "file", a "folder" or a "link" to a folder."""
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            linked = entry.is_symlink()
            if entry.is_dir():
                kind = "link" if linked else "folder"
            else:
                kind = "file" if entry.is_file() or (linked and not os.path.exists(entry.path)) else ""
            if kind:
                found.append((entry.path, kind))
    return sorted(found)


def missing_media(paths: Sequence[str]) -> list[str]:
    """Return the files, or folders of frames, that do not exist.

    A folder with many of them is listed once, an LMDB is opened once. Addresses are checked if their file
    backend can; MMEngine's HTTP backend cannot, so its files count as existing until they are read.

    Raises:
        StorageError: If a folder cannot be listed, or an LMDB or file backend cannot be used.
    """
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(os.path.dirname(path), []).append(path)
    found: set[str] = set()
    for folder, group in folders.items():
        found.update(_existing(folder, group))
    return [path for path in paths if path not in found]


def _existing(folder: str, paths: list[str]) -> list[str]:
    """Return those paths of one folder that exist."""
    if is_address(folder):
        exists = getattr(file_backend(folder), "exists", None)
        return [path for path in paths if exists is None or exists(path)]
    names: set[str] = set()
    if len(paths) > FEW and os.path.isdir(folder or ".") and not os.path.isfile(os.path.join(folder, "data.mdb")):
        try:
            with os.scandir(folder or ".") as entries:
                names = {entry.name for entry in entries if entry.is_file() or entry.is_dir()}
        except OSError as error:
            raise _listing_error(folder, error) from error
    # On disks that ignore case, a file may exist under a name that is not in the listing.
    found = [path for path in paths if os.path.basename(path) in names or os.path.exists(path)]
    lmdb = split_lmdb(folder) if len(found) < len(paths) else None
    if lmdb:
        remaining = sorted(set(paths) - set(found))
        prefix = f"{lmdb[1]}/" if lmdb[1] else ""
        with LmdbReader(lmdb[0]) as reader:
            below = _names_below(reader, os.fsencode(prefix)) if len(remaining) * LOOK_UP > reader.entries else None
            found += [path for path in remaining if _has(reader, prefix, os.path.basename(path), below)]
    return found


def _names_below(reader: LmdbReader, prefix: bytes) -> set[bytes]:
    """Return the names directly below a prefix: of values, and of folders, which end in a slash."""
    parts = (key[len(prefix) :].partition(b"/") for key in reader.list_keys(prefix))
    return {name + slash for name, slash, _ in parts}


def _has(reader: LmdbReader, prefix: str, name: str, listed: set[bytes] | None) -> bool:
    """Whether an LMDB has a value under a key, or keys below it, as for the frames of a video."""
    if listed is not None:
        return any(each in listed for each in (*candidate_keys(name), encode_key(f"{name}/")))
    if any(reader.get(each) is not None for each in candidate_keys(prefix + name)):
        return True
    below = encode_key(f"{prefix}{name}/")
    return below is not None and next(reader.list_keys(below), None) is not None
