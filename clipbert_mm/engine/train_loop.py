"""Training that counts steps of the optimizer and resumes at the very step where a run was cut."""

import math
import os
import random
from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Any

import mmengine.runner
import numpy as np
import torch
from mmengine.dataset import InfiniteSampler
from mmengine.dist import broadcast, get_world_size
from mmengine.runner import Runner
from torch import nn

from clipbert_mm.checkpoint.writing import is_finished
from clipbert_mm.engine.bare_model import expect_clipbert_runner
from clipbert_mm.engine.random_state import unchanged_random_state
from clipbert_mm.engine.rank_sync import broadcast_from_first
from clipbert_mm.engine.run_state import restore_rank
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import CheckpointError, OptionError
from clipbert_mm.registry import LOOPS


class AccumulatedLoader:
    """A dataloader that yields the batches of a step of the optimizer as a list. All else is the dataloader's.

    The last step of an epoch may have fewer batches, so that each epoch ends with a step.

    Args:
        dataloader: The dataloader of single batches.
        accumulation: Batches per step.
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

    def skip(self, steps: int, passes: int = 0) -> None:
        """Start the next pass after some steps, whose items are not loaded; see WatchedLoader."""
        self.dataloader.skip(steps * self.accumulation, passes)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self.dataloader, name)


class StepTrainLoop(mmengine.runner.BaseLoop):
    """Base of the loops whose iteration is a step of the optimizer, and that resume at the very step where a run was cut.

    With ``accumulative_counts=N`` in the optimizer wrapper a step averages the gradients of N batches. Schedules, logs,
    checkpoints, EMA and whatever else counts iterations then count steps, and none of them falls in the middle of one. Hooks
    see a step's samples as one batch, and its losses averaged.

    A resumed run skips at the sampler what the run before had seen, so nothing is decoded for it. Validation does not change
    the state of the random generators; a run that was cut before or during a validation begins with it. A run that is finished
    does nothing.
    """

    runner: Any
    dataloader: Any
    accumulation: int
    UNITS: str
    """What the training is measured in, "epochs" or "iterations"."""

    def accumulate(self) -> None:
        """Let the dataloader yield the batches of a step.

        Raises:
            OptionError: If there is no step, or the runner is another one than ClipBertRunner.
        """
        expect_clipbert_runner(self.runner, type(self).__name__)
        if len(self.dataloader) == 0:
            raise OptionError(
                f"The training set has {len(self.dataloader.dataset)} items, fewer than a batch of "
                f"{self.dataloader.batch_size} in each of {self.runner.world_size} processes, and drop_last drops such a "
                "batch, so that no step is left. Lower batch_size of train_dataloader, or set its drop_last to False."
            )
        self.accumulation = self.runner.accumulation
        if self.accumulation > 1:
            self.dataloader = AccumulatedLoader(self.dataloader, self.accumulation)

    def run(self) -> nn.Module:
        """Log what a step is, and train; returns the model.

        Raises:
            CheckpointError: If a run is resumed in the middle of an epoch with steps of other items.
            OptionError: If the optimizer wrapper cannot accumulate step by step.
        """
        self._describe_steps()
        if self.runner.rank > 0:
            seed = self.runner.seed + self.runner.rank  # so that each process draws its own dropout
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
        if self.runner.resumed is None or not self._is_finished():
            self.runner.call_hook("before_train")
            self.run_steps()
            self.runner.call_hook("after_train")
        return self.runner.model

    def run_steps(self) -> None:
        """Train and validate until the end."""
        raise NotImplementedError

    def position(self) -> tuple[int, int]:
        """Return how far the training is, and how long it is, in :attr:`UNITS`."""
        raise NotImplementedError

    def _is_finished(self) -> bool:
        """Whether the resumed run has nothing left to do; log what is left of a run that was trained to its end."""
        done, whole = self.position()
        if done < whole:
            return False
        path = str(self.runner._load_from)
        validates = self.runner.val_loop is not None
        if validates and not broadcast_from_first(is_finished(self.runner.work_dir, os.path.basename(path))):
            self.runner.logger.info(f"{path} has all {whole} {self.UNITS}; its last validation may be missing.")
            return False
        name = "max_epochs" if self.UNITS == "epochs" else "max_iters"
        self.runner.logger.info(
            f"Finished already: {path} has all {whole} {self.UNITS}. Test it with tools/test.py, or raise {name} of "
            "train_cfg to train on."
        )
        return True

    def run_iter(self, idx: int, data_batch: Any) -> None:  # noqa: ANN401
        """Run a step of the optimizer.

        Args:
            idx: Index of the step in its epoch.
            data_batch: A batch, or a list of batches under accumulation.
        """
        batches = data_batch if self.accumulation > 1 else [data_batch]
        step_batch = merge_batches(batches)
        if self.accumulation > 1:
            self.runner.optim_wrapper.begin_step(len(batches))
        self.runner.call_hook("before_train_iter", batch_idx=idx, data_batch=step_batch)
        outputs = [self.runner.model.train_step(each, optim_wrapper=self.runner.optim_wrapper) for each in batches]
        mean = {key: torch.stack([output[key].detach() for output in outputs]).mean() for key in outputs[0]}
        self.runner.call_hook("after_train_iter", batch_idx=idx, data_batch=step_batch, outputs=mean)
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
        rate = wrapper.param_groups[0].get("initial_lr", wrapper.param_groups[0]["lr"])  # before the schedule
        self.runner.logger.info(
            f"{items} items per step = {processes} processes x {items // processes // self.accumulation} items x "
            f"{self.accumulation} batches; {len(self.dataloader)} steps per epoch, {self.runner.max_iters} in total; learning "
            f"rate {rate:g}."
        )

    def validate_if_due(self) -> None:
        """Validate if the training is at a point where that is due."""
        self._decide_current_val_interval()
        done, whole = self.position()
        if self.runner.val_loop is None or done < self.val_begin:
            return
        if done == whole or done % self.val_interval == 0:
            share_buffers(self.runner)
            with unchanged_random_state():
                self.runner.val_loop.run()


@LOOPS.register_module()
class ResumableEpochTrainLoop(StepTrainLoop, mmengine.runner.EpochBasedTrainLoop):
    """MMEngine's EpochBasedTrainLoop that counts steps of the optimizer and resumes at the very step where a run was cut.

    What that means says :class:`StepTrainLoop`. Arguments are those of MMEngine's loop.
    """

    UNITS = "epochs"
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
        mmengine.runner.EpochBasedTrainLoop.__init__(
            self, runner, dataloader, max_epochs, val_begin, val_interval, dynamic_intervals
        )
        self.accumulate()
        self._max_iters = self._max_epochs * len(self.dataloader)

    def position(self) -> tuple[int, int]:
        """Return the epochs that are done, and all."""
        return self._epoch, self._max_epochs

    def run_steps(self) -> None:
        """Train epoch by epoch, and validate after each that is due."""
        if self.runner.resumed is not None:
            self.steps_done = steps_done(self.runner)
            restore_rank(self.runner)
            if self._epoch and not self.steps_done:
                self.validate_if_due()
        while self._epoch < self._max_epochs and not self.stop_training:
            self.run_epoch()
            self.validate_if_due()

    def run_epoch(self) -> None:
        """Train for an epoch, or for the rest of the epoch that is resumed."""
        done, self.steps_done = self.steps_done, 0
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        if done:
            self.dataloader.skip(done)
            restore_rank(self.runner)  # hooks have reset their state for a whole epoch
        for number, batch in enumerate(self.dataloader, start=done):
            self.run_iter(number, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1


@LOOPS.register_module()
class ResumableIterTrainLoop(StepTrainLoop, mmengine.runner.IterBasedTrainLoop):
    """MMEngine's IterBasedTrainLoop that counts steps of the optimizer and resumes at the very step where a run was cut.

    What that means says :class:`StepTrainLoop`. Each pass over the dataset is drawn and shuffled as an epoch is, so that
    ``max_iters`` of E epochs trains as ``max_epochs=E`` does. To hooks the whole training is one epoch, as in MMEngine's loop.
    A sampler without an end, such as MMEngine's InfiniteSampler, works too. Arguments are those of MMEngine's loop.
    """

    UNITS = "iterations"

    def __init__(
        self,
        runner: Runner,
        dataloader: WatchedLoader | dict,
        max_iters: int,
        val_begin: int = 1,
        val_interval: int = 1000,
        dynamic_intervals: list[tuple[int, int]] | None = None,
    ) -> None:
        mmengine.runner.IterBasedTrainLoop.__init__(
            self, runner, dataloader, max_iters, val_begin, val_interval, dynamic_intervals
        )
        self.accumulate()

    def position(self) -> tuple[int, int]:
        """Return the iterations that are done, and all."""
        return self._iter, self._max_iters

    def run_steps(self) -> None:
        """Train step by step, and validate after each that is due."""
        self.runner.call_hook("before_train_epoch")
        if self.runner.resumed is not None:
            steps_done(self.runner)  # which checks that the steps are the same
            restore_rank(self.runner)
            if self._iter:
                self.validate_if_due()
        batches = self._batches()
        while self._iter < self._max_iters and not self.stop_training:
            batch = next(batches)
            self.runner.model.train()
            self.run_iter(self._iter, batch)
            self.validate_if_due()
        self.runner.call_hook("after_train_epoch")

    def _batches(self) -> Iterator[Any]:
        """Iterate over the batches of the steps that are left, pass by pass."""
        endless = isinstance(self.dataloader.sampler, InfiniteSampler)
        first, done = (0, self._iter) if endless else divmod(self._iter, len(self.dataloader))
        for number in count(first):
            shuffling: Any  # in MMEngine the one or the other
            for shuffling in (self.dataloader.sampler, getattr(self.dataloader.batch_sampler, "sampler", None)):
                if hasattr(shuffling, "set_epoch"):
                    shuffling.set_epoch(number)
            self.dataloader.skip(done, passes=number)
            yield from self.dataloader
            done = 0


def steps_done(runner: Any) -> int:  # noqa: ANN401
    """Return how many steps of an epoch the resumed run had made, and check that an epoch has the same steps now.

    Raises:
        CheckpointError: If it was cut within an epoch, and the steps are others now; or if it was trained by iterations, and
            now it is by epochs.
    """
    meta = runner.resumed["meta"]
    saved = {key: meta.get(key) for key in ("steps_per_epoch", "items_per_step")}
    now = runner.epoch_shape()
    if None in saved.values():  # a checkpoint of MMEngine's Runner, written at the end of an epoch
        saved = now
    steps = saved["steps_per_epoch"]
    by_epoch = isinstance(runner.train_loop, mmengine.runner.EpochBasedTrainLoop)
    done = meta["iter"] - meta["epoch"] * steps if by_epoch else meta["iter"] % steps
    if by_epoch and done > steps:
        raise CheckpointError(
            f"The checkpoint is of a training by iterations, after iteration {meta['iter']}; the config trains by epochs. "
            "Resume it with train_cfg=dict(type='ResumableIterTrainLoop', max_iters=...)."
        )
    if saved != now and done:
        raise CheckpointError(
            f"The run was cut after step {done} of {saved['steps_per_epoch']} of an epoch with {saved['items_per_step']} "
            f"items per step over all processes; now an epoch has {now['steps_per_epoch']} steps of "
            f"{now['items_per_step']} items. Resume with the same data, batch size and number of processes, or from a "
            "checkpoint of the end of an epoch (--resume PATH)."
        )
    if saved != now:
        runner.logger.warning(f"The steps of an epoch differ from the resumed run: {now} now, {saved} before.")
    return done


def share_buffers(runner: Runner) -> None:
    """Copy the statistics of rank 0's batch norms, which a checkpoint has, to every rank.

    Otherwise each rank would validate with statistics of its own shard of the data, and no test could repeat the metrics.
    """
    if get_world_size() > 1:
        averaged = [hook.ema_model for hook in runner.hooks if hasattr(hook, "ema_model")]
        for buffer in chain.from_iterable(model.buffers() for model in (runner.model, *averaged)):
            broadcast(buffer, src=0)


def merge_batches(batches: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the batches of a step as one for hooks, with all samples and a list of the inputs; a single batch unchanged."""
    if len(batches) == 1:
        return batches[0]
    samples = list(chain.from_iterable(batch["data_samples"] for batch in batches))
    return {"inputs": [batch["inputs"] for batch in batches], "data_samples": samples}
