"""Calibration by hand, pair by pair, and in blocks."""

import numpy as np
import pytest

from clipbert_mm.evaluation import CalibrationBins, calibration


def log_odds(probabilities: list[float]) -> np.ndarray:
    values = np.array(probabilities)
    return np.log(values / (1 - values))


def test_five_pairs_by_hand():
    bins = CalibrationBins()
    bins.add(log_odds([0.02, 0.04, 0.55, 0.57, 0.96]), np.array([False, True, True, False, True]))
    # Bins of 1/15: the first has two pairs, mean 0.03, one right; (8/15, 9/15] two, mean 0.56, one right; the last one, right.
    error = (2 * abs(0.5 - 0.03) + 2 * abs(0.5 - 0.56) + abs(1 - 0.96)) / 5
    brier = (0.02**2 + 0.96**2 + 0.45**2 + 0.57**2 + 0.04**2) / 5
    assert bins.metrics() == pytest.approx({"ECE": error, "Brier": brier, "TPR@0.5": 200 / 3})
    assert bins.pairs.tolist() == [2] + [0] * 7 + [2] + [0] * 5 + [1]
    assert bins.right.tolist() == [1] + [0] * 7 + [1] + [0] * 5 + [1]
    assert bins.to_dict()["probability"][8] == pytest.approx(1.12)


def metrics_by_pair(odds: np.ndarray, right: np.ndarray) -> dict[str, float]:
    """The metrics, pair by pair."""
    pairs = [(1 / (1 + np.exp(-value)), bool(label)) for value, label in zip(odds.ravel(), right.ravel(), strict=True)]
    members: dict[int, list[tuple[float, bool]]] = {}
    for probability, label in pairs:
        (own,) = [m for m in range(15) if m / 15 < probability <= (m + 1) / 15]
        members.setdefault(own, []).append((probability, label))
    error = 0.0
    for own in members.values():
        accuracy = sum(label for _, label in own) / len(own)
        confidence = sum(probability for probability, _ in own) / len(own)
        error += len(own) / len(pairs) * abs(accuracy - confidence)
    told = [probability >= 0.5 for probability, label in pairs if label]
    brier = sum((probability - label) ** 2 for probability, label in pairs) / len(pairs)
    return {"ECE": error, "Brier": brier, "TPR@0.5": 100 * sum(told) / len(told)}


def test_a_matrix_in_blocks_is_as_pair_by_pair(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(0)
    odds, right = rng.normal(0, 3, (23, 17)), rng.random((23, 17)) < 0.2
    wanted = metrics_by_pair(odds, right)
    monkeypatch.setattr(calibration, "BLOCK", 20)
    blocks, halves = CalibrationBins(), CalibrationBins()
    blocks.add(odds, right)
    for rows in (slice(0, 10), slice(10, 23)):
        halves.add(odds[rows], right[rows])
    assert blocks.metrics() == pytest.approx(wanted)
    assert halves.metrics() == pytest.approx(wanted)
    assert blocks.pairs.sum() == 23 * 17


def test_probabilities_that_are_true_have_no_error_and_certain_ones_do_not_overflow():
    rng = np.random.default_rng(0)
    probability = rng.random(200_000)
    bins = CalibrationBins()
    bins.add(log_odds(probability.tolist()), rng.random(200_000) < probability)
    assert bins.metrics()["ECE"] < 0.005
    assert bins.metrics()["Brier"] == pytest.approx(1 / 6, abs=0.003)  # the mean of p (1 - p)
    certain = CalibrationBins()
    certain.add(np.array([1e30, -1e30, 0.0], np.float32), np.array([True, False, True]))
    assert certain.metrics() == pytest.approx({"ECE": 0.5 / 3, "Brier": 0.25 / 3, "TPR@0.5": 100.0})
    assert (certain.pairs[0], certain.pairs[7], certain.pairs[14]) == (1, 1, 1)
