"""Isolated worker processes for reading files: decoders may hang, crash or use up memory on broken files."""

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

from clipbert_mm.errors import BrokenMediaError, ClipBertError, WorkerError, quoted
from clipbert_mm.processes import end_with_parent, limit_memory

MEMORY = 2 * 2**30
"""Bytes of memory that one job of many may take."""
MEMORY_OF_ONE = 2**30
"""Bytes of memory that a single job may take."""


class Outcome(NamedTuple):
    """The outcome of a job.

    Args:
        job: The job.
        value: The return value of the function; None if it did not return.
        failure: Why it did not return; empty if it did.
        timed_out: Whether the time limit was the reason.
    """

    job: Any
    value: Any = None
    failure: str = ""
    timed_out: bool = False


def _serve(connection: Connection, function: Callable[[Any], Any], memory: int) -> None:
    """Run jobs until the connection is closed; the main function of a worker process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the parent process, which ends this one
    threading.Thread(target=end_with_parent, daemon=True).start()
    with open(os.devnull, "w") as null:
        os.dup2(null.fileno(), 2)  # decoders print about every broken file, which the outcome names anyway
    limit_memory(memory)
    connection.send(("ready", None))
    while True:
        try:
            job = connection.recv()
        except EOFError:
            return
        try:
            answer = ("result", function(job))
        except MemoryError:
            answer = ("failure", f"it needs more than {memory / 2**30:.3g} GiB of memory")
        except (ClipBertError, OSError) as error:  # the parent process raises it again, like the next ones
            answer = ("error", error)
        except Exception:
            answer = ("bug", traceback.format_exc())
        connection.send(answer)


class _Worker:
    """A worker process and its job. The time of a job counts from when the process is ready."""

    def __init__(self, context: BaseContext, function: Callable[[Any], Any], memory: int) -> None:
        self.connection, child_connection = context.Pipe()
        self.process = context.Process(target=_serve, args=(child_connection, function, memory), daemon=True)  # type: ignore[attr-defined]
        self.process.start()
        child_connection.close()
        self.ready = False
        self.busy = False
        self.job: Any = None
        self.since = 0.0

    def start_job(self, job: object) -> None:
        self.job, self.busy, self.since = job, True, time.monotonic()
        self.connection.send(job)

    def seconds_left(self, timeout: float) -> float:
        return self.since + timeout - time.monotonic() if self.ready else timeout

    def stop(self) -> str:
        """End the process, whatever it does; return how it ended."""
        self.connection.close()
        self.process.join(1)  # one that crashed, or has nothing to do, is ending
        if self.process.is_alive():
            self.process.kill()
            self.process.join(5)  # with a limit: a process that waits for a dead network disk cannot be killed
        code = self.process.exitcode or 0
        if code == -signal.SIGKILL:
            return "signal SIGKILL, perhaps from the system, which was out of memory"
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"

    def kill(self) -> None:
        """End the process at once."""
        self.process.kill()
        self.stop()


def run_each(
    function: Callable[[Any], Any], jobs: Iterable[Any], *, workers: int, timeout: float, memory: int = MEMORY
) -> Iterator[Outcome]:
    """Call a function on each job in isolated worker processes.

    If a process hangs, crashes or takes too much memory, its job fails and the others continue. No process outlives the caller.

    Args:
        function: A function that can be imported by its name.
        jobs: Its arguments, one per call.
        workers: Number of processes.
        timeout: Seconds that one job may take.
        memory: Bytes of memory that one job may take.

    Yields:
        The outcome of each job, in the order in which they end.

    Raises:
        ClipBertError: If the function raises one; an OSError is passed on, too.
        WorkerError: If no process can be started.
        RuntimeError: If the function raises any other exception; the message has its traceback.
    """
    methods = multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([function.__module__])  # imported once for all processes
    remaining = iter(jobs)
    pool: list[_Worker] = []
    try:
        for job in islice(remaining, workers):
            pool.append(_Worker(context, function, memory))
            pool[-1].start_job(job)
        while busy := [worker for worker in pool if worker.busy]:
            wait([worker.connection for worker in busy], max(0.0, min(each.seconds_left(timeout) for each in busy)))
            for worker in busy:
                outcome = _poll(worker, timeout)
                if outcome is None:
                    continue
                yield outcome
                worker.busy = False
                next_jobs = list(islice(remaining, 1))
                if next_jobs and outcome.failure:  # its process has ended
                    pool.remove(worker)
                    pool.append(_Worker(context, function, memory))
                if next_jobs:
                    next(each for each in pool if not each.busy).start_job(next_jobs[0])
    finally:
        for worker in pool:
            worker.kill()


def run_isolated(function: Callable[[Any], Any], job: tuple[Any, ...], timeout: float) -> Any:  # noqa: ANN401
    """Call a function on a file in an isolated process.

    Args:
        function: A function that can be imported by its name.
        job: Its argument, a tuple that begins with the path of the file.
        timeout: Seconds that it may take.

    Raises:
        BrokenMediaError: If the function raises it, or the process crashes, hangs or takes too much memory.
    """
    (outcome,) = run_each(function, [job], workers=1, timeout=timeout, memory=MEMORY_OF_ONE)
    if outcome.failure:
        raise BrokenMediaError(job[0], outcome.failure)
    return outcome.value


def _poll(worker: _Worker, timeout: float) -> Outcome | None:
    """Return the outcome of a worker's job; None while it runs."""
    if worker.connection.poll():
        try:
            kind, value = worker.connection.recv()
        except (EOFError, ConnectionResetError):
            how = worker.stop()
            if not worker.ready:
                raise WorkerError(f"A process could not be started: it ended with {how}.") from None
            return Outcome(worker.job, failure=f"the decoder ended its process ({how})")
        if kind == "result":
            return Outcome(worker.job, value)
        if kind == "failure":
            worker.kill()  # its memory may be exhausted
            return Outcome(worker.job, failure=value)
        if kind == "error":
            raise value
        if kind == "bug":
            raise RuntimeError(f"{quoted(worker.job)}: {value}")
        worker.ready, worker.since = True, time.monotonic()
    elif worker.ready and worker.seconds_left(timeout) <= 0:
        worker.kill()
        return Outcome(worker.job, failure=f"it took longer than {timeout:g} seconds", timed_out=True)
    return None
