"""What a loader with its own worker processes and numbered draws needs of torch and of MMEngine's forks.

For torch 2.6 to 2.14: nothing public says in a worker which one it is, or pins the memory of a whole batch.
"""

from typing import Any

from torch.utils.data._utils import worker
from torch.utils.data._utils.pin_memory import pin_memory

__all__ = ["pin_memory", "set_worker_info", "skip_in_loader"]


def set_worker_info(number: int, num_workers: int, seed: int, dataset: Any) -> None:  # noqa: ANN401
    """Let ``torch.utils.data.get_worker_info()`` describe this process as a worker of a loader.

    Args:
        number: The worker's number, from 0.
        num_workers: Number of workers.
        seed: Seed of this worker.
        dataset: The worker's dataset.
    """
    worker._worker_info = worker.WorkerInfo(id=number, num_workers=num_workers, seed=seed, dataset=dataset)


def skip_in_loader(loader: Any) -> None:  # noqa: ANN401
    """Let what a resumed loop skips be skipped by the loader, which numbers the draws of the items.

    For onedl-mmengine 0.10.12, whose IterBasedTrainLoop skips in a sampler that has ``skip``, as its InfiniteSampler does, so
    that the numbers of the draws would begin anew. MMEngine's loop reads and drops the batches.

    Args:
        loader: A loader with ``skip(batches)``.
    """
    if hasattr(loader.sampler, "skip"):
        loader.sampler.skip = lambda items: loader.skip(items // loader.batch_size)
