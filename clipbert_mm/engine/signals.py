"""Signals by which a cluster announces that it is going to end a job, and how a training stops on them."""

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
"""Exit status of a training that saved its state and stopped on a signal, 75, which is "try again later" in sysexits.h."""
PATIENCE = b"\nCtrl-C: saving after this step; Ctrl-C again stops at once, without saving.\n"
"""What a training answers to the first Ctrl-C."""
GRACE_SECONDS = 120
"""Seconds that a process whose launcher is gone may take to save its state."""


class StoppedBySignal(SystemExit):
    """The training saved its state and stops on a signal.

    Args:
        status: Exit status of the process.
    """

    def __init__(self, status: int = EXIT_AGAIN) -> None:
        super().__init__(status)


class StopSignal:
    """The signal to stop that this process got, if any."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        """The first signal that came."""

    def _note(self, number: int, frame: FrameType | None) -> None:
        if number == signal.SIGINT:
            if self.received == signal.SIGINT:
                raise KeyboardInterrupt
            os.write(2, PATIENCE)  # a handler may interrupt another write to a stream
        self.received = self.received or signal.Signals(number)

    @contextmanager
    def watching(self) -> Iterator["StopSignal"]:
        """Note the signals instead of ending at them, until the block ends; does nothing outside of the main thread.

        A second Ctrl-C is a KeyboardInterrupt as ever.
        """
        if threading.current_thread() is not threading.main_thread():
            yield self
            return
        ignored = signal.getsignal(signal.SIGINT) == signal.SIG_IGN  # as a shell has it for what runs in the background
        numbers = STOP_SIGNALS if ignored else (*STOP_SIGNALS, signal.SIGINT)
        before = {number: signal.signal(number, self._note) for number in numbers}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def end_with_launcher() -> None:
    """Let this process end when its launcher ends without a signal to it, by SIGKILL for example.

    It gets SIGTERM, at which a training saves its state, and is killed if it still runs after :data:`GRACE_SECONDS`.
    """
    threading.Thread(target=_watch, args=(os.getppid(),), daemon=True).start()


def _watch(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    logger.warning(f"The launcher of this process (process {launcher}) is gone: this process stops too.")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    os.kill(os.getpid(), signal.SIGKILL)


class RankMax:
    """The maximum of a number over all processes of a training; computed on the CPU, so that no GPU waits."""

    def __init__(self) -> None:
        self.group: Any = None
        if get_world_size() > 1 and torch.distributed.get_backend() != "gloo":
            self.group = torch.distributed.new_group(backend="gloo")

    def largest(self, number: int) -> int:
        """Return the maximum over all processes."""
        if get_world_size() == 1:
            return number
        shared = torch.tensor(number)
        torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX, group=self.group)
        return int(shared)
