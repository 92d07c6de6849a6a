"""The processes of a loader: what each is told, what it answers, and how it ended if it hung or crashed."""

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
from multiprocessing.reduction import ForkingPickler
from typing import Any

import numpy as np
import torch
import torch.multiprocessing  # tensors then go from process to process by shared memory
from torch.utils.data._utils import worker as torch_worker
from torch.utils.data._utils.pin_memory import pin_memory

from clipbert_mm.processes import end_with_parent, limit_memory

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""By which a cluster gives notice that it is going to end a job."""


@dataclass(frozen=True, kw_only=True)
class Duty:
    """What all workers of a loader do.

    Args:
        dataset: Where the items come from.
        collate: Makes a batch of items.
        batched: Whether a job is a list of items; else it is one item.
        begin: Called with the worker's number when it begins; None for nothing.
        workers: How many they are.
        seed: Of the first worker's random generators; the others count on from it.
        memory_limit: Bytes of memory that each may take beyond what it begins with; None for no limit.
    """

    dataset: Any
    collate: Callable[[Any], Any]
    batched: bool
    begin: Callable[[int], None] | None
    workers: int
    seed: int
    memory_limit: int | None


class RemoteTraceback(Exception):
    """Where in a worker an error was raised; the cause of that error in the process that reads."""


class Worker:
    """A process that answers jobs in order. One that ended can be started again, with the jobs it owes.

    Args:
        number: Its place among the workers.
        duty: What it does.
        context: How processes are begun.
        events: Takes ``(worker, connection, answer)``; an answer is ``(job, batch, error)``, or None when it has ended.
        pin: The accelerator whose pinned memory batches are put into; None for none.
    """

    def __init__(self, number: int, duty: Duty, context: Any, events: queue.SimpleQueue, pin: int | None) -> None:  # noqa: ANN401
        self.number, self.duty, self.context, self.events, self.pin = number, duty, context, events, pin
        self.owed: deque[tuple[int, Any]] = deque()
        self.knew: set[str] = set()
        """The files that it was told of before it began, so that it never touches them."""
        self.start()

    def start(self) -> None:
        """Begin the process."""
        self.connection, theirs = self.context.Pipe()
        arguments = (theirs, self.connection, self.number, self.duty)
        self.process = self.context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.told: set[str] = set()
        self.since = time.monotonic()
        threading.Thread(target=_receive, args=(self, self.connection), daemon=True).start()

    def give(self, job: int, items: Any, given_up: Mapping[str, str]) -> None:  # noqa: ANN401
        """Have it load some items; it does not touch the files that are given up."""
        if not self.owed:
            self.since = time.monotonic()
        self.owed.append((job, items))
        self._send(job, items, given_up)

    def answered(self) -> None:
        """Note that it has done the oldest of its jobs."""
        self.owed.popleft()
        self.since = time.monotonic()

    def start_again(self, given_up: Mapping[str, str]) -> None:
        """Begin the process anew, with the jobs that are not answered."""
        self.start()
        self.knew = set(given_up)
        for job, items in self.owed:
            self._send(job, items, given_up)

    def _send(self, job: int, items: Any, given_up: Mapping[str, str]) -> None:  # noqa: ANN401
        news = {path: reason for path, reason in given_up.items() if path not in self.told}
        self.told |= set(news)
        with suppress(OSError):  # it ended, as its event will say
            self.connection.send((job, items, news))

    def dismiss(self) -> None:
        """Tell the process that there are no more jobs; one that has some left is ended at once."""
        if self.owed:
            self.process.kill()
        else:
            with suppress(OSError):
                self.connection.send(None)

    def end(self) -> int:
        """Wait for the process, which has to end; returns its exit code, below 0 for a signal's number."""
        self.process.join(5)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join(5)  # not for ever: one that waits for a dead network disk cannot even be killed
        return self.process.exitcode or 0


def _receive(worker: Worker, connection: Connection) -> None:
    """Pass on what a process answers until it ends; in a thread of its own."""
    if worker.pin is not None:
        torch.accelerator.set_device_index(worker.pin)  # of this thread
        torch.set_num_threads(1)
    with connection:
        while True:
            try:
                job, batch, error = connection.recv()
            except Exception as failure:
                lost = isinstance(failure, EOFError) or bool(wait([worker.process.sentinel], 1))
                worker.events.put((worker, connection, None if lost else (-1, None, failure)))
                return
            worker.events.put((worker, connection, (job, batch if worker.pin is None else pin_memory(batch), error)))


class Crew:
    """The workers of a loader.

    Args:
        duty: What they do.
        context: How processes are begun.
        pin: The accelerator whose pinned memory batches are put into; None for none.
    """

    def __init__(self, duty: Duty, context: Any, pin: int | None) -> None:  # noqa: ANN401
        self.pid = os.getpid()
        self.events: queue.SimpleQueue[tuple[Worker, Connection, Any]] = queue.SimpleQueue()
        self.workers = [Worker(number, duty, context, self.events, pin) for number in range(duty.workers)]

    def end(self) -> None:
        """End the processes; nothing in a process that was forked from the one that began them."""
        if os.getpid() == self.pid:
            for worker in self.workers:
                worker.dismiss()
            for worker in self.workers:
                worker.end()


def serve(connection: Connection, other_end: Connection, number: int, duty: Duty) -> None:
    """Answer jobs until there are no more; in a process of its own."""
    other_end.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the process that reads, which ends this one
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)  # by which only the process that reads may end it
    threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()
    threading.Thread(target=end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    seed = duty.seed + number
    random.seed(seed)
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    torch_worker._worker_info = torch_worker.WorkerInfo(
        id=number, num_workers=duty.workers, seed=seed, dataset=duty.dataset
    )
    if duty.memory_limit is not None:
        limit_memory(duty.memory_limit)
    begun = duty.begin is None
    while True:
        message = connection.recv()
        if message is None:
            return
        job, items, given_up = message
        try:
            if not begun and duty.begin is not None:
                duty.begin(number)
            begun = True
            for path, reason in given_up.items():
                duty.dataset.give_up(path, reason)
            batch = duty.collate([duty.dataset[i] for i in items] if duty.batched else duty.dataset[items])
            answer: Any = ForkingPickler.dumps((job, batch, None))
        except Exception as error:
            answer = _pickled(job, error)
        try:
            connection.send_bytes(answer)
        except OSError:  # nobody reads any more
            return


def _pickled(job: int, error: Exception) -> bytes:
    """Return an error as an answer, with where it was raised."""
    where = traceback.format_exc()
    error.__traceback__ = None
    for sent in (error, RuntimeError(where)):  # not every error can be sent
        sent.__cause__ = sent.__context__ = None
        with suppress(Exception):
            answer = pickle.dumps((job, where, sent))
            pickle.loads(answer)
            return answer
    raise AssertionError("a RuntimeError with a text can be sent")


def _end_when_told(parent: int) -> None:
    while signal.sigwaitinfo(STOP_SIGNALS).si_pid != parent:
        pass
    os._exit(0)
