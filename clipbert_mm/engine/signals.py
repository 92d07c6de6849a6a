"""A cluster's notice that it is going to end a job, and how a training answers it."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from mmengine.dist import get_world_size

from clipbert_mm.engine.loader_workers import STOP_SIGNALS
from clipbert_mm.log import logger

EXIT_AGAIN = os.EX_TEMPFAIL
"""With what a training leaves that was told to stop and saved its state, 75, "try again later" of sysexits.h."""
GRACE_SECONDS = 120
"""How long a process whose launcher is gone may take to save its state."""


class StoppedBySignal(SystemExit):
    """The training saved its state because a signal told it to stop; ends the process with ``EXIT_AGAIN``."""

    def __init__(self) -> None:
        super().__init__(EXIT_AGAIN)


class StopSignal:
    """Whether a signal to stop came.

    Args:
        received: The first that came.
    """

    def __init__(self) -> None:
        self.received: signal.Signals | None = None

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = self.received or signal.Signals(number)

    @contextmanager
    def watching(self) -> Iterator["StopSignal"]:
        """Note the signals instead of ending at them, until the block ends; only a program's main thread can."""
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        before = {number: signal.signal(number, self._note) for number in STOP_SIGNALS}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def end_with_launcher() -> None:
    """Let this process end when the one that launched it ends without telling it, by SIGKILL for example.

    It is told to stop by SIGTERM, at which a training saves its state, and killed if it goes on after :data:`GRACE_SECONDS`.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    logger.warning(f"Process {launcher}, which launched this one, is gone.")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


class RankMax:
    """Lets all processes of a training know the largest of a number that each has; on the CPU, so that no GPU waits."""

    def __init__(self) -> None:
        self.group: Any = None
        if get_world_size() > 1 and torch.distributed.get_backend() != "gloo":
            self.group = torch.distributed.new_group(backend="gloo")

    def largest(self, number: int) -> int:
        """Return the largest."""
        if get_world_size() == 1:
            return number
        shared = torch.tensor(number)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX, group=self.group)
        return int(shared)
