"""Hooks of training."""

import hashlib
import json
from collections.abc import Sequence
from typing import Any

from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import BaseLoop, EpochBasedTrainLoop, Runner

from clipbert_mm.checkpoint import CheckpointError, Convention, check_fit
from clipbert_mm.checkpoint.fit import within
from clipbert_mm.registry import HOOKS


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Tell the training dataset the seed and which epoch begins, so that each draws other clips, negatives and masks."""

    def before_train(self, runner: Runner) -> None:
        """See that there are epochs.

        Raises:
            ValueError: If the training loop has none: every pass would draw the same.
        """
        if not isinstance(runner.train_loop, EpochBasedTrainLoop):
            raise ValueError(
                "Items are drawn anew each epoch, so training needs EpochBasedTrainLoop, got "
                f"{type(runner.train_loop).__name__}."
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the seed and the epoch of the dataset."""
        runner.train_dataloader.dataset.set_draw(runner.seed, runner.epoch)


@HOOKS.register_module()
class BrokenMediaHook(Hook):
    """Count the files that training could not read and replaced; too many end the run.

    Args:
        max_share: Largest share of a training set's items in an epoch that may be replaced, 0 to 1.
    """

    def __init__(self, *, max_share: float = 0.05) -> None:
        self.max_share = max_share
        self.reasons: dict[str, str] = {}
        self.replaced = 0

    def before_train_epoch(self, runner: Runner) -> None:
        """Begin to count."""
        self.reasons, self.replaced = {}, 0

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        """Note what a batch had to replace."""
        for sample in (data_batch or {}).get("data_samples", ()):
            self.replaced += bool(sample.replaced)
            self.reasons.update(sample.replaced)

    def after_train_epoch(self, runner: Runner) -> None:
        """Report what was replaced.

        Raises:
            RuntimeError: If more than ``max_share`` of the items were.
        """
        counted = all_gather_object((self.replaced, self.reasons))
        replaced = sum(count for count, _ in counted)
        reasons = {path: reason for _, own in counted for path, reason in own.items()}
        if not replaced:
            return
        total = len(runner.train_dataloader.dataset)
        listed = "".join(f"\n  {path}: {reasons[path]}" for path in sorted(reasons)[:5])
        more = f"\n  and {len(reasons) - 5} more" if len(reasons) > 5 else ""
        report = f"{replaced} of {total} items were replaced in this epoch; {len(reasons)} files cannot be read:{listed}{more}"
        if replaced > self.max_share * total:
            raise RuntimeError(
                f"{report}\nThat is more than the share of {self.max_share:g} that BrokenMediaHook allows. Mend or take out "
                "the files, or raise max_share."
            )
        runner.logger.warning(report)


def vocabulary_digest(runner: Runner) -> str | None:
    """Return a digest of the word pieces that the run's data is tokenised with; None if it is not tokenised."""
    loops = (runner._train_loop, runner._val_loop, runner._test_loop)  # configs until they begin
    datasets = [loop.dataloader.dataset for loop in loops if isinstance(loop, BaseLoop)]
    tokenizer = next((dataset.tokenizer for dataset in datasets), None)
    if tokenizer is None:
        return None
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:16]


@HOOKS.register_module()
class CheckpointFitHook(Hook):
    """See that checkpoints fit the model before their weights are taken over, and report what is taken.

    Testing and resuming need every weight. Training from ``load_from`` may leave parts new; the report says which. Checkpoints
    of ours carry a digest of the vocabulary that they were trained with, since other word pieces make their weights
    meaningless, and how they want their frames.

    Args:
        min_share: Smallest share of the tensors of each module that a checkpoint of ``load_from`` is for, 0 to 1.
        fresh: Modules that take nothing from ``load_from``, such as "head" to train on other answers.
    """

    def __init__(self, *, min_share: float = 0.95, fresh: Sequence[str] = ()) -> None:
        if isinstance(fresh, str) or not 0 <= min_share <= 1:
            raise ValueError(
                f"CheckpointFitHook expects min_share in [0, 1] and fresh a list, got {min_share} and {fresh!r}."
            )
        self.min_share = min_share
        self.fresh = tuple(fresh)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Note the vocabulary and how frames come in."""
        checkpoint["vocabulary"] = vocabulary_digest(runner)
        checkpoint["convention"] = Convention.of_model(_bare(runner.model)).to_dict()
        checkpoint["attention_heads"] = _bare(runner.model).encoder.bert.config.num_attention_heads

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Compare, log the report, and take out what is to be trained afresh.

        Raises:
            CheckpointError: If a checkpoint does not fit, or was trained with other word pieces or other frames.
        """
        model, now = _bare(runner.model), vocabulary_digest(runner)
        sources = checkpoint["sources"]
        for source in sources:
            trained_with = source.rest.get("vocabulary")
            if None not in (trained_with, now) and trained_with != now:
                raise CheckpointError(
                    f"The checkpoint {source.path} was trained with another vocabulary (digest {trained_with}) than the data's "
                    f"tokenizer has ({now}). Set `tokenizer` of Tokenize to the folder of the training."
                )
            if source.convention is not None and not source.convention.agrees(Convention.of_model(model)):
                raise CheckpointError(
                    f"{source.path} ({source.title}) wants its frames as {source.convention}, the model has "
                    f"{Convention.of_model(model)}. Set mean, std and to_bgr of the data_preprocessor and style of "
                    "the backbone."
                )
        trains = isinstance(runner._train_loop, BaseLoop)  # a config until training begins
        needs_all = not trains or runner._resume
        fresh = () if needs_all else self.fresh
        report = check_fit(model, sources, whole=needs_all, min_share=self.min_share, fresh=fresh)
        runner.logger.info(str(report))
        for name in list(checkpoint["state_dict"]):
            if within(name, fresh):
                del checkpoint["state_dict"][name]


def _bare(model: Any) -> Any:  # noqa: ANN401
    """Return a model without the wrapper of several processes."""
    return model.module if is_model_wrapper(model) else model
