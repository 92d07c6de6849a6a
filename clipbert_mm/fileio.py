"""Atomic writes of files and folders, locks on folders, removal of what killed processes leave, and sizes of memory."""

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

from mmengine.logging import print_log

from clipbert_mm.errors import BusyFolderError, OptionError

PART = re.compile(r"\.clipbert-[0-9a-f]{8}\.part")
"""The name of what is not whole yet; it does not grow with the name that it gets."""
LOCK = ".lock"
"""The file that the process that writes to a folder holds a lock of."""
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""How the system says that a disk, a quota or a file is full."""
SPARED_SECONDS = 600
"""Age from which a file's part that no process holds is removed in folders that nobody locks."""

UNITS = {"KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
"""Bytes by unit."""

_held: set[int] = set()
"""Descriptors of this process' locks."""


def _leave_to_parent() -> None:
    """Close a forked process' copies of its parent's locks, which would outlive the parent with it."""
    for number in _held:
        os.close(number)
    _held.clear()


os.register_at_fork(after_in_child=_leave_to_parent)


@contextmanager
def atomic_write(path: str | os.PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file, of text or with mode "wb" of bytes, that appears under its name when it is whole.

    Raises:
        OSError: If it cannot be written, with its path. What was there stays, and nothing is left of the new one.
    """
    with atomic_path(path) as part, open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def atomic_path(path: str | os.PathLike, *, folder: bool = False) -> Iterator[Path]:
    """Give the path of an empty file or folder, in the same folder, that gets its name when the block has filled it.

    Args:
        path: The name that it gets; a file that is there is replaced.
        folder: Whether it is a folder.

    Raises:
        OSError: If it cannot be written, with its path. What was there stays, and nothing is left of the new one.
    """
    target = Path(path)
    with naming_path_when_full(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(os.path.realpath(target.parent), 0 if folder else SPARED_SECONDS)
        with scratch(target.parent, folder=folder) as part:
            yield part
            os.replace(part, target)
            sync_folder(target.parent)


@contextmanager
def naming_path_when_full(path: str | os.PathLike) -> Iterator[None]:
    """Let the error of a full disk in this block name the file that is written, which the system leaves out."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename != os.fspath(path):
            raise OSError(error.errno, os.strerror(error.errno), os.fspath(path)) from error
        raise


@contextmanager
def scratch(parent: str | os.PathLike, *, folder: bool = True) -> Iterator[Path]:
    """Make an empty folder or file for the time of a block; of a killed process' the next one that sweeps disposes.

    Args:
        parent: The folder that it lies in.
        folder: Whether it is a folder.
    """
    number = -1
    while number < 0:
        part = Path(parent) / f".clipbert-{secrets.token_hex(4)}.part"
        if folder:
            part.mkdir()
        else:
            os.close(os.open(part, os.O_CREAT | os.O_EXCL, 0o666))
        with suppress(FileNotFoundError, BlockingIOError):  # another process swept it before it was locked
            number = _open_locked(part)
    try:
        yield part
    finally:
        _remove(part)
        _let_go(number)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Make an empty folder where the system keeps temporary files, and dispose of those that killed processes left there."""
    _sweep_once(tempfile.gettempdir(), 0)
    with scratch(tempfile.gettempdir()) as folder:
        yield folder


def sweep(folder: str | os.PathLike, *, seconds: float = 0, below: bool = False) -> None:
    """Remove what killed processes left half-written in a folder, and nothing that a living one writes.

    Args:
        folder: The folder.
        seconds: Age below which they stay.
        below: Whether those of folders below it go too.
    """
    for path, folders, files in os.walk(os.fspath(folder)):
        for name in filter(PART.fullmatch, [*folders, *files]):
            part = Path(path, name)
            with suppress(OSError):
                found = os.lstat(part)
                if found.st_uid == os.geteuid() and time.time() - found.st_mtime >= seconds:
                    number = _open_locked(part, or_raise=True)
                    _remove(part)
                    _let_go(number)
        folders[:] = [name for name in folders if below and not PART.fullmatch(name)]


@lru_cache(maxsize=64)
def _sweep_once(folder: str, seconds: float) -> None:
    sweep(folder, seconds=seconds)


@contextmanager
def locked(folder: str | os.PathLike, advice: str = "Wait until it ends, or choose another folder.") -> Iterator[None]:
    """Keep other processes from writing to a folder meanwhile, and remove what killed ones left half-written there.

    The system lets go of the lock when this process ends, however it ends.

    Args:
        folder: The folder; it is made.
        advice: What a process that is refused should do.

    Raises:
        BusyFolderError: If another process holds it.
    """
    path = Path(folder) / LOCK
    number = -1
    while number < 0:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o666))
            number = _open_locked(path)
        except FileNotFoundError:  # who held it removed it, or its folder, just then
            continue
        except BlockingIOError:
            with suppress(OSError):
                holder = path.read_text(errors="replace")[:100]
            raise BusyFolderError(f"{folder} is in use: {holder or 'another process'} writes to it. {advice}") from None
    try:
        os.ftruncate(number, 0)
        os.write(number, f"process {os.getpid()} on {socket.gethostname()}".encode())
        sweep(folder, below=True)
        yield
    finally:
        path.unlink(missing_ok=True)
        _let_go(number)


def _open_locked(path: Path, *, or_raise: bool = False) -> int:
    """Open a file or folder that is there and take its lock; returns the descriptor.

    Args:
        path: The file or folder.
        or_raise: Whether it is an error that the file system offers no locks; else it goes without.

    Raises:
        BlockingIOError: If another process holds it.
        FileNotFoundError: If it is removed meanwhile.
    """
    is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
    number = os.open(path, (os.O_RDONLY if is_folder else os.O_RDWR) | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise
        except OSError as error:
            if or_raise:
                raise
            print_log(f"{path} goes without a lock, which its file system does not offer: {error}", "current")
        if not os.path.samestat(os.fstat(number), os.stat(path, follow_symlinks=False)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fspath(path))
    except BaseException:
        os.close(number)
        raise
    _held.add(number)
    return number


def _let_go(number: int) -> None:
    if number in _held:  # not of a parent's that this process was forked from
        _held.remove(number)
        os.close(number)


def _remove(path: Path) -> None:
    with suppress(OSError):
        if stat.S_ISDIR(os.lstat(path).st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def sync_folder(folder: str | os.PathLike) -> None:
    """See that what was renamed in a folder stays so when the machine loses power."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def parse_bytes(size: str) -> int:
    """Read a size of memory.

    Raises:
        OptionError: If it is none.

    >>> parse_bytes("1.5GiB")
    1610612736
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(KiB|MiB|GiB|TiB)\s*", str(size))
    if found is None:
        raise OptionError(f"Expected a size of memory such as '4GiB' or '500MiB', got {size!r}.")
    return int(float(found[1]) * UNITS[found[2]])
