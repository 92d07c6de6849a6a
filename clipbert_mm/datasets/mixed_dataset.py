"""MixedDataset: several datasets as one."""

from typing import Any

from mmengine.dataset import ConcatDataset

from clipbert_mm.media.worker_status import FileProgress
from clipbert_mm.registry import DATASETS


@DATASETS.register_module()
class MixedDataset(ConcatDataset):
    """Concatenate several datasets for training, each with its own files and pipeline.

    Args:
        datasets: Datasets or their configs.
    """

    def __init__(self, *, datasets: list[Any]) -> None:
        super().__init__(datasets)

    @property
    def tokenizer(self) -> Any:  # noqa: ANN401
        """The tokenizer of the first dataset."""
        return self.datasets[0].tokenizer

    @property
    def answers(self) -> dict[str, int] | None:
        """The answer vocabulary of the first dataset; None if it has none."""
        return getattr(self.datasets[0], "answers", None)

    def loading(self) -> dict[int, FileProgress]:
        """Return which file each process, this one and the workers, reads or has read last, by process id."""
        latest: dict[int, FileProgress] = {}
        for dataset in self.datasets:
            for pid, progress in dataset.loading().items():
                other = latest.get(pid)
                if other is None or (progress.busy, progress.since) > (other.busy, other.since):
                    latest[pid] = progress
        return latest

    def give_up(self, path: str, reason: str) -> bool:
        """Mark a file as broken in whichever dataset has it.

        Returns:
            Whether training continues without it; see :meth:`~clipbert_mm.datasets.media_dataset.MediaDataset.give_up`.
        """
        continues = [dataset.give_up(path, reason) for dataset in self.datasets]
        return any(continues)

    def set_draw(self, seed: int, epoch: int) -> None:
        """Set seed and epoch of the random draws; each dataset gets a seed of its own."""
        for number, dataset in enumerate(self.datasets):
            dataset.set_draw(seed + number, epoch)
