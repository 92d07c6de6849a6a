"""Work on many files in processes that may hang, crash or take all memory, as decoders do on some broken files."""

import multiprocessing
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from typing import Any, NamedTuple

from clipbert_mm.errors import ClipBertError, WorkerError, quoted
from clipbert_mm.processes import end_with_parent, limit_memory

MEMORY = 2 * 2**30
"""Bytes of memory that one job may take."""


class Outcome(NamedTuple):
    """What became of a job.

    Args:
        job: The job.
        value: What the function returned; None if it did not.
        trouble: What happened instead; empty if it returned.
        timed_out: Whether that was the time limit.
    """

    job: Any
    value: Any = None
    trouble: str = ""
    timed_out: bool = False


def _serve(connection: Connection, memory: int) -> None:
    """Answer jobs until there are no more; in a process of its own."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the process that asked, which ends this one
    threading.Thread(target=end_with_parent, daemon=True).start()
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)  # decoders write there of every broken file, which its outcome names
    limit_memory(memory)
    connection.send(("ready", None))
    while True:
        try:
            function, job = connection.recv()
        except EOFError:
            return
        try:
            answer = ("value", function(job))
        except MemoryError:
            answer = ("trouble", f"it takes more than {memory / 2**30:.3g} GiB of memory")
        except (ClipBertError, OSError) as error:  # raised again in the process that asked, as what follows
            answer = ("error", error)
        except Exception:
            answer = ("defect", traceback.format_exc())
        connection.send(answer)


class _Worker:
    """A process and its job, whose time counts from when the process is ready for it."""

    def __init__(self, context: BaseContext, memory: int) -> None:
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, memory), daemon=True)  # type: ignore[attr-defined]
        self.process.start()
        theirs.close()
        self.ready = False
        self.busy = False
        self.job: Any = None
        self.since = 0.0

    def give(self, function: Callable[[Any], Any], job: object) -> None:
        self.job, self.busy, self.since = job, True, time.monotonic()
        self.connection.send((function, job))

    def seconds_left(self, timeout: float) -> float:
        return self.since + timeout - time.monotonic() if self.ready else timeout

    def end(self) -> str:
        """End the process, whatever it does, and say how it ended."""
        self.connection.close()
        self.process.join(1)  # one that crashed, or has nothing to do, is ending
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)  # not for ever: one that waits for a dead network disk cannot even be killed
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            return "signal SIGKILL, perhaps from the system for want of memory"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.end()


def run_each(
    function: Callable[[Any], Any], jobs: Iterable[Any], *, workers: int, timeout: float, memory: int = MEMORY
) -> Iterator[Outcome]:
    """Call a function on each job in processes of its own, in whatever order they are done.

    A process that hangs, crashes or takes too much memory costs its job, which is named; the others go on. No process outlives
    the one that called.

    Args:
        function: A function that can be imported by its name.
        jobs: What it is called with.
        workers: Number of processes.
        timeout: Seconds that one job may take.
        memory: Bytes of memory that one job may take.

    Yields:
        What became of each job.

    Raises:
        ClipBertError: If the function raises one, or an OSError; the same is raised here.
        WorkerError: If no process can be started.
        RuntimeError: If the function raises anything else, with its traceback.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([function.__module__])  # imported once for all processes
    todo = iter(jobs)
    crew: list[_Worker] = []
    try:
        for job in islice(todo, workers):
            crew.append(_Worker(context, memory))
            crew[-1].give(function, job)
        while busy := [worker for worker in crew if worker.busy]:
            wait([worker.connection for worker in busy], max(0.0, min(each.seconds_left(timeout) for each in busy)))
            for worker in busy:
                outcome = _look_at(worker, timeout)
                if outcome is None:
                    continue
                yield outcome
                worker.busy = False
                following = list(islice(todo, 1))
                if following and outcome.trouble:  # its process is gone
                    crew.remove(worker)
                    crew.append(_Worker(context, memory))
                if following:
                    next(each for each in crew if not each.busy).give(function, following[0])
    finally:
        for worker in crew:
            worker.kill()


def _look_at(worker: _Worker, timeout: float) -> Outcome | None:
    """Return what became of a worker's job; None if it is still at it."""
    if worker.connection.poll():
        try:
            kind, value = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            how = worker.end()
            if not worker.ready:
                raise WorkerError(f"A process could not be started: it ended with {how}.") from None
            return Outcome(worker.job, trouble=f"the decoder ended its process ({how})")
        if kind == "value":
            return Outcome(worker.job, value)
        if kind == "trouble":
            worker.kill()  # who knows what it still holds
            return Outcome(worker.job, trouble=value)
        if kind == "error":
            raise value
        if kind == "defect":
            raise RuntimeError(f"{quoted(worker.job)}: {value}")
        worker.ready, worker.since = True, time.monotonic()
    elif worker.ready and worker.seconds_left(timeout) <= 0:
        worker.kill()
        return Outcome(worker.job, trouble=f"it took longer than {timeout:g} seconds", timed_out=True)
    return None
