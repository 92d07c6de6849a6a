"""Processes that share a job of files for hours or days, such as indexing, and talk only at its beginning and its end."""

import os
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from clipbert_mm import compat
from clipbert_mm.engine.signals import end_with_launcher

PATIENCE = timedelta(days=365)
"""How long a process waits for one with more work; the launcher ends all if one of them fails."""
POLL_SECONDS = 0.2
"""Seconds between two looks at whether the others are done; signals are heard meanwhile."""


def join_team(launcher: str) -> None:
    """Make this process one of those that a launcher started; on GPUs, each takes its own.

    Args:
        launcher: Program that started the processes: "pytorch", "slurm" or "mpi".

    Raises:
        OptionError: If it did not start this process.
    """
    if launcher == "pytorch" and "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_launcher()
    compat.start_processes(launcher)
    if not distributed.is_initialized():
        distributed.init_process_group(backend="gloo")
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]) % torch.cuda.device_count())


class Team:
    """The processes of torch's process group, or this one alone.

    Args:
        together: Whether they are a team; else this process is one by itself.
    """

    def __init__(self, *, together: bool) -> None:
        together = together and distributed.is_initialized() and distributed.get_world_size() > 1
        self.rank, self.size = (distributed.get_rank(), distributed.get_world_size()) if together else (0, 1)
        self._group: Any = distributed.new_group(backend="gloo", timeout=PATIENCE) if together else None

    @property
    def is_first(self) -> bool:
        """Whether this process is the first one."""
        return self.rank == 0

    def from_first(self, make: Callable[[], Any]) -> Any:  # noqa: ANN401
        """Call a function in the first process, and return its value in all of them.

        If it fails, the others end without a message.
        """
        if self.size == 1:
            return make()
        value, error = None, None
        if self.is_first:
            try:
                value = make()
            except Exception as failure:
                error = failure
        self.wait()
        values = [(value, error is None)]
        distributed.broadcast_object_list(values, group=self._group)
        if error is not None:
            raise error
        value, is_made = values[0]
        if not is_made:
            raise SystemExit(1)
        return value

    def gather(self, value: Any) -> list[Any]:  # noqa: ANN401
        """Return the values of all processes, in their order, in the first one; in the others an empty list."""
        if self.size == 1:
            return [value]
        self.wait()
        values: list[Any] = [None] * self.size
        distributed.gather_object(value, values if self.is_first else None, group=self._group)
        return values if self.is_first else []

    def wait(self) -> None:
        """Wait for all processes; signals and Ctrl-C are heard meanwhile."""
        if self.size > 1:
            work = distributed.barrier(group=self._group, async_op=True)
            while not work.is_completed():
                time.sleep(POLL_SECONDS)
            work.wait()
