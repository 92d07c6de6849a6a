"""Training by epochs, counted in steps of the optimizer, that goes on from the very step where a run was cut."""

import math
import random
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any

import mmengine.runner
import numpy as np
import torch
from mmengine.dist import broadcast, get_world_size
from mmengine.runner import Runner
from torch import nn

from clipbert_mm.engine.random_state import unchanged_random_state
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import CheckpointError, OptionError
from clipbert_mm.registry import LOOPS


class AccumulatedLoader:
    """A dataloader by steps of the optimizer: each gives a list of batches. All else is the dataloader's.

    The last step of an epoch may be of fewer batches, so that each epoch ends with a step.

    Args:
        dataloader: What gives the batches.
        accumulation: Batches of a step.
    """

    def __init__(self, dataloader: WatchedLoader, accumulation: int) -> None:
        self.dataloader = dataloader
        self.accumulation = accumulation

    def __len__(self) -> int:
        return math.ceil(len(self.dataloader) / self.accumulation)

    def __iter__(self) -> Iterator[list[Any]]:
        batches = iter(self.dataloader)
        while step := list(islice(batches, self.accumulation)):
            yield step

    def skip(self, steps: int) -> None:
        """Let the next pass begin after some steps, whose items are not loaded."""
        self.dataloader.skip(steps * self.accumulation)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.dataloader, name)


@LOOPS.register_module()
class ResumableEpochTrainLoop(mmengine.runner.EpochBasedTrainLoop):
    """MMEngine's EpochBasedTrainLoop that counts steps of the optimizer and resumes at the very step where a run was cut.

    With ``accumulative_counts=N`` in the optimizer wrapper a step averages the gradients of N batches. Schedules, logs,
    checkpoints, EMA and whatever else counts iterations then count steps, and none of them falls in the middle of one. Hooks
    see a step's samples as one batch, and its losses averaged.

    A resumed run skips at the sampler what the run before had seen, so nothing is decoded for it. Validation does not change
    the state of the random generators; a run that was cut before or during a validation begins with it. Arguments are those of
    MMEngine's loop.
    """

    steps_done = 0
    """Steps of the first epoch that the resumed run had made."""

    def __init__(
        self,
        runner: Runner,
        dataloader: WatchedLoader | dict,
        max_epochs: int,
        val_begin: int = 1,
        val_interval: int = 1,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        self.dataloader: Any
        super().__init__(runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals)
        if len(self.dataloader) == 0:
            raise OptionError(
                f"The training set has {len(self.dataloader.dataset)} items, fewer than a batch of "
                f"{self.dataloader.batch_size} in each of {runner.world_size} processes, and drop_last leaves such a batch "
                "out: no step would be made. Lower batch_size of train_dataloader, or set its drop_last to False."
            )
        self.accumulation = runner.accumulation
        if self.accumulation > 1:
            self.dataloader = AccumulatedLoader(self.dataloader, self.accumulation)
            self._max_iters = self._max_epochs * len(self.dataloader)

    def run(self) -> nn.Module:
        """Say what a step is, and train; returns the model.

        Raises:
            CheckpointError: If a run is to go on in the middle of an epoch with steps of other items.
            OptionError: If the optimizer wrapper cannot be told of how many batches a step is.
        """
        self._describe_steps()
        if self.runner.rank > 0:
            own = self.runner.seed + self.runner.rank  # else each process would drop out the same
            random.seed(own)
            np.random.seed(own)
            torch.manual_seed(own)
        resumed = self.runner.resumed
        self.runner.call_hook("before_train")
        if resumed is not None:
            self.steps_done = self._steps_done(resumed["meta"])
            self.runner.restore_rank()
            if self._epoch and not self.steps_done:
                self._validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self._validate_if_due()
        self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Train for an epoch, or for what is left of it."""
        done, self.steps_done = self.steps_done, 0
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        if done:
            self.dataloader.skip(done)
            self.runner.restore_rank()  # the epoch began in the run before
        for number, batch in enumerate(self.dataloader, start=done):
            self.run_iter(number, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

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
        mean = {key: torch.stack([output[key].detach() for output in outputs]).mean() for key in outputs[0]}
        self.runner.call_hook("after_train_iter", batch_idx=idx, data_batch=whole, outputs=mean)
        self._iter += 1

    def _describe_steps(self) -> None:
        wrapper = self.runner.optim_wrapper
        if self.accumulation > 1 and not hasattr(wrapper, "begin_step"):
            raise OptionError(
                f"accumulative_counts={self.accumulation} of {type(self).__name__} needs AccumulatingOptimWrapper or "
                f"AmpAccumulatingOptimWrapper as optim_wrapper.type, got {type(wrapper).__module__.partition('.')[0]}'s "
                f"{type(wrapper).__name__}."
            )
        items, processes = self.runner.items_per_step, self.runner.world_size
        rate = wrapper.param_groups[0].get("initial_lr", wrapper.param_groups[0]["lr"])  # where schedules begin from
        self.runner.logger.info(
            f"{items} items a step = {processes} processes x {items // processes // self.accumulation} items x "
            f"{self.accumulation} batches; {len(self.dataloader)} steps an epoch, {self._max_iters} in all; learning rate "
            f"{rate:g}."
        )

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        last = self._epoch == self._max_epochs
        if self.runner.val_loop is None or self._epoch < self.val_begin:
            return
        if last or self._epoch % self.val_interval == 0:
            share_buffers(self.runner)
            with unchanged_random_state():
                self.runner.val_loop.run()

    def _steps_done(self, meta: dict[str, Any]) -> int:
        """Return how many steps of the epoch the run before had made, and see that they are the same steps now."""
        saved = {key: meta.get(key) for key in ("steps_per_epoch", "items_per_step")}
        now = self.runner.epoch_shape()
        if None in saved.values():  # a checkpoint of MMEngine's, which are of whole epochs
            saved = now
        done = meta["iter"] - meta["epoch"] * saved["steps_per_epoch"]
        if saved != now and done:
            raise CheckpointError(
                f"The run to go on with was cut after step {done} of {saved['steps_per_epoch']} of an epoch, each of "
                f"{saved['items_per_step']} items over all processes; now an epoch has {now['steps_per_epoch']} of "
                f"{now['items_per_step']}. Go on with the same data, batch size and number of processes, or from a checkpoint "
                "of an epoch's end (--resume PATH)."
            )
        if saved != now:
            self.runner.logger.warning(
                f"An epoch was {saved} in the run before and is {now} now; so its steps are others."
            )
        return done


def share_buffers(runner: Runner) -> None:
    """Give every process the statistics of the first one's batch norms, which are those that a checkpoint has.

    Else each would validate its videos with statistics of its own shard, and no test could repeat the metrics.
    """
    if get_world_size() > 1:
        averaged = [hook.ema_model for hook in runner.hooks if hasattr(hook, "ema_model")]
        for buffer in chain.from_iterable(model.buffers() for model in (runner.model, *averaged)):
            broadcast(buffer, src=0)


def joined(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Return a step's batches as one for hooks: the samples of all, the inputs in a list; a single one as it is."""
    if len(batches) == 1:
        return batches[0]
    samples = list(chain.from_iterable(batch["data_samples"] for batch in batches))
    return {"inputs": [batch["inputs"] for batch in batches], "data_samples": samples}
