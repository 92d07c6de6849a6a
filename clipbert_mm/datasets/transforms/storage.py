"""Where videos and images lie: folders, LMDBs of bytes, and what MMEngine's file backends reach. The path alone says which.

- ``data/videos/a.mp4``: a file in a folder.
- ``data/videos.lmdb/a``: the value under the key ``a`` of an LMDB, which is a folder with a ``data.mdb`` or a file named
  ``*.lmdb``. A value is the file's bytes. Where there is no key ``a.mp4``, the key ``a`` is taken: LMDBs often have none of the
  files' endings, those of the paper's release among them.
- ``http://...``, ``s3://...``, ``petrel:s3://...``: an address of a file backend of MMEngine's or of the user's own.
"""

import os
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import lmdb
from mmengine import fileio

from clipbert_mm.errors import BrokenMediaError, StorageError, printable

LONGEST_KEY = 511
"""Bytes of the longest key that an LMDB takes."""
EMPTY = "the file is empty (0 bytes)"
Result = TypeVar("Result")
_LOCK = threading.RLock()
_OPEN: dict[str, lmdb.Environment] = {}  # what this process has opened, by real path


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


def close_lmdbs() -> None:
    """Close the LMDBs that this process has opened; the next reading opens them again. Needed before one is written to."""
    with _LOCK:
        for environment in _OPEN.values():
            environment.close()
        _OPEN.clear()


def _before_fork() -> None:
    """Let no child inherit an open LMDB, which is not made for it; each process opens its own when it first reads."""
    _LOCK.acquire()
    close_lmdbs()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


@contextmanager
def _reading(root: str) -> Iterator[lmdb.Transaction]:
    """Read from an LMDB, opened once a process: without a lock file, for it may lie on a disk that cannot be written to."""
    path = os.path.realpath(root)
    with _LOCK:
        if path not in _OPEN:
            options = dict(subdir=os.path.isdir(path), create=False, readonly=True, lock=False, readahead=False)
            try:
                _OPEN[path] = lmdb.open(path, **options)
            except lmdb.Error as error:
                raise StorageError(f"{root} is expected to be an LMDB, and cannot be opened: {error}.") from error
        with _OPEN[path].begin(buffers=True) as transaction:
            yield transaction


def _look_up(transaction: lmdb.Transaction, key: str) -> bytes | memoryview | None:
    """Return the value of a key, or of the key without its ending; None if there is neither."""
    for name in (key, os.path.splitext(key)[0]):
        encoded = name.encode()
        value = transaction.get(encoded) if 0 < len(encoded) <= LONGEST_KEY else None
        if value is not None:
            return value
    return None


def _describe_keys(transaction: lmdb.Transaction) -> str:
    with transaction.cursor() as cursor:
        if not cursor.first():
            return "it is empty"
        return f"its first key is {bytes(cursor.key()).decode(errors='replace')!r}"


def _visit(path: str, use: Callable[[bytes | memoryview], Result]) -> Result:
    """Hand the bytes of a file to ``use``; they may be a view into an LMDB, of no use afterwards."""
    if is_address(path):
        return use(_checked(path, _fetch(path)))
    if os.path.isdir(path):
        raise BrokenMediaError(path, "expected a file, got a folder; a folder of frames is opened by OpenFrames")
    if not os.path.exists(path) and (place := split_lmdb(path)):
        root, key = place
        with _reading(root) as transaction:
            value = _look_up(transaction, key)
            if value is None:
                raise BrokenMediaError(path, f"the LMDB {root} has no key {key!r}; {_describe_keys(transaction)}")
            return use(_checked(path, value))
    try:
        with open(path, "rb") as file:
            return use(_checked(path, file.read()))
    except FileNotFoundError:
        raise BrokenMediaError(path, "there is no such file") from None


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


def _checked(path: str, data: bytes | memoryview) -> bytes | memoryview:
    """Name an empty file as such; decoders say something less clear of it."""
    if len(data) == 0:
        raise BrokenMediaError(path, EMPTY)
    return data


def read_bytes(path: str) -> bytes:
    """Read a file, wherever it lies.

    Raises:
        BrokenMediaError: If it is not there, empty, or cannot be fetched.
        StorageError: If the LMDB that it should lie in cannot be opened.
    """
    return _visit(path, bytes)


@contextmanager
def as_file(path: str) -> Iterator[str]:
    """Give a file, wherever it lies, a path that a decoder can open; decoders are safer with paths than with bytes.

    What is not in a folder is put into memory as a file without a name, or into a temporary file where the system knows
    no such thing. It goes away as soon as the context is left and whoever opened it has closed it.

    Raises:
        BrokenMediaError: If it is not there, empty, or cannot be fetched.
        StorageError: If the LMDB that it should lie in cannot be opened.
    """
    if os.path.isfile(path):
        if os.path.getsize(path) == 0:
            raise BrokenMediaError(path, EMPTY)
        yield path
    elif not is_address(path) and os.path.exists(path) and not os.path.isdir(path):
        yield path  # a pipe or a device: whoever opens it will see
    elif hasattr(os, "memfd_create"):
        with open(os.memfd_create("media"), "wb") as file:
            _visit(path, file.write)
            file.flush()
            yield f"/proc/self/fd/{file.fileno()}"
    else:
        with tempfile.TemporaryDirectory(prefix="media-", ignore_cleanup_errors=True) as folder:
            name = os.path.join(folder, "media")
            with open(name, "wb") as file:
                _visit(path, file.write)
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
        prefix = f"{place[1]}/".encode() if place[1] else b""
        with _reading(place[0]) as transaction, transaction.cursor() as cursor:
            names = []
            for key in cursor.iternext(keys=True, values=False) if cursor.set_range(prefix) else ():
                if not bytes(key).startswith(prefix):
                    break
                names.append(bytes(key)[len(prefix) :].decode(errors="surrogateescape"))
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
            raise StorageError(
                f"The folder {printable(error.filename or folder)} cannot be listed: {error.strerror}. Make it readable, mount "
                "it, or move it away."
            ) from error
        for path, kind in found:
            if kind == "file":
                yield path
        below = [(path, kind) for path, kind in found if kind != "file" and enter(path)]
        folders += [path for path, kind in reversed(below) if kind == "folder"]
        links += [path for path, kind in below if kind == "link"]


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
    """Return the files, or folders of frames, that are not there. Each folder is listed once and each LMDB opened once.

    An address is looked for where its backend can tell; MMEngine's HTTP backend cannot, so what it should fetch counts as
    there until it is read.
    """
    folders: dict[str, list[str]] = {}
    for path in paths:
        folders.setdefault(os.path.dirname(path), []).append(path)
    found: set[str] = set()
    for folder, own in folders.items():
        found.update(_present(folder, own))
    return [path for path in paths if path not in found]


def stamp_media(path: str) -> tuple[int, float] | None:
    """Return what tells whether a file has changed: its size in bytes and when it, or its LMDB, was last written to.

    It is None for what is not there or empty, for folders of frames, and for addresses.
    """
    if is_address(path) or os.path.isdir(path):
        return None
    try:
        if os.path.exists(path):
            return os.path.getsize(path), os.path.getmtime(path)
        place = split_lmdb(path)
        if place is None:
            return None
        file = os.path.join(place[0], "data.mdb") if os.path.isdir(place[0]) else place[0]
        return _visit(path, len), os.path.getmtime(file)
    except (BrokenMediaError, FileNotFoundError):
        return None


def media_exists(path: str) -> bool:
    """Whether a file or folder of frames is there, as far as :func:`missing_media` can tell."""
    return not missing_media([path])


def _present(folder: str, paths: list[str]) -> list[str]:
    """Return those paths of one folder that are there."""
    if is_address(folder):
        exists = getattr(_backend(folder), "exists", None)
        return [path for path in paths if exists is None or exists(path)]
    if os.path.isdir(folder or ".") and not os.path.isfile(os.path.join(folder, "data.mdb")):
        with os.scandir(folder or ".") as entries:
            names = {entry.name for entry in entries if entry.is_file() or entry.is_dir()}
        # A name may differ from what is asked for and mean the same, on disks that ignore case.
        return [path for path in paths if os.path.basename(path) in names or os.path.exists(path)]
    place = split_lmdb(folder)
    if place is None:
        return []
    keys = {path: "/".join(filter(None, (place[1], os.path.basename(path)))) for path in paths}
    with _reading(place[0]) as transaction:
        return [path for path, key in keys.items() if _has(transaction, key) or os.path.exists(path)]


def _has(transaction: lmdb.Transaction, key: str) -> bool:
    """Whether an LMDB has a value under a key, or keys below it, as the frames of a video are."""
    if _look_up(transaction, key) is not None:
        return True
    prefix = f"{key}/".encode()[:LONGEST_KEY]
    with transaction.cursor() as cursor:
        return bool(cursor.set_range(prefix)) and bytes(cursor.key()).startswith(prefix)
