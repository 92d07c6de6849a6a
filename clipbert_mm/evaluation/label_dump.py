"""Predictions of questions in the form of a classifier's, which the tools of MMPretrain and MMAction2 read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import DumpResults

from clipbert_mm.errors import OptionError


class DumpLabels(DumpResults):
    """Writes one entry per question to a pickle file: ``pred_score`` (C,), ``pred_label`` and ``gt_label``.

    Scores become probabilities, since metrics of classifiers take no score below 0 for an answer. A question with a correct
    answer outside of the answers has the ``gt_label`` -100. Questions of videos that could not be read are left out. Arguments
    are those of MMEngine's DumpResults.
    """

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:  # noqa: ANN401
        """Add the questions of some items.

        Raises:
            OptionError: If the items have no correct answers by index, as in retrieval and counting.
        """
        for sample in predictions:
            if "answer_labels" not in sample or np.asarray(sample["answer_labels"]).dtype.kind not in "iu":
                raise OptionError(
                    "--out-item labels (DumpLabels) is for questions with one correct answer each; --out FILE.pkl alone writes "
                    "the predictions of other tasks."
                )
            questions: list[dict] = []
            if sample["broken"] is None:
                labels = np.asarray(sample["answer_labels"])
                scores = sample["scores"].cpu().reshape(len(labels), -1)  # (M, C)
                for score, label in zip(scores, labels.tolist(), strict=True):
                    found = dict(pred_score=score.softmax(0), pred_label=score.argmax(0, keepdim=True))
                    found["gt_label"] = torch.tensor([label])
                    questions.append(dict(sample_idx=sample["sample_idx"], path=sample["path"], **found))
            self.results.append(questions)  # one entry per item, as MMEngine collects them from processes

    def compute_metrics(self, results: list[list[dict]]) -> dict:
        """Write the questions of all items."""
        return super().compute_metrics([question for questions in results for question in questions])
