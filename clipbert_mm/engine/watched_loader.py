"""A dataloader that can start in the middle of an epoch and names the file at which a worker hung or crashed."""

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
from mmengine.dist import get_world_size
from torch.utils.data import DataLoader, IterableDataset

from clipbert_mm.compat.data_loading import pin_memory, skip_in_loader
from clipbert_mm.datasets.wrappers import can_give_up, give_up, loading
from clipbert_mm.engine.loader_workers import RemoteTraceback, Worker, WorkerConfig, WorkerPool
from clipbert_mm.errors import WorkerError, printable
from clipbert_mm.processes import SHARED_MEMORY_IS_FULL

HANG_SECONDS = 600
"""Seconds that a file may take where the dataloader's ``timeout`` is not set."""
MAX_RESTARTS = 3
"""How many workers that ended at no file are restarted in one pass."""
NO_SHARED_MEMORY = re.compile(r"shared memory|\bshm\b|/torch_\d+")
"""How torch's errors say that the shared memory, by which workers hand over batches, is full."""


class WatchedLoader(DataLoader):
    """A dataloader that can start in the middle of an epoch, and that survives workers that hang or crash.

    A worker that takes longer than ``timeout`` seconds for a file, or that ends at it, is replaced. The dataset's
    ``give_up(path, reason)`` decides whether to continue without that file; if not, or if the dataset has no such method, a
    WorkerError names the file. A worker that was killed from outside, as the kernel does out of memory, or that ended between
    files, is restarted with the same jobs; if that happens again at the same file, the file counts as the cause.

    Nothing is drawn from the process's random generator. Workers ignore the signals by which a cluster announces the end of a
    job and which may reach all its processes: the training still needs the workers for its last step.

    Args:
        loader: The dataloader whose settings to take.
        items: Indices of the items to load, in this order, instead of the loader's; None for the loader's.
        memory_limit: Bytes that a worker may take beyond those at its start; None for no limit.
        warn: Called with a message for each worker that is replaced; None for nothing.
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
        self.passes: int | None = None
        self.memory_limit = memory_limit
        self.warn = warn or getattr(loader, "warn", None)
        self.hang_seconds: float = getattr(loader, "hang_seconds", None) or loader.timeout or HANG_SECONDS
        self.given_up: dict[str, str] = {}
        self._pool: WorkerPool | None = None
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
            # Its own generator, since a resumed run starts a loader more often than a run that was not cut.
            generator=loader.generator or torch.Generator(),
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    def skip(self, batches: int, passes: int = 0) -> None:
        """Start the next pass after some batches, whose items are not loaded.

        Args:
            batches: Batches of the pass to leave out.
            passes: Passes that there were before, if they are counted.
        """
        self.skipped = batches
        if self.passes is not None:
            self.passes = passes

    def count_passes(self) -> None:
        """Draw the items of each pass anew, from the next one on, as in an epoch of its own."""
        self.passes = 0
        skip_in_loader(self)

    def loading(self) -> dict[int, Any]:
        """Return what each process reads, by process id, if the dataset can tell."""
        return loading(self.dataset)

    @property
    def _index_sampler(self) -> Any:  # noqa: ANN401
        return _SkippingSampler(self, super()._index_sampler)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches.

        Raises:
            WorkerError: If a worker hung or ended, and the dataset does not continue without the file it read.
        """
        if isinstance(self.dataset, IterableDataset):
            batches = super().__iter__()
            self.skipped = 0
            yield from batches
            return
        order = iter(self._index_sampler)
        self.skipped = 0
        if self.passes is not None:
            self.passes += 1
        if self.num_workers == 0:
            config, pins = self._worker_config(), self._pinned_device() is not None
            for items in order:
                yield pin_memory(config.load(items)) if pins else config.load(items)
            return
        pool, self._pool = self._pool or self._start_workers(), None
        try:
            yield from _Pass(self, pool, order)
            if self.persistent_workers:
                self._pool = pool
        finally:
            if self._pool is not pool:
                pool.close()

    def _worker_config(self) -> WorkerConfig:
        return WorkerConfig(
            dataset=self.dataset,
            collate=self.collate_fn,
            batched=self.batch_sampler is not None,
            init=self.worker_init_fn,
            num_workers=self.num_workers,
            seed=int(torch.empty((), dtype=torch.int64).random_(generator=self.generator)),
            memory_limit=self.memory_limit,
        )

    def _pinned_device(self) -> int | None:
        """Return the index of the accelerator whose pinned memory batches are copied to; None for none."""
        if self.pin_memory and torch.accelerator.is_available():
            return torch.accelerator.current_device_index()
        return None

    def _start_workers(self) -> WorkerPool:
        context = self.multiprocessing_context or multiprocessing.get_context()
        pool = WorkerPool(self._worker_config(), context, self._pinned_device())
        if self.persistent_workers:
            weakref.finalize(self, pool.close)
        return pool


class _Pass:
    """One pass over the batches, in order, with workers that may hang and crash.

    Args:
        loader: The loader.
        pool: Its workers, without jobs.
        order: The items of each batch.
    """

    def __init__(self, loader: WatchedLoader, pool: WorkerPool, order: Iterator[Any]) -> None:
        self.loader, self.pool, self.order = loader, pool, order
        self.submitted = 0
        self.ready: dict[int, tuple[Worker, Any, Exception | None]] = {}
        self.restarts = 0
        self.suspects: set[str] = set()  # files at which a worker was killed, or after which it ended

    def __iter__(self) -> Iterator[Any]:
        for _ in range(self.loader.prefetch_factor or 2):
            for worker in self.pool.workers:
                self._submit(worker)
        job = 0
        while job < self.submitted:
            while job not in self.ready:
                self._wait()
            worker, batch, error = self.ready.pop(job)
            if error is not None:
                raise _explain(error) from RemoteTraceback(batch)
            job += 1
            self._submit(worker)
            yield batch

    def _submit(self, worker: Worker) -> None:
        for items in itertools.islice(self.order, 1):
            worker.submit(self.submitted, items, self.loader.given_up)
            self.submitted += 1

    def _wait(self) -> None:
        """Take the next answer of a worker, or check whether one hangs."""
        try:
            worker, connection, answer = self.pool.events.get(timeout=min(0.5, self.loader.hang_seconds / 4))
        except queue.Empty:
            self._check_workers()
            return
        if connection is not worker.connection:
            return  # of a process that was replaced
        if answer is None:
            self._replace(worker)
            return
        job, batch, error = answer
        if job < 0:
            raise error
        worker.mark_done()
        self.ready[job] = worker, batch, error

    def _check_workers(self) -> None:
        """Replace workers that take too long for a file, or to begin one, or that ended without an event."""
        status = self.loader.loading()
        for worker in self.pool.workers:
            if worker.process.exitcode is not None:
                self._replace(worker)
            elif worker.pending:
                seconds = time.monotonic() - worker.since
                if worker.process.pid in status:
                    seconds = min(seconds, status[worker.process.pid].seconds)
                if seconds > self.loader.hang_seconds:
                    worker.process.kill()
                    self._replace(worker, hung=True)

    def _replace(self, worker: Worker, hung: bool = False) -> None:
        """Restart a worker that hung or ended; without the file it read, if the file is the cause.

        Raises:
            WorkerError: If the dataset does not continue without that file, or workers ended at no file too often.
        """
        pid = worker.process.pid
        status = self.loader.loading().get(pid)
        path = status.path if status is not None and worker.pending else ""
        busy = status is not None and status.busy
        code = worker.join()
        reason = f"it took longer than {self.loader.hang_seconds:g} s" if hung else _describe_exit(code)
        may_continue = can_give_up(self.loader.dataset)
        certain = busy and (hung or code != -signal.SIGKILL)
        if path and (certain or path in self.suspects):
            known = path in self.loader.given_up  # another worker read it too
            continues = path not in worker.excluded_at_start and (
                known or (may_continue and give_up(self.loader.dataset, path, reason))
            )
            self.loader.given_up[path] = reason
        elif path:
            self.suspects.add(path)
            continues = may_continue
        else:
            self.restarts += 1
            continues = may_continue and self.restarts <= MAX_RESTARTS
        where = f"{'at' if busy else 'after'} {printable(path)}" if path else "at no file"
        event = f"A worker of the dataloader (process {pid}) {'hangs' if hung else 'died'} {where}"
        if not continues:
            raise WorkerError(f"{event}: {reason}. {_advice(code, hung, path)}")
        if self.loader.warn is not None:
            action = "without that file" if path in self.loader.given_up else "with the same items"
            self.loader.warn(f"{event}: {reason}. A new worker continues {action}.")
        worker.restart(self.loader.given_up)


def _describe_exit(code: int) -> str:
    """Say how a process ended."""
    if code == -signal.SIGKILL:
        return "it was killed (SIGKILL), as the kernel does out of memory"
    return f"the decoder ended its process ({signal.Signals(-code).name if code < 0 else f'exit code {code}'})"


def _advice(code: int, hung: bool, path: str) -> str:
    """Say what to do about a worker that hung or ended."""
    if hung:
        return (
            "Remove the file (tools/analysis_tools/scan_videos.py finds such), or raise `timeout` of the dataloader; testing "
            "continues without it where the dataset has on_broken='skip'."
        )
    if code == -signal.SIGKILL:
        return "The job may be out of memory: lower num_workers, prefetch_factor or batch_size of the dataloader."
    if code == -signal.SIGBUS and not path:
        return SHARED_MEMORY_IS_FULL
    return (
        "Remove the file (tools/analysis_tools/scan_videos.py finds such); testing continues without it where the dataset has "
        "on_broken='skip'."
    )


def _explain(error: Exception) -> Exception:
    """Return a worker's error; one of torch's about shared memory says what to do."""
    if type(error) in (RuntimeError, OSError) and NO_SHARED_MEMORY.search(str(error)):
        return WorkerError(f"A worker of the dataloader cannot hand over its batch. {SHARED_MEMORY_IS_FULL}")
    return error


class _SkippingSampler:
    """The batches of a pass, without those that are skipped at its start; items by the numbers of their draws.

    The number is the index, if passes are not counted. A sampler that ends with a pass over the dataset has one pass; one that
    never ends begins another after as many items as the dataset has.
    """

    def __init__(self, loader: WatchedLoader, batches: Any) -> None:  # noqa: ANN401
        self.loader = loader
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        batches = self.batches if self.loader.passes is None else self._numbered(self.loader.passes)
        return itertools.islice(iter(batches), self.loader.skipped, None)

    def _numbered(self, passes: int) -> Iterator[Any]:
        size, drawn = len(self.loader.dataset), 0  # type: ignore[arg-type]
        for items in self.batches:
            numbers = []
            for index in items if self.loader.batch_sampler is not None else [items]:
                numbers.append(index + (passes + drawn * get_world_size() // size) * size)
                drawn += 1
            yield numbers if self.loader.batch_sampler is not None else numbers[0]
