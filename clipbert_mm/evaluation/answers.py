"""Answers to questions."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from clipbert_mm.evaluation.coverage import readable
from clipbert_mm.registry import METRICS


def right_answers(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Say which questions are answered right: those whose best answer is the right one.

    Args:
        scores: Score of each question and answer, (q, C).
        labels: Place of the right answer, int (q,); one that is none of the C is never right.

    Returns:
        bool (q,).

    >>> right_answers(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, -100])).tolist()
    [True, False]
    """
    return scores.argmax(axis=1) == labels


@METRICS.register_module()
class AnswerAccuracy(BaseMetric):
    """Accuracy over all questions in percent, and ``coverage``: which share of the videos could be read.

    Questions of videos that could not be read are left out. For multiple choice the scores of an item's options lie side by
    side, those of its first question first.

    Args:
        collect_device: Device that collects results of several processes, "cpu" or "gpu".
    """

    default_prefix = ""

    def __init__(self, *, collect_device: str = "cpu") -> None:
        super().__init__(collect_device=collect_device)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Take the predictions of some items."""
        for sample in data_samples:
            entry = dict(path=sample["path"], broken=sample["broken"], right=None)
            if sample["broken"] is None:
                labels = np.asarray(sample["answer_labels"])
                scores = sample["scores"].float().cpu().numpy().reshape(len(labels), -1)
                entry["right"] = right_answers(scores, labels)
            self.results.append(entry)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Join the items."""
        read, coverage = readable(results)
        return {
            "accuracy": float(np.concatenate([entry["right"] for entry in read]).mean() * 100),
            "coverage": coverage,
        }
