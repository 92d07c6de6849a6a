"""Several datasets as one."""

from typing import Any

from mmengine.dataset import ConcatDataset

from clipbert_mm.media.worker_status import Loading
from clipbert_mm.registry import DATASETS


@DATASETS.register_module()
class MixedDataset(ConcatDataset):
    """Several datasets one after the other, each with its own files and pipeline, for training.

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

    def loading(self) -> list[Loading]:
        """Return the files that this and the workers' processes are at."""
        return [each for dataset in self.datasets for each in dataset.loading()]

    def set_draw(self, seed: int, epoch: int) -> None:
        """Tell each dataset from which seed and epoch on to draw; none draws as another does."""
        for number, dataset in enumerate(self.datasets):
            dataset.set_draw(seed + number, epoch)
