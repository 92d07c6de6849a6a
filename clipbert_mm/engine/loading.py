"""Loading data so that a run can go on in the middle of an epoch, and a worker that hangs or dies is named."""

import functools
import itertools
import re
import signal
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

HANG_SECONDS = 600
"""How long a batch may take; a dataloader's ``timeout`` of the config stands before it."""
STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""By which a cluster gives notice that it is going to end a job."""


class WorkerError(RuntimeError):
    """A worker that hung or died."""


class WatchedLoader(DataLoader):
    """A dataloader that can begin in the middle of an epoch and names the file at which a worker hung or died.

    It draws nothing from the process's random generator. Its workers are deaf to the signals by which a cluster gives notice,
    which may reach all processes of a job: the training still needs them for its last step.

    Args:
        loader: What to do; workers that take longer than its ``timeout`` seconds for a batch are taken for hung.
    """

    def __init__(self, loader: DataLoader) -> None:
        self.skipped = 0
        batches: dict[str, Any] = dict(batch_size=loader.batch_size, sampler=loader.sampler, drop_last=loader.drop_last)
        if loader.batch_size is None:
            batches = dict(batch_sampler=loader.batch_sampler)
        super().__init__(
            loader.dataset,
            **batches,
            num_workers=loader.num_workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=(loader.timeout or HANG_SECONDS) if loader.num_workers else 0,
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
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                explained = self._explain(str(error))
                if explained is None:
                    raise
                for worker in getattr(batches, "_workers", ()):
                    worker.kill()  # one that hangs does not end by itself, and this process would wait for it
                raise WorkerError(explained) from error
            yield batch

    def _explain(self, text: str) -> str | None:
        """Say what became of a worker by torch's word on it; None if the word is on something else."""
        loading = self.dataset.loading() if hasattr(self.dataset, "loading") else []
        if "timed out" in text:
            at = "".join(f"\n  {each.path}: {each.seconds:.0f} s (process {each.pid})" for each in loading)
            return (
                f"No batch came in {self.timeout:g} s: a worker of the dataloader hangs. What its workers are at:{at}\nTake "
                "the file out (tools/analysis_tools/scan_videos.py finds such), or raise `timeout` of the dataloader."
            )
        died = re.search(r"worker \(pid(?:\(s\))? ([\d, ]+)\) (.*)", text)
        if died is None:
            return None
        pids = {int(pid) for pid in died[1].split(",")}
        at = ", ".join(each.path for each in loading if each.pid in pids) or "no file"
        advice = (
            " The machine or the job may be out of memory: lower num_workers, prefetch_factor or batch_size of the dataloader."
            if "Killed" in died[2] or "unexpectedly" in died[2]
            else " The decoder may have crashed at that file: take it out (tools/analysis_tools/scan_videos.py finds such)."
        )
        return f"A worker of the dataloader (process {died[1]}) died at {at}: {died[2].split('. ')[0].rstrip('. ')}.{advice}"


class _Rest:
    """The batches of a pass, without those that are skipped the first time."""

    def __init__(self, loader: WatchedLoader, batches: Any) -> None:  # noqa: ANN401
        self.loader = loader
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Any]:
        skipped, self.loader.skipped = self.loader.skipped, 0
        return itertools.islice(iter(self.batches), skipped, None)


def _begin_worker(begin: Callable[[int], None] | None, worker: int) -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    if begin is not None:
        begin(worker)
