"""Accuracy of the two pre-training objectives on held-out images."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from clipbert_mm.evaluation.coverage import readable
from clipbert_mm.registry import METRICS


@METRICS.register_module()
class PretrainingAccuracy(BaseMetric):
    """Accuracy of image-text matching and of masked language modeling in percent.

    A text is predicted to match if its score, the log-odds of a match, is above 0; a score of exactly 0 counts half.

    Arguments are those of MMEngine's BaseMetric.
    """

    default_prefix = ""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Add the predictions of some items."""
        for sample in data_samples:
            entry = dict(path=sample["path"], broken=sample["broken"])
            if sample["broken"] is None:
                scores, labels = sample["scores"].double().cpu().numpy(), np.asarray(sample["match_labels"])
                matching = np.where(scores == 0, 0.5, (scores > 0) == (labels == 1))
                entry |= dict(matching=matching, words=sample["mlm_correct"].cpu().numpy())
            self.results.append(entry)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics over all items."""
        read, coverage = readable(results)
        matching, words = (np.concatenate([entry[key] for entry in read]) for key in ("matching", "words"))
        return {
            "matching_accuracy": float(matching.mean() * 100),
            "mlm_accuracy": float(words.mean() * 100),
            "coverage": coverage,
        }
