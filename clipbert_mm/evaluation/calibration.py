"""Calibration: whether a pair that is told a probability of p belongs together in a share p of the cases."""

from typing import Any

import numpy as np

BINS = 15
"""Bins of equal width, as in Guo et al. 2017."""
BLOCK = 2**20
"""Pairs that are binned at once, which bounds the memory."""


class CalibrationBins:
    """Count pairs of a text and a video by their probability of a match, block by block.

    Bin m of 15 holds the probabilities in ((m - 1) / 15, m / 15], the first also 0. The error of a bin is the distance between
    its share of right pairs and its mean probability; the expected calibration error (ECE) is the mean of the bins' errors,
    weighted by their pairs (Guo et al., On Calibration of Modern Neural Networks, 2017, Eq. 3). As in its definition for two
    classes (Naeini et al., Obtaining Well Calibrated Probabilities Using Bayesian Binning, 2015), the probability is that of a
    match, not of the likelier class.

    Attributes:
        pairs: Pairs in each bin, int (15,).
        right: Right pairs in each bin, int (15,).
        probability: Sum of the probabilities in each bin, float (15,).

    >>> bins = CalibrationBins()
    >>> bins.add(np.array([0.0, -20.0]), np.array([True, False]))
    >>> {name: round(value, 6) for name, value in bins.metrics().items()}
    {'ECE': 0.25, 'Brier': 0.125, 'TPR@0.5': 100.0}
    """

    def __init__(self) -> None:
        self.pairs, self.right = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self.probability = np.zeros(BINS)
        self._squares = 0.0
        self._told = 0

    def add(self, log_odds: np.ndarray, right: np.ndarray) -> None:
        """Add pairs.

        Args:
            log_odds: Log-odds of a match, any shape.
            right: Whether each pair belongs together, bool, of the same shape.
        """
        log_odds, right = log_odds.ravel(), right.ravel()
        for start in range(0, len(log_odds), BLOCK):
            odds, labels = log_odds[start : start + BLOCK].astype(float), right[start : start + BLOCK]
            probability = (1 + np.tanh(odds / 2)) / 2  # the sigmoid, which overflows nowhere
            bins = np.searchsorted(np.arange(1, BINS) / BINS, probability)
            self.pairs += np.bincount(bins, minlength=BINS)
            self.right += np.bincount(bins[labels], minlength=BINS)
            self.probability += np.bincount(bins, probability, minlength=BINS)
            self._squares += float(((probability - labels) ** 2).sum())
            self._told += int((odds[labels] >= 0).sum())

    def metrics(self) -> dict[str, float]:
        """Compute the metrics of all pairs that were added.

        Returns:
            ``ECE``, 0 to 1; ``Brier``, the mean squared error of the probabilities, 0 to 1 (Brier, Verification of Forecasts
            Expressed in Terms of Probability, 1950, in its form for two classes); and ``TPR@0.5``, the true positive rate at
            0.5: the share of right pairs that are told a probability of 50 % or more, in percent.
        """
        total = self.pairs.sum()
        error = np.abs(self.right - self.probability).sum() / total
        return {
            "ECE": float(error),
            "Brier": self._squares / float(total),
            "TPR@0.5": 100 * self._told / int(self.right.sum()),
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the bins as plain values, for JSON and :func:`~clipbert_mm.visualization.draw_reliability`."""
        return dict(
            pairs=self.pairs.tolist(),
            right=self.right.tolist(),
            probability=self.probability.tolist(),
            **self.metrics(),
        )
