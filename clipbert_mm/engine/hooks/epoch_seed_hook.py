"""A new draw of every item in each epoch."""

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner

from clipbert_mm.datasets.wrappers import draws_anew, set_draw
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import OptionError
from clipbert_mm.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Give the training dataset the seed and the epoch, so that each epoch draws other clips, negatives and masks.

    In a training by iterations each pass over the dataset draws as an epoch does. The datasets within a wrapper get their
    seeds too.
    """

    def before_train(self, runner: Runner) -> None:
        """Let a loop by iterations draw each pass anew.

        Raises:
            OptionError: If the dataloader cannot: every pass would draw the same.
        """
        loader = runner.train_dataloader
        if isinstance(runner.train_loop, EpochBasedTrainLoop) or not draws_anew(loader.dataset):
            return
        if not isinstance(getattr(loader, "dataloader", loader), WatchedLoader):
            raise OptionError(
                f"EpochSeedHook draws items anew in each pass over the data, and {type(runner).__name__} with "
                f"{type(runner.train_loop).__name__} does not tell of passes. Set runner_type='clipbert_mm.ClipBertRunner', "
                "or train by epochs."
            )
        loader.count_passes()

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the seed and the epoch of the dataset; a training by iterations counts its passes from epoch 0."""
        by_epoch = isinstance(runner.train_loop, EpochBasedTrainLoop)
        set_draw(runner.train_dataloader.dataset, runner.seed, runner.epoch if by_epoch else 0)
