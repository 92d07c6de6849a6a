"""Metrics of answers to questions: accuracy where each has one correct answer, and errors of counts."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from clipbert_mm.evaluation.coverage import readable
from clipbert_mm.fileio import atomic_write
from clipbert_mm.log import logger
from clipbert_mm.registry import METRICS
from clipbert_mm.structures import IGNORED


def correct_answers(scores: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Return which questions are answered correctly: those whose best answer is the correct one.

    Args:
        scores: Score of each question and answer, (q, C), unrounded.
        labels: Index of the correct answer, int (q,); an index outside of the C is never correct.

    Returns:
        The share of a correct answer, float (q,), which is 1, 0, or 1 / t where t answers including the correct one tie for
        the best score (the expectation under a random choice).

    >>> correct_answers(np.array([[0.1, 0.9], [0.8, 0.2], [0.5, 0.5]]), np.array([1, -100, 0])).tolist()
    [1.0, 0.0, 0.5]
    """
    best = scores == scores.max(axis=1, keepdims=True)  # (q, C)
    inside = (labels >= 0) & (labels < scores.shape[1])
    chosen = best[np.arange(len(labels)), np.where(inside, labels, 0)]
    return inside * chosen / best.sum(axis=1)


def means_by_type(
    values: np.ndarray, types: Sequence[str], name: str, groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, float]:
    """Compute the mean in percent over all questions, over those of each type and over those of each group of types.

    Args:
        values: A value of each question, 0 to 1, (q,).
        types: Type of each question, q in all; numbers are named as text, and "" is no type.
        name: Name of the mean over all; the others have it in front.
        groups: Names of groups with the types that they have; a group without questions is left out.

    >>> means_by_type(np.array([1.0, 0.0, 1.0]), ["who", "what", "how"], "accuracy", {"thing": ["who", "what"]})[
    ...     "accuracy/thing"
    ... ]
    50.0
    """
    kinds = np.array(list(map(str, types)))
    members = {kind: [kind] for kind in sorted(set(kinds.tolist()) - {""})}
    metrics = {name: float(values.mean() * 100)}
    for group, own in (members | dict(groups or {})).items():
        chosen = np.isin(kinds, list(own))
        if chosen.any():
            metrics[f"{name}/{group}"] = float(values[chosen].mean() * 100)
    return metrics


def accuracy_by_type(
    correct: np.ndarray, types: Sequence[str], groups: Mapping[str, Sequence[str]] | None = None
) -> dict[str, float]:
    """Compute the accuracy in percent over all questions and over those of each type and each group.

    Args:
        correct: What :func:`correct_answers` returns, (q,).
        types: Type of each question, q in all.
        groups: Names of groups with the types that they have.

    >>> accuracy_by_type(np.array([1.0, 0.0, 1.0]), ["who", "who", "what"])
    {'accuracy': 66.66666666666666, 'accuracy/what': 100.0, 'accuracy/who': 50.0}
    """
    return means_by_type(correct, types, "accuracy", groups)


@METRICS.register_module()
class AnswerAccuracy(BaseMetric):
    """Accuracy in percent over all questions and by answer type, where the annotations have types.

    ``ceiling`` is the accuracy of a model that answers correctly whenever the correct answer is in the vocabulary.
    ``coverage`` is the share of videos that could be read; questions of the others are excluded. For multiple choice an item
    has the scores of the options of its first question, then those of the next.

    Args:
        outcomes_file: JSON file for the result of each question: the ``paths`` of the videos and what :func:`correct_answers`
            returns (``correct``), in the order of the annotations. None writes no file.
        groups: Names of groups of answer types with the types that they have, such as ``{"causal": ["CW", "CH"]}``, for an
            accuracy over each group.
        collect_device: Device that gathers the results of all ranks, "cpu" or "gpu".
        prefix: Prefix of the metrics' names.
        collect_dir: Folder that gathers the results of all ranks by way of the disk.
    """

    default_prefix = ""

    def __init__(
        self,
        *,
        outcomes_file: str | None = None,
        groups: Mapping[str, Sequence[str]] | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.outcomes_file, self.groups = outcomes_file, groups

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Add the predictions of some items."""
        for sample in data_samples:
            entry = dict(path=sample["path"], broken=sample["broken"])
            if sample["broken"] is None:
                labels = np.asarray(sample["answer_labels"])
                scores = sample["scores"].double().cpu().numpy().reshape(len(labels), -1)
                types = sample.get("answer_types", [""] * len(labels))
                entry |= dict(correct=correct_answers(scores, labels), known=labels != IGNORED, types=types)
            self.results.append(entry)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics over all items."""
        read, coverage = readable(results)
        types = [kind for entry in read for kind in entry["types"]]
        correct = np.concatenate([entry["correct"] for entry in read])
        metrics = accuracy_by_type(correct, types, self.groups)
        if self.outcomes_file is not None:
            paths = [entry["path"] for entry in read for _ in entry["correct"]]
            with atomic_write(self.outcomes_file) as file:
                json.dump(dict(paths=paths, correct=correct.tolist()), file)
        ceiling = float(np.concatenate([entry["known"] for entry in read]).mean() * 100)
        return metrics | {"ceiling": ceiling, "coverage": coverage}


@METRICS.register_module()
class CountError(BaseMetric):
    """Mean squared error of counts, unrounded and rounded, and the accuracy after rounding in percent.

    A warning counts the annotations outside of ``low`` to ``high``, which rounding can never predict.

    Args:
        low: Smallest count after rounding; 1 in TGIF-QA.
        high: Largest count after rounding; 10 in TGIF-QA, where it also stands for more.
        collect_device: Device that gathers the results of all ranks, "cpu" or "gpu".
        prefix: Prefix of the metrics' names.
        collect_dir: Folder that gathers the results of all ranks by way of the disk.
    """

    default_prefix = ""

    def __init__(
        self,
        *,
        low: int,
        high: int,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.low, self.high = low, high

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Add the predictions of some items."""
        for sample in data_samples:
            entry = dict(path=sample["path"], broken=sample["broken"])
            if sample["broken"] is None:
                entry |= dict(
                    predicted=sample["scores"].double().cpu().numpy(), counts=np.asarray(sample["counts"], float)
                )
            self.results.append(entry)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics over all items."""
        read, coverage = readable(results)
        predicted, counts = (np.concatenate([entry[key] for entry in read]) for key in ("predicted", "counts"))
        if outside := int(((counts < self.low) | (counts > self.high)).sum()):
            logger.warning(
                f"{outside} of {len(counts)} counts in the annotations are outside of {self.low} to {self.high}, which "
                "rounding can never predict. Set low and high of CountError, or convert TGIF-QA again: answers of 0 become 1."
            )
        rounded = np.clip(np.floor(predicted + 0.5), self.low, self.high)  # halves go up
        return {
            "mse": float(((predicted - counts) ** 2).mean()),
            "mse_rounded": float(((rounded - counts) ** 2).mean()),
            "accuracy": float((rounded == counts).mean() * 100),
            "coverage": coverage,
        }
