"""Atomic writes of files and folders, locks on folders, clean-up after killed processes, and sizes in bytes."""

import errno
import fcntl
import os
import re
import secrets
import shutil
import socket
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import IO, Any

from clipbert_mm.errors import BusyFolderError, OptionError
from clipbert_mm.log import logger

PART = re.compile(r"\.clipbert-[0-9a-f]{8}\.part")
"""Name of a file or folder that is being written; its length does not depend on the final name."""
LOCK = ".lock"
"""Name of the file in a folder that the process that writes to the folder has locked."""
DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error codes for a full disk, an exhausted quota and a file that is too large."""
MIN_AGE_SECONDS = 600
"""Age from which an unlocked partial file is removed from a folder without a lock of its own."""

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
"""Bytes by unit."""

_locked_descriptors: set[int] = set()
"""File descriptors of the locks that this process holds."""


def _close_inherited_locks() -> None:
    """Close the locks that a forked process inherits; otherwise they would stay locked after the parent has ended."""
    for descriptor in _locked_descriptors:
        os.close(descriptor)
    _locked_descriptors.clear()


@lru_cache(maxsize=1)
def _prepare_for_forks() -> None:
    """Register what a forked process has to do, with the first lock."""
    os.register_at_fork(after_in_child=_close_inherited_locks)


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file for writing, as text or with mode "wb" as bytes; it gets its name only when it is complete.

    Raises:
        OSError: If it cannot be written; the error names the file. An older file of this name stays, no partial file remains.
    """
    with atomic_path(path) as part, open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: str | os.PathLike, *, folder: bool = False) -> Iterator[Path]:
    """Make an empty file or folder to fill, with a temporary name in the same folder; at the end of the block it is renamed.

    Args:
        path: The final path; an existing file is replaced.
        folder: Whether to make a folder.

    Raises:
        OSError: If it cannot be written; the error names the file. An older file of this name stays, no partial file remains.
    """
    target = Path(path)
    with naming_path_when_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(os.path.realpath(target.parent), 0 if folder else MIN_AGE_SECONDS)
        with scratch(target.parent, folder=folder) as part:
            yield part
            os.replace(part, target)
            sync_folder(target.parent)


@contextmanager
def naming_path_when_full(path: str | os.PathLike) -> Iterator[None]:
    """Add the path of the file that is written to the error of a full disk, which the system raises without one."""
    try:
        yield
    except OSError as error:
        if error.errno in DISK_FULL and error.filename != os.fspath(path):
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error
        raise


@contextmanager
def scratch(parent: str | os.PathLike, *, folder: bool = True) -> Iterator[Path]:
    """Make an empty folder or file for the duration of a block. If the process is killed, a later :func:`sweep` removes it.

    Args:
        parent: The folder to make it in.
        folder: Whether to make a folder; otherwise a file.
    """
    descriptor = -1
    while descriptor < 0:
        part = Path(parent) / f".clipbert-{secrets.token_hex(4)}.part"
        if folder:
            part.mkdir()
        else:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o666))
        with suppress(FileNotFoundError, BlockingIOError):  # another process swept it before it was locked
            descriptor = _open_locked(part)
    try:
        yield part
    finally:
        _remove(part)
        _release(descriptor)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make an empty folder in the system's folder for temporary files; folders that killed processes left there are removed."""
    _sweep_once(tempfile.gettempdir(), 0)
    with scratch(tempfile.gettempdir()) as folder:
        yield folder


def sweep(folder: str | os.PathLike, *, seconds: float = 0, below: bool = False) -> None:
    """Remove the partial files and folders of killed processes from a folder; those of running processes stay.

    Args:
        folder: The folder.
        seconds: Minimum age, in seconds, of what is removed.
        below: Whether to sweep the folders below it, too.
    """
    for path, folders, files in os.walk(os.fspath(folder)):
        for name in filter(PART.fullmatch, [*folders, *files]):
            part = Path(path, name)
            with suppress(OSError):
                status = os.lstat(part)
                if status.st_uid == os.geteuid() and time.time() - status.st_mtime >= seconds:
                    descriptor = _open_locked(part, require_lock=True)
                    _remove(part)
                    _release(descriptor)
        folders[:] = [name for name in folders if below and not PART.fullmatch(name)]


@lru_cache(maxsize=64)
def _sweep_once(folder: str, seconds: float) -> None:
    sweep(folder, seconds=seconds)


@contextmanager
def locked(folder: str | os.PathLike, advice: str = "Wait until it ends, or choose another folder.") -> Iterator[None]:
    """Lock a folder against writing by other processes, and remove what killed processes left half-written there.

    The system releases the lock when this process ends, however it ends.

    Args:
        folder: The folder; it is made if it does not exist.
        advice: What the user of a process that is refused should do.

    Raises:
        BusyFolderError: If another process has locked it.
    """
    path = Path(folder) / LOCK
    descriptor = -1
    while descriptor < 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666))
            descriptor = _open_locked(path)
        except FileNotFoundError:  # the process that had locked it has just removed it, or its folder
            continue
        except BlockingIOError:
            with suppress(FileNotFoundError):  # the process that had locked it has just removed it
                holder = path.read_text(errors="replace")[:100] or "another process"
                raise BusyFolderError(f"{folder} is in use: {holder} writes to it. {advice}") from None
    try:
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode())
        sweep(folder, below=True)
        yield
    finally:
        path.unlink(missing_ok=True)
        _release(descriptor)


def _open_locked(path: Path, *, require_lock: bool = False) -> int:
    """Open an existing file or folder and lock it.

    Args:
        path: The file or folder.
        require_lock: Whether a file system without locks is an error; otherwise the file stays unlocked.

    Returns:
        The file descriptor.

    Raises:
        BlockingIOError: If another process has locked it.
        FileNotFoundError: If another process removes it meanwhile.
    """
    is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    descriptor = os.open(path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            if require_lock:
                raise
            logger.info(f"{path} is written without a lock, since its file system does not offer locks: {error}")
        if not os.path.samestat(os.fstat(descriptor), os.stat(path, follow_symlinks=False)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    except BaseException:
        os.close(descriptor)
        raise
    _prepare_for_forks()
    _locked_descriptors.add(descriptor)
    return descriptor


def _release(descriptor: int) -> None:
    if descriptor in _locked_descriptors:  # a forked process has closed the locks of its parent
        _locked_descriptors.remove(descriptor)
        os.close(descriptor)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def sync_folder(folder: str | os.PathLike) -> None:
    """Write the entries of a folder to disk, so that a rename in it survives a power failure."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def cache_folder() -> Path:
    """Return the folder of what is kept between runs: ``$XDG_CACHE_HOME/clipbert_mm``, or ``~/.cache/clipbert_mm``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "clipbert_mm"


def parse_bytes(size: str) -> int:
    """Parse a size in bytes.

    Raises:
        OptionError: If it is not a number with a unit of :data:`UNITS`.

    >>> parse_bytes("1.5GiB")
    1610612736
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB|TiB)\s*", str(size))
    if match is None:
        raise OptionError(f"Expected a size of memory such as '4GiB' or '500MiB', got {size!r}.")
    return int(float(match[1]) * UNITS[match[2]])
