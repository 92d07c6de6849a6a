"""MixedDataset: several datasets as one."""

from typing import Any

from mmengine.dataset import ConcatDataset

from clipbert_mm.datasets.wrappers import set_draw
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

    def set_draw(self, seed: int, epoch: int) -> None:
        """Set seed and epoch of the random draws; each dataset gets a seed of its own."""
        for number, dataset in enumerate(self.datasets):
            set_draw(dataset, seed + number, epoch)
