"""What the ranks of a run do together: lock the folders they write to, stop on an error of one, and share files."""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, barrier, broadcast_object_list, get_rank, get_world_size
from torch import distributed

from clipbert_mm.errors import BusyFolderError, OptionError
from clipbert_mm.fileio import atomic_write, locked

ADVICE = "Wait until it ends, stop it, or choose another work folder (--work-dir)."


@contextmanager
def lock_folders(*folders: str | os.PathLike, holders: Sequence[int] = (0,)) -> Iterator[None]:
    """Keep other runs out of some folders until the block ends; some ranks hold the locks for all.

    Args:
        folders: The folders.
        holders: The ranks that hold locks, one for each machine with folders of its own.

    Raises:
        BusyFolderError: If another run writes to one, on the rank that found it; the other ranks end with it.
        OptionError: If one cannot be made or written to.
    """
    with ExitStack() as locks:
        error: Exception | None = None
        for folder in dict.fromkeys(map(os.path.realpath, folders)) if get_rank() in holders else ():
            try:
                locks.enter_context(locked(folder, ADVICE))
            except BusyFolderError as busy:
                error = busy
            except OSError as refused:
                error = OptionError(
                    f"{folder} cannot be written to: {refused.strerror}. Choose another folder (--work-dir, or "
                    "default_hooks.checkpoint.out_dir)."
                )
        raise_on_all_ranks(error)
        yield


def raise_on_all_ranks(error: Exception | None) -> None:
    """Raise an error on the ranks that have one, and end the other ranks without a message; nothing if no rank has one."""
    if any(all_gather_object(error is not None)):
        raise SystemExit(1) if error is None else error


def broadcast_from_first(value: Any) -> Any:  # noqa: ANN401
    """Return the value of rank 0 on all ranks."""
    values = [value]
    broadcast_object_list(values)
    return values[0]


class FolderSync:
    """Shares the files of a folder between machines that do not share its disk.

    Which ranks share the folder is found by files that each rank writes and looks for.

    Args:
        folder: The folder, made if it is missing.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.leaders = [0]
        """The first rank of each group of ranks that share the folder."""
        self._group: Any = None
        if get_world_size() == 1:
            return
        token = Path(folder) / f".{broadcast_from_first(secrets.token_hex(4))}"
        mark = token.with_name(f"{token.name}-{get_rank()}")
        token.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        barrier()
        first = next(rank for rank in range(get_world_size()) if token.with_name(f"{token.name}-{rank}").exists())
        self.leaders = sorted(set(all_gather_object(first)))
        mark.unlink()
        if len(self.leaders) > 1:
            self._group = distributed.new_group(self.leaders, backend="gloo")

    @property
    def is_leader(self) -> bool:
        """Whether this rank is the first of those that share the folder."""
        return get_rank() in self.leaders

    def exchange(self, folder: Path, suffix: str) -> None:
        """Wait for all ranks, and give each machine the files of a folder that another one has.

        Args:
            folder: The folder; its files never change.
            suffix: How the names of the files end.
        """
        barrier()
        if self._group is not None and self.is_leader:
            names = {path.name for path in folder.glob(f"[!.]*{suffix}")}
            names_by_leader: list[Any] = [None] * len(self.leaders)
            distributed.all_gather_object(names_by_leader, names, group=self._group)
            for name in sorted(set().union(*names_by_leader)):
                if not all(name in each for each in names_by_leader):
                    owner = next(
                        leader for leader, each in zip(self.leaders, names_by_leader, strict=True) if name in each
                    )
                    data = _broadcast_file(folder / name, owner, self._group)
                    if name not in names:
                        with atomic_write(folder / name, "wb") as file:
                            file.write(data)
        barrier()


def _broadcast_file(path: Path, owner: int, group: Any) -> memoryview:  # noqa: ANN401
    """Return the bytes of a file of one rank on all ranks of a group."""
    data = bytearray(path.read_bytes() if get_rank() == owner else b"")
    size = torch.tensor(len(data))
    distributed.broadcast(size, owner, group=group)
    shared = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(int(size), dtype=torch.uint8)
    if size:  # a process may be killed before it writes the first byte
        distributed.broadcast(shared, owner, group=group)
    return shared.numpy().data
