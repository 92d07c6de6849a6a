"""A new draw of every item in each epoch."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from clipbert_mm.errors import OptionError
from clipbert_mm.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Give the training dataset the seed and the epoch, so that each epoch draws other clips, negatives and masks."""

    def before_train(self, runner: Runner) -> None:
        """Check that the training loop has epochs.

        Raises:
            OptionError: If it has none: every pass would draw the same.
        """
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise OptionError(
                "Items are drawn anew in each epoch, so training needs a loop by epochs, got "
                f"{type(runner.train_loop).__name__}. Set train_cfg=dict(type='ResumableEpochTrainLoop', max_epochs=...)."
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the seed and the epoch of the dataset."""
        runner.train_dataloader.dataset.set_draw(runner.seed, runner.epoch)
