"""Answers to questions: one right answer each, or a count."""

import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log

from clipbert_mm.evaluation.coverage import readable
from clipbert_mm.registry import METRICS
from clipbert_mm.structures import IGNORED


def right_answers(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Say which questions are answered right: those whose best answer is the right one.

    Args:
        scores: Score of each question and answer, (q, C), unrounded.
        labels: Place of the right answer, int (q,); one that is none of the C is never right.

    Returns:
        The share of a right answer, float (q,). It is 1, 0, or 1 / t where t answers share the best score, the right one among
        them, as by expectation under a random choice.

    >>> right_answers(np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]]), np.array([1, -100, 0])).tolist()
    [1.0, 0.0, 0.5]
    """
    best = scores == scores.max(axis=1, keepdims=True)  # (q, C)
    inside = (labels >= 0) & (labels < scores.shape[1])
    chosen = best[np.arange(len(labels)), np.where(inside, labels, 0)]
    return inside * chosen / best.sum(axis=1)


def accuracy_by_type(right: np.ndarray, types: Sequence[str]) -> dict[str, float]:
    """Compute the accuracy in percent over all questions and over those of each type.

    Args:
        right: What :func:`right_answers` says, (q,).
        types: Type of each question, q in all; a number is named as text.

    >>> accuracy_by_type(np.array([1.0, 0.0, 1.0]), ["who", "who", "what"])
    {'accuracy': 66.66666666666666, 'accuracy/what': 100.0, 'accuracy/who': 50.0}
    """
    metrics = {"accuracy": float(right.mean() * 100)}
    kinds = np.array(list(map(str, types)))
    return metrics | {
        f"accuracy/{kind}": float(right[kinds == kind].mean() * 100) for kind in sorted(set(kinds.tolist()))
    }


@METRICS.register_module()
class AnswerAccuracy(BaseMetric):
    """Accuracy in percent over all questions and by answer type, where the annotations say the types.

    ``ceiling`` is the accuracy of a model that is always right where the right answer is in the vocabulary, ``coverage``
    the share of the videos that could be read; questions of the others are left out. For multiple choice the scores of an
    item's options lie side by side, those of its first question first.

    Args:
        collect_device: Device that collects results of several processes, "cpu" or "gpu".
    """

    default_prefix = ""

    def __init__(self, *, collect_device: str = "cpu") -> None:
        super().__init__(collect_device=collect_device)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Take the predictions of some items."""
        for sample in data_samples:
            entry = dict(path=sample["path"], broken=sample["broken"])
            if sample["broken"] is None:
                labels = np.asarray(sample["answer_labels"])
                scores = sample["scores"].double().cpu().numpy().reshape(len(labels), -1)
                types = sample.get("answer_types", [""] * len(labels))
                entry |= dict(right=right_answers(scores, labels), known=labels != IGNORED, types=types)
            self.results.append(entry)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Join the items."""
        read, coverage = readable(results)
        types = [kind for entry in read for kind in entry["types"]]
        metrics = accuracy_by_type(np.concatenate([entry["right"] for entry in read]), types)
        metrics.pop("accuracy/", None)  # of questions without a type
        ceiling = float(np.concatenate([entry["known"] for entry in read]).mean() * 100)
        return metrics | {"ceiling": ceiling, "coverage": coverage}


@METRICS.register_module()
class CountError(BaseMetric):
    """Mean square error of counts, as predicted and after rounding, and the accuracy after rounding in percent.

    Where annotations have counts that rounding cannot give, which are never right, the log says how many.

    Args:
        low: Smallest count that rounding may give; 1 in TGIF-QA.
        high: Largest count that rounding may give; 10 in TGIF-QA, where it stands for more as well.
        collect_device: Device that collects results of several processes, "cpu" or "gpu".
    """

    default_prefix = ""

    def __init__(self, *, low: int, high: int, collect_device: str = "cpu") -> None:
        super().__init__(collect_device=collect_device)
        self.low, self.high = low, high

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Take the predictions of some items."""
        for sample in data_samples:
            entry = dict(path=sample["path"], broken=sample["broken"])
            if sample["broken"] is None:
                entry |= dict(found=sample["scores"].double().cpu().numpy(), wanted=np.asarray(sample["counts"], float))
            self.results.append(entry)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Join the items."""
        read, coverage = readable(results)
        found, wanted = (np.concatenate([entry[key] for entry in read]) for key in ("found", "wanted"))
        if outside := int(((wanted < self.low) | (wanted > self.high)).sum()):
            print_log(
                f"{outside} of {len(wanted)} counts of the annotations are not in {self.low} to {self.high}, so that rounding "
                "can never give them. Set low and high of CountError, or convert TGIF-QA again, which lifts answers of 0 to 1.",
                logger="current",
                level=logging.WARNING,
            )
        rounded = np.clip(np.floor(found + 0.5), self.low, self.high)  # halves go up
        return {
            "mse": float(((found - wanted) ** 2).mean()),
            "mse_rounded": float(((rounded - wanted) ** 2).mean()),
            "accuracy": float((rounded == wanted).mean() * 100),
            "coverage": coverage,
        }
