"""Training counted in steps of the optimiser, also where a step is made of several batches."""

import math
import random
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import numpy as np
import torch
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch.utils.data import DataLoader

from clipbert_mm.registry import LOOPS


class Steps:
    """A dataloader by steps of the optimiser: each gives a list of batches. All else is the dataloader's.

    The last step of an epoch may be of fewer batches, so that each epoch ends with a step.

    Args:
        dataloader: What gives the batches.
        accumulation: Batches of a step.
    """

    def __init__(self, dataloader: DataLoader[Any], accumulation: int) -> None:
        self.dataloader = dataloader
        self.accumulation = accumulation

    def __len__(self) -> int:
        return math.ceil(len(self.dataloader) / self.accumulation)

    def __iter__(self) -> Iterator[list[Any]]:
        batches = iter(self.dataloader)
        while step := list(islice(batches, self.accumulation)):
            yield step

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.dataloader, name)


@LOOPS.register_module(name="EpochBasedTrainLoop")
class StepTrainLoop(EpochBasedTrainLoop):
    """MMEngine's loop over epochs, whose iterations are steps of the optimiser.

    With ``accumulative_counts=N`` in the optimiser wrapper a step averages the gradients of N batches. Schedules, logs,
    checkpoints, EMA and whatever else counts iterations then count steps, and none of them falls in the middle of one. Hooks
    see a step's samples as one batch, and its losses averaged.

    Arguments are those of MMEngine's EpochBasedTrainLoop.
    """

    def __init__(
        self,
        runner: Runner,
        dataloader: DataLoader[Any] | dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        self.dataloader: Any
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        wrapper = runner.optim_wrapper  # a config until training begins
        self.accumulation: int = (
            wrapper.get("accumulative_counts", 1)
            if isinstance(wrapper, dict)
            else getattr(wrapper, "_accumulative_counts", 1)
        )
        if self.accumulation > 1:
            self.dataloader = Steps(self.dataloader, self.accumulation)
            self._max_iters = self._max_epochs * len(self.dataloader)

    @property
    def items_per_step(self) -> int:
        """Items of one step over all processes: the global batch."""
        return self.runner.world_size * self.dataloader.batch_sampler.batch_size * self.accumulation

    def run(self) -> torch.nn.Module:
        """Say what a step is, and train.

        Raises:
            TypeError: If the optimiser wrapper cannot be told of how many batches a step is.
        """
        wrapper = self.runner.optim_wrapper
        if self.accumulation > 1 and not hasattr(wrapper, "begin_step"):
            raise TypeError(
                f"accumulative_counts works with OptimWrapper and AmpOptimWrapper, got {type(wrapper).__name__}."
            )
        items, processes = self.items_per_step, self.runner.world_size
        rate = wrapper.param_groups[0].get("initial_lr", wrapper.param_groups[0]["lr"])  # where schedules begin from
        self.runner.logger.info(
            f"{items} items a step = {processes} processes x {items // processes // self.accumulation} items x "
            f"{self.accumulation} batches; {len(self.dataloader)} steps an epoch, {self._max_iters} in all; learning rate "
            f"{rate:g}."
        )
        if self._iter == 0 and self.runner.rank > 0:
            own = self.runner.seed + self.runner.rank  # else each process would drop out the same
            random.seed(own)
            np.random.seed(own)
            torch.manual_seed(own)
        return super().run()

    def run_iter(self, idx: int, data_batch: Any) -> None:  # noqa: ANN401
        """Make a step.

        Args:
            idx: Number of the step in its epoch.
            data_batch: A batch, or a list of them where several make a step.
        """
        batches = data_batch if self.accumulation > 1 else [data_batch]
        whole = joined(batches)
        if self.accumulation > 1:
            self.runner.optim_wrapper.begin_step(len(batches))
        self.runner.call_hook("before_train_iter", batch_idx=idx, data_batch=whole)
        outputs = [self.runner.model.train_step(each, optim_wrapper=self.runner.optim_wrapper) for each in batches]
        mean = {key: torch.stack([output[key] for output in outputs]).mean() for key in outputs[0]}
        self.runner.call_hook("after_train_iter", batch_idx=idx, data_batch=whole, outputs=mean)
        self._iter += 1


def joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a step's batches as one for hooks: the samples of all, the inputs in a list; a single one as it is."""
    if len(batches) == 1:
        return batches[0]
    samples = list(chain.from_iterable(batch["data_samples"] for batch in batches))
    return {"inputs": [batch["inputs"] for batch in batches], "data_samples": samples}
