"""Loading data so that a run can go on in the middle of an epoch, and a worker that hangs or dies is named."""

import functools
import itertools
import math
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any

import torch
from torch.utils.data import DataLoader

from clipbert_mm.errors import WorkerError

HANG_SECONDS = 600
"""How long a batch may take; a dataloader's ``timeout`` of the config stands before it."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""By which a cluster gives notice that it is going to end a job."""


class WatchedLoader(DataLoader):
    """A dataloader that can begin in the middle of an epoch and names the file at which a worker hung or died.

    It draws nothing from the process's random generator. Its workers are deaf to the signals by which a cluster gives notice,
    which may reach all processes of a job: the training still needs them for its last step.

    Args:
        loader: What to do; workers that take longer than its ``timeout`` seconds for a batch are taken for hung.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.skipped = 0
        self.hang_seconds = loader.timeout or HANG_SECONDS  # torch's own timeout does not see all hangs
        batches: dict[str, Any] = dict(batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last)
        if loader.batch_size is None:
            batches = dict(batch_sampler=loader.batch_sampler)
        super().__init__(
            loader.dataset,
            **batches,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=functools.partial(_begin_worker, loader.worker_init_fn),
            multiprocessing_context=loader.multiprocessing_context,
            # Of its own: how often a loader is begun differs between a run that was cut and one that was not.
            generator=loader.generator or torch.Generator(),
            prefetch_factor=loader.prefetch_factor,
            persistent_workers=loader.persistent_workers,
        )

    def skip(self, batches: int) -> None:
        """Let the next pass begin after some batches, whose items are not loaded."""
        self.skipped = batches

    @property
    def _index_sampler(self) -> Any:  # noqa: ANN401
        return _Rest(self, super()._index_sampler)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yield the batches.

        Raises:
            WorkerError: If a worker hung or died: at which file it was.
        """
        batches = super().__iter__()
        self.skipped = 0
        workers = getattr(batches, "_workers", ())
        with _Watch(self, workers) as watch:
            while True:
                try:
                    with watch.waiting():
                        batch = next(batches)
                except StopIteration:
                    return
                except (EOFError, OSError, RuntimeError) as error:
                    exits = {worker.pid: worker.exitcode for worker in workers if worker.exitcode}
                    text = str(error)
                    if exits and isinstance(error, (EOFError, OSError)):  # it ended while it handed something over
                        text = f"worker (pid {', '.join(map(str, exits))}) ended"
                    explained = watch.hung or self.explain(text, exits)
                    if explained is None:
                        raise
                    end(workers)
                    raise WorkerError(explained) from error
                yield batch

    def loading(self) -> list[Any]:
        """Return what its workers are at, where the dataset says it."""
        return self.dataset.loading() if hasattr(self.dataset, "loading") else []

    def explain(self, text: str, exits: Mapping[int, int] = MappingProxyType({})) -> str | None:
        """Say what became of a worker.

        Args:
            text: Torch's word on it.
            exits: The exit status of workers that ended, by process, as far as it is known.

        Returns:
            The words; None if torch's are on something else.
        """
        died = re.search(r"worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", text)
        if died is None:
            return None
        pids = {int(pid) for pid in died[1].split(",")}
        at = ", ".join(each.path for each in self.loading() if each.pid in pids) or "no file"
        signals = [signal.Signals(-exits[pid]).name for pid in pids if exits.get(pid, 0) < 0]
        fate = f"ended by {', '.join(signals)}" if signals else died[2].split(". ")[0].rstrip(". ")
        advice = (
            "The machine or the job may be out of memory: lower num_workers, prefetch_factor or batch_size of the dataloader."
            if "SIGKILL" in fate or "Killed" in fate
            else "The decoder may have crashed at that file: take it out (tools/analysis_tools/scan_videos.py finds such)."
        )
        return f"A worker of the dataloader (process {died[1]}) died at {at}: {fate}. {advice}"


class _Watch:
    """Looks, from a thread, how long a batch takes, and ends the workers if it takes too long.

    The process that waits for them may wait in many places (for a batch, for the memory that a worker shares with it), and
    leaves each when they end.

    Args:
        loader: The loader.
        workers: Its workers; without any, nothing is watched.
        hung: What is to be said of them, once it took too long.
    """

    def __init__(self, loader: WatchedLoader, workers: Sequence[Any]) -> None:
        self.loader, self.workers = loader, workers
        self.hung: str | None = None
        self.deadline = math.inf
        self.over = threading.Event()

    def __enter__(self) -> "_Watch":
        if self.workers:
            threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.over.set()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Say that the block waits for a batch."""
        self.deadline = time.monotonic() + self.loader.hang_seconds
        try:
            yield
        finally:
            self.deadline = math.inf

    def _look(self) -> None:
        while not self.over.wait(min(1.0, self.loader.hang_seconds / 4)):
            if time.monotonic() > self.deadline:
                at = "".join(
                    f"\n  {each.path}: {each.seconds:.0f} s (process {each.pid})" for each in self.loader.loading()
                )
                at = at or "\n  none is at a file"
                self.hung = (
                    f"No batch came in {self.loader.hang_seconds:g} s: a worker of the dataloader hangs. What its workers are "
                    f"at:{at}\nTake the file out (tools/analysis_tools/scan_videos.py finds such), or raise `timeout` of the "
                    "dataloader."
                )
                for worker in self.workers:
                    worker.kill()
                return


def end(workers: Sequence[Any]) -> None:
    """End workers that do not end by themselves and would be waited for."""
    for worker in workers:
        ended = False
        while not ended:  # torch raises wherever this process is when a child ends, until that child was waited for
            with suppress(RuntimeError):
                worker.kill()
                worker.join()
                ended = True


class _Rest:
    """The batches of a pass, without those that are skipped the first time."""

    def __init__(self, loader: WatchedLoader, batches: Any) -> None:  # noqa: ANN401
        self.loader = loader
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        return itertools.islice(iter(self.batches), self.loader.skipped, None)


def _begin_worker(begin: Callable[[int], None] | None, worker: int) -> None:
    """Let only the process that reads from this worker end it by a signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    if begin is not None:
        begin(worker)


def _end_with(parent: int) -> None:
    while signal.sigwaitinfo(STOP_SIGNALS).si_pid != parent:
        pass
    os._exit(0)
