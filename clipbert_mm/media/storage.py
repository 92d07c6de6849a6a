"""Where videos and images lie: folders, LMDBs of bytes, and what MMEngine's file backends reach. The path alone says which.

- ``data/videos/a.mp4``: a file in a folder.
- ``data/videos.lmdb/a``: the value under the key ``a`` of an LMDB, which is a folder with a ``data.mdb`` or a file named
  ``*.lmdb``. A value is the file's bytes. Where there is no key ``a.mp4``, the key ``a`` is taken: LMDBs often have none of the
  files' endings, those of the paper's release among them.
- ``http://...``, ``s3://...``, ``petrel:s3://...``: an address of a file backend of MMEngine's or of the user's own.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine import fileio

from clipbert_mm.errors import BrokenMediaError, StorageError, printable, quoted
from clipbert_mm.fileio import temporary_folder
from clipbert_mm.media.lmdb_reader import BrokenValueError, LmdbReader, lmdb_file

LONGEST_KEY = 511
"""Bytes of the longest key that an LMDB takes."""
EMPTY = "the file is empty (0 bytes)"
FEW = 4
"""Files of a folder that are asked for one by one; a folder with more of them is listed."""
LOOK_UP = 50
"""How many keys of an LMDB are listed in the time of one look-up."""


def is_address(path: str) -> bool:
    """Whether a path is for one of MMEngine's file backends.

    >>> is_address("s3://bucket/a.mp4"), is_address("data/a.mp4")
    (True, False)
    """
    return "://" in path


def split_lmdb(path: str) -> tuple[str, str] | None:
    """Split a path into the LMDB that it leads through and the key, "" for the LMDB itself; None where there is no LMDB."""
    root, key = path.rstrip(os.sep), ""
    while root:
        if os.path.isfile(os.path.join(root, "data.mdb")) or (root.endswith(".lmdb") and os.path.isfile(root)):
            return root, key
        parent, name = os.path.split(root)
        if parent == root:
            break
        root, key = parent.rstrip(os.sep) or parent, f"{name}/{key}" if key else name
    return None


def _encode(key: str) -> bytes | None:
    """Return a key's bytes; None if no LMDB can hold it."""
    try:
        encoded = os.fsencode(key)
    except UnicodeEncodeError:  # half a surrogate pair
        return None
    return encoded if 0 < len(encoded) <= LONGEST_KEY else None


def _names_of(key: str) -> Iterator[bytes]:
    """Return the keys under which a file may lie: its own, and the one without its ending."""
    yield from filter(None, map(_encode, (key, os.path.splitext(key)[0])))


def _read_value(path: str, root: str, key: str) -> bytes:
    with LmdbReader(root) as reader:
        try:
            for name in _names_of(key):
                value = reader.get(name)
                if value is not None:
                    return value
        except BrokenValueError as error:
            raise BrokenMediaError(path, f"its value in the LMDB cannot be read: {error}") from error
        first = next(reader.list_keys(), None)
    found = "it is empty" if first is None else f"its first key is {quoted(os.fsdecode(first), 60)}"
    raise BrokenMediaError(path, f"the LMDB has no key {quoted(key, 60)}; {found}")


def _status(path: str) -> os.stat_result | None:
    """Return what the file system knows of a file; None where it knows none, so that an LMDB may.

    Raises:
        BrokenMediaError: If it is no file, or cannot be asked for. A pipe or a device is not opened: it may never end.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # a ValueError tells of names that no file has
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # keys may be longer than names
            return None
        raise _broken(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise BrokenMediaError(path, "expected a file, got a folder; a folder of frames is opened by OpenFrames")
    if not stat.S_ISREG(status.st_mode):
        raise BrokenMediaError(path, "expected a file, got a pipe, socket or device")
    return status


def _backend(address: str) -> Any:  # noqa: ANN401
    try:
        return fileio.get_file_backend(address, enable_singleton=True)
    except Exception as error:  # such as ImportError, where the backend's own package is missing
        raise StorageError(f"There is no file backend for {address}: {type(error).__name__}: {error}") from error


def _fetch(address: str) -> bytes | memoryview:
    backend = _backend(address)
    try:
        return backend.get(address)
    except Exception as error:  # each backend has exceptions of its own
        raise BrokenMediaError(address, f"it cannot be fetched: {type(error).__name__}: {error}") from error


def read_bytes(path: str, limit: int | None = None) -> bytes:
    """Read a file, wherever it lies.

    Args:
        path: The file.
        limit: Most bytes that it may have.

    Raises:
        BrokenMediaError: If it is not there, no file, empty, too large, or cannot be fetched.
        StorageError: If the LMDB that it should lie in cannot be used.
    """
    if is_address(path):
        data = _fetch(path)
    elif status := _status(path):
        _check_size(path, status.st_size, limit)
        try:
            with open(path, "rb") as file:
                data = file.read()
        except OSError as error:
            raise _broken(path, error) from error
    elif place := split_lmdb(path):
        data = _read_value(path, *place)
    else:
        raise BrokenMediaError(path, "there is no such file")
    _check_size(path, len(data), limit)
    return bytes(data)


def _check_size(path: str, size: int, limit: int | None = None) -> None:
    if size == 0:
        raise BrokenMediaError(path, EMPTY)  # decoders say something less clear of it
    if limit is not None and size > limit:
        raise BrokenMediaError(path, f"expected a file of at most {limit:,} bytes, got {size:,}")


def _broken(path: str, error: OSError) -> BrokenMediaError:
    return BrokenMediaError(path, error.strerror or type(error).__name__)


@contextmanager
def as_file(path: str) -> Iterator[str]:
    """Give a file, wherever it lies, a path that can be opened; decoders are safer with open files than with bytes.

    What is not in a folder is put into memory as a file without a name, or into a temporary file where the system knows
    no such thing. It goes away as soon as the context is left and whoever opened it has closed it.

    Raises:
        BrokenMediaError: If it is not there, no file, empty, or cannot be fetched.
        StorageError: If the LMDB that it should lie in cannot be used.
    """
    status = None if is_address(path) else _status(path)
    if status:
        _check_size(path, status.st_size)
        yield path
    elif hasattr(os, "memfd_create"):
        with open(os.memfd_create("media"), "wb") as file:
            file.write(read_bytes(path))
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with temporary_folder() as folder:
            name = os.path.join(folder, "media")
            Path(name).write_bytes(read_bytes(path))
            yield name


def list_names(folder: str) -> list[str]:
    """List the files below a folder, wherever it lies, sorted: paths relative to it, without hidden ones.

    Where there is no such folder, the list is empty.

    Raises:
        StorageError: If its file backend lists nothing, it is an LMDB that cannot be opened, or a folder below cannot be
            listed.
    """
    if is_address(folder):
        listing = getattr(_backend(folder), "list_dir_or_file", None)
        if listing is None:  # MMEngine's HTTP backend, for one
            raise StorageError(f"The file backend of {folder} cannot list what is there.")
        names = list(listing(folder, list_dir=False, recursive=True))
    elif place := split_lmdb(folder):
        prefix = os.fsencode(f"{place[1]}/") if place[1] else b""
        with LmdbReader(place[0]) as reader:
            names = [os.fsdecode(key[len(prefix) :]) for key in reader.list_keys(prefix)]
    elif os.path.isdir(folder):
        names = [os.path.relpath(path, folder).replace(os.sep, "/") for path in walk_files(folder)]
    else:
        names = []
    return sorted(name for name in names if not any(part.startswith(".") for part in name.split("/")))


def walk_files(folder: str, enter: Callable[[str], bool] = lambda folder: True) -> Iterator[str]:
    """List the files below a folder of the file system, folder by folder, without hidden ones.

    Links are followed, but each real folder is listed once, however many links lead to it, by its own name where it has one
    below ``folder``. A link to a file is a file, and so is a link to nothing, which whoever reads it will name. Pipes, sockets
    and devices are no files. A name that is not UTF-8 has its bytes as surrogates, as ``os.fsdecode`` gives them.

    Args:
        folder: Where to begin.
        enter: Is asked for each folder below whether to look into it.

    Yields:
        Paths that begin with ``folder``.

    Raises:
        StorageError: If a folder cannot be listed; without its files the list would not be whole.
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
            found = _list_folder(folder)
        except OSError as error:
            raise _unlisted(folder, error) from error
        for path, kind in found:
            if kind == "file":
                yield path
        below = [(path, kind) for path, kind in found if kind != "file" and enter(path)]
        folders += [path for path, kind in reversed(below) if kind == "folder"]
        links += [path for path, kind in below if kind == "link"]


def _unlisted(folder: str, error: OSError) -> StorageError:
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
    """Return the files, or folders of frames, that are not there. A folder of many is listed once, an LMDB opened once.

    An address is looked for where its backend can tell; MMEngine's HTTP backend cannot, so what it should fetch counts as
    there until it is read.

    Raises:
        StorageError: If a folder cannot be listed, or an LMDB or file backend cannot be used.
    """
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(os.path.dirname(path), []).append(path)
    found: set[str] = set()
    for folder, own in folders.items():
        found.update(_present(folder, own))
    return [path for path in paths if path not in found]


def media_exists(path: str) -> bool:
    """Whether a file or folder of frames is there, as far as :func:`missing_media` can tell."""
    return not missing_media([path])


def _present(folder: str, paths: list[str]) -> list[str]:
    """Return those paths of one folder that are there."""
    if is_address(folder):
        exists = getattr(_backend(folder), "exists", None)
        return [path for path in paths if exists is None or exists(path)]
    names: set[str] = set()
    if len(paths) > FEW and os.path.isdir(folder or ".") and not os.path.isfile(os.path.join(folder, "data.mdb")):
        try:
            with os.scandir(folder or ".") as entries:
                names = {entry.name for entry in entries if entry.is_file() or entry.is_dir()}
        except OSError as error:
            raise _unlisted(folder, error) from error
    # A name may differ from what is asked for and mean the same, on disks that ignore case.
    found = [path for path in paths if os.path.basename(path) in names or os.path.exists(path)]
    place = split_lmdb(folder) if len(found) < len(paths) else None
    if place:
        left = sorted(set(paths) - set(found))
        prefix = f"{place[1]}/" if place[1] else ""
        with LmdbReader(place[0]) as reader:
            below = _names_below(reader, os.fsencode(prefix)) if len(left) * LOOK_UP > reader.entries else None
            found += [path for path in left if _has(reader, prefix, os.path.basename(path), below)]
    return found


def _names_below(reader: LmdbReader, prefix: bytes) -> set[bytes]:
    """Return the names right below a prefix: of values, and of folders, which end in a slash."""
    parts = (key[len(prefix) :].partition(b"/") for key in reader.list_keys(prefix))
    return {name + slash for name, slash, _ in parts}


def _has(reader: LmdbReader, prefix: str, name: str, listed: set[bytes] | None) -> bool:
    """Whether an LMDB has a value under a key, or keys below it, as the frames of a video are."""
    if listed is not None:
        return any(each in listed for each in (*_names_of(name), _encode(f"{name}/")))
    if any(reader.get(each) is not None for each in _names_of(prefix + name)):
        return True
    below = _encode(f"{prefix}{name}/")
    return below is not None and next(reader.list_keys(below), None) is not None


def stamp_media(path: str) -> tuple[int, float] | None:
    """Return what tells whether a file has changed: its size in bytes and when it, or its LMDB, was last written to.

    It is None for what is not there or no file, for folders of frames, and for addresses.
    """
    if is_address(path):
        return None
    try:
        if status := _status(path):
            return status.st_size, status.st_mtime
        place = split_lmdb(path)
        return (len(read_bytes(path)), os.stat(lmdb_file(place[0])).st_mtime) if place else None
    except (BrokenMediaError, FileNotFoundError):
        return None
