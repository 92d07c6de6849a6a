"""Reading the bytes of a media file from a folder, an LMDB or a file backend of MMEngine; the form of its path says which.

- ``data/videos/a.mp4``: a file in a folder.
- ``data/videos.lmdb/a``: the value under the key ``a`` of an LMDB, which is a folder with a ``data.mdb`` or a file named
  ``*.lmdb``. A value is the bytes of a file. If there is no key ``a.mp4``, the key ``a`` is used: the keys of many LMDBs, such
  as those of the paper's release, have no suffixes.
- ``http://...``, ``s3://...``, ``petrel:s3://...``: an address for a file backend, of MMEngine or registered by the user.
"""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmengine import fileio

from clipbert_mm.errors import BrokenMediaError, StorageError, quoted
from clipbert_mm.fileio import temporary_folder
from clipbert_mm.media.lmdb_reader import BrokenValueError, LmdbReader, lmdb_file

MAX_KEY = 511
"""Bytes of a key of an LMDB, at most."""
EMPTY = "the file is empty (0 bytes)"


def is_address(path: str) -> bool:
    """Whether a path is an address for a file backend of MMEngine.

    >>> is_address("s3://bucket/a.mp4"), is_address("data/a.mp4")
    (True, False)
    """
    return "://" in path


def split_lmdb(path: str) -> tuple[str, str] | None:
    """Split a path into an LMDB and a key, which is "" for the LMDB itself; None if there is no LMDB on the path."""
    root, key = path.rstrip(os.sep), ""
    while root:
        if os.path.isfile(os.path.join(root, "data.mdb")) or (root.endswith(".lmdb") and os.path.isfile(root)):
            return root, key
        parent, name = os.path.split(root)
        if parent == root:
            break
        root, key = parent.rstrip(os.sep) or parent, f"{name}/{key}" if key else name
    return None


def encode_key(key: str) -> bytes | None:
    """Return the bytes of a key; None if no LMDB can have it."""
    try:
        encoded = os.fsencode(key)
    except UnicodeEncodeError:  # an unpaired surrogate
        return None
    return encoded if 0 < len(encoded) <= MAX_KEY else None


def candidate_keys(key: str) -> Iterator[bytes]:
    """Return the keys under which a file may be stored: its own, and the one without suffix."""
    yield from filter(None, map(encode_key, (key, os.path.splitext(key)[0])))


def _read_value(path: str, root: str, key: str) -> bytes:
    with LmdbReader(root) as reader:
        try:
            for name in candidate_keys(key):
                value = reader.get(name)
                if value is not None:
                    return value
        except BrokenValueError as error:
            raise BrokenMediaError(path, f"its value in the LMDB cannot be read: {error}") from error
        first = next(reader.list_keys(), None)
    hint = "it is empty" if first is None else f"its first key is {quoted(os.fsdecode(first), 60)}"
    raise BrokenMediaError(path, f"the LMDB has no key {quoted(key, 60)}; {hint}")


def _status(path: str) -> os.stat_result | None:
    """Return the status of a file; None if the file system has no such file, which may then be in an LMDB.

    Raises:
        BrokenMediaError: If it is not a regular file (reading a pipe or device may never end), or its status is not available.
    """
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name that no file can have
        return None
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:  # keys may be longer than file names
            return None
        raise _broken(path, error) from error
    if stat.S_ISDIR(status.st_mode):
        raise BrokenMediaError(path, "expected a file, got a folder; a folder of frames is opened by OpenFrames")
    if not stat.S_ISREG(status.st_mode):
        raise BrokenMediaError(path, "expected a file, got a pipe, socket or device")
    return status


def file_backend(address: str) -> Any:  # noqa: ANN401
    """Return the file backend of an address.

    Raises:
        StorageError: If there is none.
    """
    try:
        return fileio.get_file_backend(address, enable_singleton=True)
    except Exception as error:  # such as ImportError, if the package of the backend is missing
        raise StorageError(f"There is no file backend for {address}: {type(error).__name__}: {error}") from error


def _fetch(address: str) -> bytes | memoryview:
    backend = file_backend(address)
    try:
        return backend.get(address)
    except Exception as error:  # each backend has exceptions of its own
        raise BrokenMediaError(address, f"it cannot be fetched: {type(error).__name__}: {error}") from error


def read_bytes(path: str, limit: int | None = None) -> bytes:
    """Read a file from any storage.

    Args:
        path: The file.
        limit: Largest allowed size in bytes.

    Raises:
        BrokenMediaError: If it does not exist, is not a file, is empty or too large, or cannot be fetched.
        StorageError: If its LMDB or file backend cannot be used.
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
    elif lmdb := split_lmdb(path):
        data = _read_value(path, *lmdb)
    else:
        raise BrokenMediaError(path, "there is no such file")
    _check_size(path, len(data), limit)
    return bytes(data)


def _check_size(path: str, size: int, limit: int | None = None) -> None:
    if size == 0:
        raise BrokenMediaError(path, EMPTY)  # the errors of decoders are less clear
    if limit is not None and size > limit:
        raise BrokenMediaError(path, f"expected a file of at most {limit:,} bytes, got {size:,}")


def _broken(path: str, error: OSError) -> BrokenMediaError:
    return BrokenMediaError(path, error.strerror or type(error).__name__)


@contextmanager
def as_file(path: str) -> Iterator[str]:
    """Give a file from any storage a path that can be opened; decoders are more robust with open files than with bytes.

    A file that is not in a folder is copied to an anonymous file in memory, or to a temporary file if the system has none of
    those. It disappears when the block has ended and it is open nowhere.

    Raises:
        BrokenMediaError: If it does not exist, is not a file, is empty, or cannot be fetched.
        StorageError: If its LMDB or file backend cannot be used.
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


def stamp_media(path: str) -> tuple[int, float] | None:
    """Return size in bytes and modification time of a file (in an LMDB: that of the LMDB), by which a change is detected.

    None for missing files, folders of frames and addresses.
    """
    if is_address(path):
        return None
    try:
        if status := _status(path):
            return status.st_size, status.st_mtime
        lmdb = split_lmdb(path)
        return (len(read_bytes(path)), os.stat(lmdb_file(lmdb[0])).st_mtime) if lmdb else None
    except (BrokenMediaError, FileNotFoundError):
        return None
