"""Training by epochs that goes on from the very step where a run was cut."""

from typing import Any

from mmengine.runner import EpochBasedTrainLoop as _EpochBasedTrainLoop
from torch import nn

from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.engine.random_state import unchanged_random_state
from clipbert_mm.engine.signals import Notice
from clipbert_mm.registry import LOOPS


@LOOPS.register_module()
class EpochBasedTrainLoop(_EpochBasedTrainLoop):
    """MMEngine's loop, which can also begin in the middle of an epoch; its arguments are the same.

    What a run that was cut had seen is skipped at the sampler, so nothing is decoded for it. Validation leaves the generators
    as they were; where a run was cut before or in a validation, it is done first.
    """

    notice: Notice
    batches_done = 0
    """Batches of the first epoch that a run before this one had seen."""

    def run(self) -> nn.Module:
        """Train; returns the model.

        Raises:
            CheckpointError: If a run is to go on in the middle of an epoch with batches of other items.
        """
        self.notice = Notice()
        with self.notice.watching():
            resumed = self.runner.resumed
            self.runner.call_hook("before_train")
            if resumed is not None:
                self.batches_done = self._batches_done(resumed["meta"])
                self.runner.restore_rank()
                if self._epoch and not self.batches_done:
                    self._validate_if_due()
            while self._epoch < self._max_epochs and not self.stop_training:
                self.run_epoch()
                self._validate_if_due()
            self.runner.call_hook("after_train")
        return self.runner.model

    def run_epoch(self) -> None:
        """Train for an epoch, or for what is left of it."""
        done, self.batches_done = self.batches_done, 0
        self.runner.call_hook("before_train_epoch")
        self.runner.model.train()
        if done:
            self.dataloader.skip(done)
            self.runner.restore_rank()  # the epoch began in the run before
        for number, batch in enumerate(self.dataloader, start=done):
            self.run_iter(number, batch)
        self.runner.call_hook("after_train_epoch")
        self._epoch += 1

    def _validate_if_due(self) -> None:
        self._decide_current_val_interval()
        last = self._epoch == self._max_epochs
        if self.runner.val_loop is None or self._epoch < self.val_begin:
            return
        if last or self._epoch % self.val_interval == 0:
            with unchanged_random_state():
                self.runner.val_loop.run()

    def _batches_done(self, meta: dict[str, Any]) -> int:
        """Return how many batches of the epoch the run before had seen, and see that they are the same batches now."""
        saved = {key: meta.get(key) for key in ("batches_per_epoch", "items_per_step")}
        now = self.runner.epoch_shape()
        if None in saved.values():  # a checkpoint of MMEngine's, which are of whole epochs
            saved = now
        done = meta["iter"] - meta["epoch"] * saved["batches_per_epoch"]
        if saved != now and done:
            raise CheckpointError(
                f"The run to go on with was cut after batch {done} of {saved['batches_per_epoch']} of an epoch, each of "
                f"{saved['items_per_step']} items over all processes; now an epoch has {now['batches_per_epoch']} of "
                f"{now['items_per_step']}. Go on with the same data, batch size and number of processes, or from a checkpoint "
                "of an epoch's end (--resume PATH)."
            )
        if saved != now:
            self.runner.logger.warning(
                f"An epoch was {saved} in the run before and is {now} now; so its steps are others."
            )
        return done
