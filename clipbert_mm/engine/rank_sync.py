"""The folders that the processes of a run write to: one run at a time, shared by its machines or not."""

import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import all_gather_object, barrier, broadcast_object_list, get_rank, get_world_size
from torch import distributed

from clipbert_mm.errors import BusyFolderError
from clipbert_mm.fileio import atomic_write, locked

ADVICE = "Wait until it ends, stop it, or choose another work folder (--work-dir)."


@contextmanager
def locked_for_all(*folders: str | os.PathLike, holders: Sequence[int] = (0,)) -> Iterator[None]:
    """Keep other runs out of some folders meanwhile; some processes of this one hold their locks for all.

    Args:
        folders: The folders.
        holders: The processes, one for each machine that has folders of its own.

    Raises:
        BusyFolderError: If another run writes to one, in the process that found it; the others end with it.
    """
    with ExitStack() as locks:
        error: Exception | None = None
        if get_rank() in holders:
            try:
                for folder in dict.fromkeys(map(os.path.realpath, folders)):
                    locks.enter_context(locked(folder, ADVICE))
            except (BusyFolderError, OSError) as refused:
                error = refused
        raise_together(error)
        yield


def raise_together(error: Exception | None) -> None:
    """End all processes if one has an error; the others end without words."""
    if any(all_gather_object(error is not None)):
        raise SystemExit(1) if error is None else error


def told_by_first(value: Any) -> Any:  # noqa: ANN401
    """Return the first process' value in all."""
    told = [value]
    broadcast_object_list(told)
    return told[0]


class Machines:
    """The machines of a run, and which of them share a folder, found by files that its processes write and look for.

    Args:
        folder: The folder, made if it is not there.
    """

    def __init__(self, folder: str | os.PathLike) -> None:
        self.leaders = [0]
        """The first process of each set of processes that share the folder."""
        self._group: Any = None
        if get_world_size() == 1:
            return
        token = Path(folder) / f".{told_by_first(secrets.token_hex(4))}"
        own = token.with_name(f"{token.name}-{get_rank()}")
        token.parent.mkdir(parents=True, exist_ok=True)
        own.touch()
        barrier()
        first = next(rank for rank in range(get_world_size()) if token.with_name(f"{token.name}-{rank}").exists())
        self.leaders = sorted(set(all_gather_object(first)))
        own.unlink()
        if len(self.leaders) > 1:
            self._group = distributed.new_group(self.leaders, backend="gloo")

    @property
    def leads(self) -> bool:
        """Whether this process is the first of those that share the folder."""
        return get_rank() in self.leaders

    def exchange(self, folder: Path, suffix: str) -> None:
        """Wait for all processes, and let each machine have the files of a folder that any has.

        Args:
            folder: The folder; a file of it never changes.
            suffix: What the names of the files end with.
        """
        barrier()
        if self._group is not None and self.leads:
            own = {path.name for path in folder.glob(f"[!.]*{suffix}")}
            there: list[Any] = [None] * len(self.leaders)
            distributed.all_gather_object(there, own, group=self._group)
            for name in sorted(set().union(*there)):
                if not all(name in names for names in there):
                    owner = next(leader for leader, names in zip(self.leaders, there, strict=True) if name in names)
                    data = _broadcast(folder / name, owner, self._group)
                    if name not in own:
                        with atomic_write(folder / name, "wb") as file:
                            file.write(data)
        barrier()


def _broadcast(path: Path, owner: int, group: Any) -> memoryview:  # noqa: ANN401
    """Return the bytes of a file of one process in all of a group."""
    data = bytearray(path.read_bytes() if get_rank() == owner else b"")
    size = torch.tensor(len(data))
    distributed.broadcast(size, owner, group=group)
    shared = torch.frombuffer(data, dtype=torch.uint8) if data else torch.empty(int(size), dtype=torch.uint8)
    if size:  # a process may be killed before it writes the first byte
        distributed.broadcast(shared, owner, group=group)
    return shared.numpy().data
