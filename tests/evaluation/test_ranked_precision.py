"""Average precision and R-precision by hand, and over every order of the ties."""

import itertools

import numpy as np
import pytest

from clipbert_mm.evaluation import multi_positive_metrics, precision_figures


def precision_by_rank(ranking: list[int], right: list[bool]) -> tuple[float, float]:
    """AP and R-precision of a ranking, candidate by candidate."""
    total, hits, precisions = sum(right), 0, []
    for rank, candidate in enumerate(ranking, start=1):
        if right[candidate]:
            hits += 1
            precisions.append(hits / rank)
    return sum(precisions) / total, sum(right[candidate] for candidate in ranking[:total]) / total


def test_three_queries_and_four_videos_by_hand():
    scores = np.array([[9.0, 7.0, 5.0, 3.0], [1.0, 2.0, 3.0, 4.0], [0.0, 8.0, 6.0, 7.0]])
    relevant = np.array([[True, False, True, False], [True, True, False, False], [False, True, True, True]])
    figures = precision_figures(scores, relevant)
    # Relevant at ranks 1 and 3; at 3 and 4; at 1, 2 and 3.
    assert figures["AP"].tolist() == pytest.approx([(1 + 2 / 3) / 2, (1 / 3 + 2 / 4) / 2, 1.0])
    assert figures["R-precision"].tolist() == [0.5, 0.0, 1.0]
    metrics = multi_positive_metrics(scores, relevant)
    assert metrics["t2v/mAP"] == pytest.approx(100 * (5 / 6 + 5 / 12 + 1) / 3)
    assert metrics["t2v/R-precision"] == pytest.approx(50)
    assert (metrics["t2v/R@1"], metrics["t2v/MdR"], metrics["t2v/MnR"]) == (pytest.approx(200 / 3), 1.0, 5 / 3)
    # Of each video the texts in order, relevant ones in brackets: [0] [1] 2; [2] 0 [1]; [2] [0] 1; [2] 1 0.
    assert metrics["v2t/mAP"] == pytest.approx(100 * (1 + (1 + 2 / 3) / 2 + 1 + 1) / 4)
    assert metrics["v2t/R-precision"] == pytest.approx(100 * (1 + 1 / 2 + 1 + 1) / 4)
    assert metrics["v2t/R@1"] == 100


@pytest.mark.parametrize("seed", range(4))
def test_ties_count_by_their_expectation_over_all_orders(seed: int):
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (10, 6)).astype(float)
    relevant = rng.random((10, 6)) < 0.4
    relevant[np.arange(10), rng.integers(0, 6, 10)] = True
    figures = precision_figures(scores, relevant)
    for query, (row, own) in enumerate(zip(scores.tolist(), relevant.tolist(), strict=True)):
        rankings = [sorted(order, key=lambda i: -row[i]) for order in itertools.permutations(range(6))]
        wanted = np.mean([precision_by_rank(ranking, own) for ranking in rankings], axis=0)
        assert [figures["AP"][query], figures["R-precision"][query]] == pytest.approx(wanted.tolist())


def test_a_perfect_and_the_worst_ranking():
    relevant = np.arange(10)[None] < 4
    best, worst = -np.arange(10.0)[None], np.arange(10.0)[None]
    assert precision_figures(best, relevant) == {"AP": [1.0], "R-precision": [1.0]}
    found = precision_figures(worst, relevant)
    assert found["AP"][0] == pytest.approx((1 / 7 + 2 / 8 + 3 / 9 + 4 / 10) / 4)
    assert found["R-precision"][0] == 0
    assert precision_figures(np.zeros((1, 1)), np.ones((1, 1), bool)) == {"AP": [1.0], "R-precision": [1.0]}
