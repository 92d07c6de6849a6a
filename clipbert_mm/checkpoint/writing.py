"""Write checkpoints atomically: a file that has its name is complete, even if the process is killed."""

import errno
import os
import shutil
from pathlib import Path
from typing import IO, Any, cast

import torch
from torch import Tensor

from clipbert_mm.checkpoint.integrity import FINISHED, LAST
from clipbert_mm.errors import CheckpointError
from clipbert_mm.fileio import atomic_write, scratch, sweep


def write_checkpoint(content: dict[str, Any], path: str | os.PathLike) -> int:
    """Write a checkpoint under a temporary name in the same folder, flush it to the disk, and rename it.

    Args:
        content: An object that ``torch.save`` accepts.
        path: The file; an existing file is replaced when the new one is complete.

    Returns:
        The size in bytes.

    Raises:
        CheckpointError: If it cannot be written, with the bytes that it needs and those that are free. An existing file stays,
            and nothing of the new one is left.
    """
    target = Path(path).absolute()
    needed = size_of(content)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(target.parent).free < needed:  # before the disk is filled
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        with atomic_write(target, "wb") as file:
            sink = _Sink(file)
            try:
                torch.save(content, cast(IO[bytes], sink))
            except RuntimeError:
                if sink.error is not None:
                    raise sink.error from None
                raise
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint {target} cannot be written: {error.strerror}. {_describe_space(target.parent, needed)} Older "
            "checkpoints are unchanged. Free some space or choose another folder (--work-dir, or "
            "default_hooks.checkpoint.out_dir), and resume with --resume."
        ) from error
    return target.stat().st_size


def note_last(work_dir: str | os.PathLike, name: str) -> None:
    """Write the name of the last checkpoint to its work folder; it has no path, so that the folder can be moved."""
    with atomic_write(Path(work_dir) / LAST) as file:
        file.write(name)


def note_finished(work_dir: str | os.PathLike, name: str | None) -> None:
    """Write the name of the last checkpoint of a training once all is done, validation too; None removes the note."""
    file = Path(work_dir) / FINISHED
    if name is None:
        file.unlink(missing_ok=True)
        return
    with atomic_write(file) as opened:
        opened.write(name)


def is_finished(work_dir: str | os.PathLike, name: str) -> bool:
    """Whether the training that ended with a checkpoint of this name has done all, its last validation too."""
    file = Path(work_dir) / FINISHED
    return file.is_file() and file.read_bytes() == os.fsencode(name)


class _Sink:
    """A file that keeps the error of a failed write, which torch's error does not name."""

    def __init__(self, file: IO[bytes]) -> None:
        self.file = file
        self.error: OSError | None = None

    def write(self, data: Any) -> int:  # noqa: ANN401
        try:
            return self.file.write(data)
        except OSError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self.file.flush()


def size_of(content: object) -> int:
    """Return the bytes of a checkpoint's tensors; tensors that share memory are written once."""
    storages: dict[int, int] = {}

    def visit(value: object) -> None:
        if isinstance(value, Tensor):
            storage = value.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
        elif isinstance(value, dict):
            for each in value.values():
                visit(each)
        elif isinstance(value, (list, tuple)):
            for each in value:
                visit(each)

    visit(content)
    return sum(storages.values())


def prepare_folder(folder: str | os.PathLike) -> None:
    """Create the folder for checkpoints, check that it is writable, and remove incomplete files of killed runs.

    Raises:
        CheckpointError: If it cannot be created or written to.
    """
    path = Path(folder).absolute()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with scratch(path, folder=False):
            sweep(path)
        for part in path.glob(".*.pth.[0-9]*.part"):  # of releases before 0.2
            part.unlink(missing_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"Checkpoints cannot be written to {path}: {error.strerror}. Choose another folder (--work-dir, or "
            "default_hooks.checkpoint.out_dir)."
        ) from error


def _describe_space(folder: Path, needed: int) -> str:
    try:
        free = f"{shutil.disk_usage(folder).free / 1e6:.1f} MB are free"
    except OSError:
        free = "the free space is unknown"
    return f"It needs {needed / 1e6:.1f} MB, and {free}."
