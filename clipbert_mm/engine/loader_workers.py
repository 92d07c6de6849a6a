"""The worker processes of a loader: what they are given, what they answer, and how they ended if they hung or crashed."""

import gc
import os
import pickle
import queue
import random
import signal
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
import torch.multiprocessing  # tensors then go from process to process by shared memory

from clipbert_mm.compat.data_loading import pin_memory, set_worker_info
from clipbert_mm.datasets.wrappers import draw_item, give_up
from clipbert_mm.processes import end_with_parent, limit_memory

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""Signals by which a cluster announces that it is going to end a job."""


@dataclass(frozen=True, kw_only=True)
class WorkerConfig:
    """What all workers of a loader have in common.

    Args:
        dataset: Where the items come from.
        collate: Makes a batch of items.
        batched: Whether a job is a list of items; else it is one item.
        init: Called with the worker's number before its first job; None for nothing.
        num_workers: Number of workers.
        seed: Seed of the first worker; the others count up from it.
        memory_limit: Bytes of memory that each worker may take beyond those at its start; None for no limit.
    """

    dataset: Any
    collate: Callable[[Any], Any]
    batched: bool
    init: Callable[[int], None] | None
    num_workers: int
    seed: int
    memory_limit: int | None

    def load(self, items: Any) -> Any:  # noqa: ANN401
        """Do a job: read its items, given by the numbers of their draws, and make a batch of them."""
        if not self.batched:
            return self.collate(draw_item(self.dataset, items))
        return self.collate([draw_item(self.dataset, number) for number in items])


class RemoteTraceback(Exception):
    """Where an error was raised in a worker; the cause of that error in the process that reads."""


class Worker:
    """A process that does jobs in order. If it ended, it can be restarted with the jobs that are not done.

    Args:
        number: The worker's number, from 0.
        config: What it does.
        context: How processes are started.
        events: Takes ``(worker, connection, answer)``; an answer is ``(job, batch, error)``, or None if the process ended.
        pin: Index of the accelerator whose pinned memory batches are copied to; None for none.
    """

    def __init__(
        self,
        number: int,
        config: WorkerConfig,
        context: Any,  # noqa: ANN401
        events: queue.SimpleQueue,
        pin: int | None,
    ) -> None:
        self.number, self.config, self.context, self.events, self.pin = number, config, context, events, pin
        self.pending: deque[tuple[int, Any]] = deque()
        self.excluded_at_start: set[str] = set()
        """The files that were given up before it was restarted, so that it never reads them."""
        self.start()

    def start(self) -> None:
        """Start the process."""
        self.connection, remote_end = self.context.Pipe()
        arguments = (remote_end, self.connection, self.number, self.config)
        self.process = self.context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        remote_end.close()
        self.sent_paths: set[str] = set()
        self.since = time.monotonic()
        threading.Thread(target=_receive, args=(self, self.process, self.connection), daemon=True).start()

    def submit(self, job: int, items: Any, given_up: Mapping[str, str]) -> None:  # noqa: ANN401
        """Send it a job; it does not read the files that are given up."""
        if not self.pending:
            self.since = time.monotonic()
        self.pending.append((job, items))
        self._send(job, items, given_up)

    def mark_done(self) -> None:
        """Note that it has done the oldest of its jobs."""
        self.pending.popleft()
        self.since = time.monotonic()

    def restart(self, given_up: Mapping[str, str]) -> None:
        """Start a new process that does the jobs that are not done."""
        self.start()
        self.excluded_at_start = set(given_up)
        for job, items in self.pending:
            self._send(job, items, given_up)

    def _send(self, job: int, items: Any, given_up: Mapping[str, str]) -> None:  # noqa: ANN401
        new = {path: reason for path, reason in given_up.items() if path not in self.sent_paths}
        self.sent_paths |= set(new)
        with suppress(OSError):  # the process ended, as its event will tell
            self.connection.send((job, items, new))

    def stop(self) -> None:
        """Tell the process that there are no more jobs; kill it if it has jobs left."""
        if self.pending:
            self.process.kill()
        else:
            with suppress(OSError):
                self.connection.send(None)

    def join(self) -> int:
        """Wait for the process to end, and kill it if it does not; returns its exit code, negative for a signal."""
        self.process.join(5)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(5)  # not for ever: a process that waits for a dead network disk cannot even be killed
        return self.process.exitcode or 0


def _receive(worker: Worker, process: BaseProcess, connection: Connection) -> None:
    """Pass on what a process of a worker answers until it ends; in a thread of its own."""
    if worker.pin is not None:
        torch.accelerator.set_device_index(worker.pin)  # of this thread
        torch.set_num_threads(1)
    with connection:
        while True:
            try:
                job, batch, error = connection.recv()
            except Exception as failure:
                lost = isinstance(failure, EOFError) or bool(wait([process.sentinel], 1))
                worker.events.put((worker, connection, None if lost else (-1, None, failure)))
                return
            worker.events.put((worker, connection, (job, batch if worker.pin is None else pin_memory(batch), error)))


class WorkerPool:
    """The workers of a loader.

    Args:
        config: What they do.
        context: How processes are started.
        pin: Index of the accelerator whose pinned memory batches are copied to; None for none.
    """

    def __init__(self, config: WorkerConfig, context: Any, pin: int | None) -> None:  # noqa: ANN401
        self.pid = os.getpid()
        self.events: queue.SimpleQueue[tuple[Worker, Connection, Any]] = queue.SimpleQueue()
        self.workers = [Worker(number, config, context, self.events, pin) for number in range(config.num_workers)]

    def close(self) -> None:
        """End the processes; does nothing in a fork of the process that started them."""
        if os.getpid() == self.pid:
            for worker in self.workers:
                worker.stop()
            for worker in self.workers:
                worker.join()


def serve(connection: Connection, other_end: Connection, number: int, config: WorkerConfig) -> None:
    """Do jobs until there are no more; runs in a process of its own."""
    gc.freeze()  # what a fork inherits is not its to collect: a decoder would wait for its threads, which a fork does not have
    other_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the process that reads, which ends this one
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # by which only the process that reads may end it
    threading.Thread(target=_exit_on_signal_of, args=(os.getppid(),), daemon=True).start()
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    seed = config.seed + number
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    set_worker_info(number, config.num_workers, seed, config.dataset)
    if config.memory_limit is not None:
        limit_memory(config.memory_limit)
    initialized = config.init is None
    while True:
        message = connection.recv()
        if message is None:
            return
        job, items, given_up = message
        try:
            if not initialized and config.init is not None:
                config.init(number)
            initialized = True
            for path, reason in given_up.items():
                give_up(config.dataset, path, reason)
            batch = config.load(items)
            answer: Any = ForkingPickler.dumps((job, batch, None))
        except Exception as error:
            answer = _pickle_error(job, error)
        try:
            connection.send_bytes(answer)
        except OSError:  # nobody reads any more
            return


def _pickle_error(job: int, error: Exception) -> bytes:
    """Return an error as an answer, with its traceback as text."""
    where = traceback.format_exc()
    error.__traceback__ = None
    for candidate in (error, RuntimeError(where)):  # not every error can be pickled
        candidate.__cause__ = candidate.__context__ = None
        with suppress(Exception):
            answer = pickle.dumps((job, where, candidate))
            pickle.loads(answer)
            return answer
    raise AssertionError("a RuntimeError with a text can be pickled")


def _exit_on_signal_of(parent: int) -> None:
    while signal.sigwaitinfo(STOP_SIGNALS).si_pid != parent:
        pass
    os._exit(0)
