"""Give a model that rates candidate answers the answers of the dataset."""

from typing import Any

import numpy as np
from mmengine.hooks import Hook
from mmengine.runner import Runner

from clipbert_mm.engine.bare_model import bare_model
from clipbert_mm.errors import OptionError
from clipbert_mm.registry import HOOKS


@HOOKS.register_module()
class CandidateAnswersHook(Hook):
    """Set the candidates of an :class:`~clipbert_mm.models.AnswerEncoder` to the answer vocabulary of each dataset."""

    def before_train(self, runner: Runner) -> None:
        """Set those of the training."""
        self._set(runner, runner.train_dataloader.dataset)

    def before_val(self, runner: Runner) -> None:
        """Set those of the validation."""
        self._set(runner, runner.val_loop.dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Set those of the test."""
        self._set(runner, runner.test_loop.dataloader.dataset)

    def _set(self, runner: Runner, dataset: Any) -> None:  # noqa: ANN401
        """Tokenize the answers of a dataset as its questions are tokenized.

        Raises:
            OptionError: If the model rates no candidates, or the dataset has no answers.
        """
        encoder, answers = bare_model(runner.model).encoder, getattr(dataset, "answers", None)
        if not hasattr(encoder, "set_answers") or not answers:
            raise OptionError(
                "CandidateAnswersHook gives an AnswerEncoder the answers of an OpenEndedDataset, got a "
                f"{type(encoder).__name__} and a {type(dataset).__name__}. Remove it from custom_hooks."
            )
        (tokenize,) = (step for step in dataset.pipeline.transforms if hasattr(step, "encode"))
        ordered = sorted(answers, key=answers.__getitem__)
        encoder.set_answers([np.array(ids, np.int64) for ids in tokenize.encode(ordered)])
