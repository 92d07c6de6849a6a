"""Parts of torch's DataLoader that a loader with its own worker processes needs, and that torch keeps private.

For torch 2.6 to 2.14: nothing public says in a worker which one it is, or pins the memory of a whole batch.
"""

from typing import Any

from torch.utils.data._utils import worker
from torch.utils.data._utils.pin_memory import pin_memory

__all__ = ["pin_memory", "set_worker_info"]


def set_worker_info(number: int, num_workers: int, seed: int, dataset: Any) -> None:  # noqa: ANN401
    """Let ``torch.utils.data.get_worker_info()`` describe this process as a worker of a loader.

    Args:
        number: The worker's number, from 0.
        num_workers: Number of workers.
        seed: Seed of this worker.
        dataset: The worker's dataset.
    """
    worker._worker_info = worker.WorkerInfo(id=number, num_workers=num_workers, seed=seed, dataset=dataset)
