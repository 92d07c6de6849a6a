"""Loading data so that a run can go on in the middle of an epoch, and a file that hangs or crashes its decoder is named."""

import itertools
import multiprocessing
import queue
import re
import signal
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader, IterableDataset

from clipbert_mm.engine.loader_workers import Crew, Duty, RemoteTraceback, Worker
from clipbert_mm.errors import WorkerError, printable
from clipbert_mm.processes import SHARED_MEMORY_IS_FULL

HANG_SECONDS = 600
"""How long a file may take; a dataloader's ``timeout`` of the config stands before it."""
SECOND_TRIES = 3
"""Ends of workers at no file in one pass that are borne before the pass is given up."""
NO_SHARED_MEMORY = re.compile(r"shared memory|\bshm\b|/torch_\d+")
"""How torch says that the memory is full by which workers hand over batches."""


class WatchedLoader(DataLoader):
    """A dataloader that can begin in the middle of an epoch, and whose workers may hang and crash.

    A worker that takes longer than ``timeout`` seconds for a file, or ends at it, is replaced. Its dataset's
    ``give_up(path, reason)`` says whether to go on without that file; else, and where the dataset has no such method, a
    WorkerError names it. A worker that was killed from outside, as the kernel does when memory ends, or ended between files,
    begins its work once more; the second time, the file is taken for the cause.

    Nothing is drawn from the process's random generator. Workers are deaf to the signals by which a cluster gives notice, which
    may reach all processes of a job: the training still needs them for its last step.

    Args:
        loader: What to do.
        items: The items to load, in this order, instead of the loader's; None for the loader's.
        memory_limit: Bytes that a worker may take beyond what it begins with; None for no limit.
        warn: Is told of each worker that is replaced; None for nobody.
    """

    def __init__(
        self,
        loader: DataLoader,
        items: Sequence[int] | None = None,
        *,
        memory_limit: int | None = None,
        warn: Callable[[str], None] | None = None,
    ) -> None:
        self.skipped = 0
        self.memory_limit = memory_limit
        self.warn = warn or getattr(loader, "warn", None)
        self.hang_seconds: float = getattr(loader, "hang_seconds", None) or loader.timeout or HANG_SECONDS
        self.given_up: dict[str, str] = {}
        self._crew: Crew | None = None
        batches: dict[str, Any] = dict(batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last)
        if items is not None:
            batches |= dict(batch_size=loader.batch_size or 1, sampler=items, drop_last=False)
        elif loader.batch_size is None and loader.batch_sampler is not None:
            batches = dict(batch_sampler=loader.batch_sampler)
        super().__init__(
            loader.dataset,
            **batches,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            # Of its own: how often a loader is begun differs between a run that was cut and one that was not.
            generator=loader.generator or torch.Generator(),
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    def skip(self, batches: int) -> None:
        """Let the next pass begin after some batches, whose items are not loaded."""
        self.skipped = batches

    def loading(self) -> dict[int, Any]:
        """Return what each process is at, where the dataset says it."""
        return self.dataset.loading() if hasattr(self.dataset, "loading") else {}

    @property
    def _index_sampler(self) -> Any:  # noqa: ANN401
        return _Rest(self, super()._index_sampler)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches.

        Raises:
            WorkerError: If a worker hung or ended, and the dataset does not go on without the file it was at.
        """
        if self.num_workers == 0 or isinstance(self.dataset, IterableDataset):
            batches = super().__iter__()
            self.skipped = 0
            yield from batches
            return
        order = iter(self._index_sampler)
        self.skipped = 0
        crew, self._crew = self._crew or self._begin(), None
        try:
            yield from _Pass(self, crew, order)
            if self.persistent_workers:
                self._crew = crew
        finally:
            if self._crew is not crew:
                crew.end()

    def _begin(self) -> Crew:
        """Begin the processes."""
        duty = Duty(
            dataset=self.dataset,
            collate=self.collate_fn,
            batched=self.batch_sampler is not None,
            begin=self.worker_init_fn,
            workers=self.num_workers,
            seed=int(torch.empty((), dtype=torch.int64).random_(generator=self.generator)),
            memory_limit=self.memory_limit,
        )
        context = self.multiprocessing_context or multiprocessing.get_context()
        pin = torch.accelerator.current_device_index() if self.pin_memory and torch.accelerator.is_available() else None
        crew = Crew(duty, context, pin)
        if self.persistent_workers:
            weakref.finalize(self, crew.end)
        return crew


class _Pass:
    """One pass over the batches, in order, with workers that may hang and crash.

    Args:
        loader: The loader.
        crew: Its workers, none of which has anything to do yet.
        order: The items of each batch.
    """

    def __init__(self, loader: WatchedLoader, crew: Crew, order: Iterator[Any]) -> None:
        self.loader, self.crew, self.order = loader, crew, order
        self.given = 0
        self.ready: dict[int, tuple[Worker, Any, Exception | None]] = {}
        self.second_tries = 0
        self.suspects: set[str] = set()  # files at which a worker was killed, or after which it ended

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.loader.prefetch_factor or 2):
            for worker in self.crew.workers:
                self._give(worker)
        job = 0
        while job < self.given:
            while job not in self.ready:
                self._wait()
            worker, batch, error = self.ready.pop(job)
            if error is not None:
                raise _explained(error) from RemoteTraceback(batch)
            job += 1
            self._give(worker)
            yield batch

    def _give(self, worker: Worker) -> None:
        for items in itertools.islice(self.order, 1):
            worker.give(self.given, items, self.loader.given_up)
            self.given += 1

    def _wait(self) -> None:
        """Take what the next worker has to say, or see whether one hangs."""
        try:
            worker, connection, answer = self.crew.events.get(timeout=min(0.5, self.loader.hang_seconds / 4))
        except queue.Empty:
            self._look()
            return
        if connection is not worker.connection:
            return  # of a process that was replaced
        if answer is None:
            self._ended(worker)
            return
        job, batch, error = answer
        if job < 0:
            raise error
        worker.answered()
        self.ready[job] = worker, batch, error

    def _look(self) -> None:
        """Replace workers that take too long for a file, or to begin one, or ended unheard."""
        at = self.loader.loading()
        for worker in self.crew.workers:
            if worker.process.exitcode is not None:
                self._ended(worker)
            elif worker.owed:
                seconds = time.monotonic() - worker.since
                if worker.process.pid in at:
                    seconds = min(seconds, at[worker.process.pid].seconds)
                if seconds > self.loader.hang_seconds:
                    worker.process.kill()
                    self._ended(worker, hung=True)

    def _ended(self, worker: Worker, hung: bool = False) -> None:
        """Start a worker again that hung or ended, without the file it was at if it is the file's fault.

        Raises:
            WorkerError: If the dataset does not go on without that file, or it is no file's fault time and again.
        """
        pid = worker.process.pid
        at = self.loader.loading().get(pid)
        path = at.path if at is not None and worker.owed else ""
        busy = at is not None and at.busy
        code = worker.end()
        reason = f"it took longer than {self.loader.hang_seconds:g} s" if hung else _how(code)
        give_up = getattr(self.loader.dataset, "give_up", None)
        certain = busy and (hung or code != -signal.SIGKILL)
        if path and (certain or path in self.suspects):
            known = path in self.loader.given_up  # another worker was at it too
            goes_on = path not in worker.knew and (known or (give_up is not None and give_up(path, reason)))
            self.loader.given_up[path] = reason
        elif path:
            self.suspects.add(path)
            goes_on = give_up is not None
        else:
            self.second_tries += 1
            goes_on = give_up is not None and self.second_tries <= SECOND_TRIES
        where = f"{'at' if busy else 'after'} {printable(path)}" if path else "at no file"
        what = f"A worker of the dataloader (process {pid}) {'hangs' if hung else 'died'} {where}"
        if not goes_on:
            raise WorkerError(f"{what}: {reason}. {_advice(code, hung, path)}")
        if self.loader.warn is not None:
            without = "goes on without it" if path in self.loader.given_up else "begins again"
            self.loader.warn(f"{what}: {reason}. Another one {without}.")
        worker.start_again(self.loader.given_up)


def _how(code: int) -> str:
    """Say how a process ended."""
    if code == -signal.SIGKILL:
        return "it was killed (SIGKILL), as the kernel does when memory ends"
    return f"the decoder ended its process ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


def _advice(code: int, hung: bool, path: str) -> str:
    """Say what to do about a worker that hung or ended."""
    if hung:
        return (
            "Take the file out (tools/analysis_tools/scan_videos.py finds such), or raise `timeout` of the dataloader; testing "
            "goes on without it where the dataset has on_broken='skip'."
        )
    if code == -signal.SIGKILL:
        return "The job may be out of memory: lower num_workers, prefetch_factor or batch_size of the dataloader."
    if code == -signal.SIGBUS and not path:
        return SHARED_MEMORY_IS_FULL
    return (
        "Take the file out (tools/analysis_tools/scan_videos.py finds such); testing goes on without it where the dataset has "
        "on_broken='skip'."
    )


def _explained(error: Exception) -> Exception:
    """Return a worker's error; one of torch's on shared memory in words that say what to do."""
    if type(error) in (RuntimeError, OSError) and NO_SHARED_MEMORY.search(str(error)):
        return WorkerError(f"A worker of the dataloader cannot hand over its batch. {SHARED_MEMORY_IS_FULL}")
    return error


class _Rest:
    """The batches of a pass, without those that are skipped the first time."""

    def __init__(self, loader: WatchedLoader, batches: Any) -> None:  # noqa: ANN401
        self.loader = loader
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.batches), self.loader.skipped, None)
