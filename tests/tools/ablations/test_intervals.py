"""Intervals against hand-computed and analytic cases."""

import math

import numpy as np
import pytest
from ablations.intervals import DRAWS, estimate, t_quantile

VALUES = {12: 2.1788, 29: 2.0452, 100: 1.9840}
"""Student's t at 97.5 % by degrees of freedom, from a table."""


def answers(*correct: float) -> dict[str, np.ndarray]:
    return {"accuracy": np.array(correct, float)}


@pytest.mark.parametrize("freedom", VALUES)
def test_the_t_quantile_is_that_of_a_table(freedom: int):
    assert t_quantile(freedom) == pytest.approx(VALUES[freedom], abs=2e-4)


def test_a_mean_and_its_intervals_by_hand():
    own = {0: answers(1, 0, 1, 0), 1: answers(1, 1, 1, 0), 2: answers(1, 1, 1, 1)}  # 50, 75, 100 %
    found = estimate({"a": 1.0}, {"a": own}, "accuracy", shared_queries=False)
    assert (found.mean, found.seeds) == (75, 3)
    half = 4.3027 * 25 / math.sqrt(3)
    assert found.over_seeds == (pytest.approx(75 - half), 100), "cut at what is possible"
    assert found.interval == (pytest.approx(75 - half), 100)


def test_the_bootstrap_is_the_binomial_standard_error():
    rng = np.random.default_rng(1)
    correct = (rng.random(400) < 0.3).astype(float)
    found = estimate({"a": 1.0}, {"a": {0: {"accuracy": correct}}}, "accuracy", shared_queries=False)
    low, high = found.over_queries
    wanted = (
        100 * 1.96 * correct.std() / math.sqrt(400)
    )  # the normal approximation of its analytic variance p (1 - p) / Q
    assert (high - low) / 2 == pytest.approx(wanted, rel=4 / math.sqrt(2 * DRAWS))
    assert (low + high) / 2 == pytest.approx(100 * correct.mean(), abs=0.1 * wanted)
    assert found.interval == found.over_seeds == (), "one seed says nothing of another"


def test_differences_are_paired():
    rng = np.random.default_rng(2)
    one = (rng.random(300) < 0.5).astype(float)
    other = one.copy()
    other[:3] = 1 - one[:3]  # the rows answer all but three questions alike
    outcomes = {"a": {0: {"accuracy": one}}, "b": {0: {"accuracy": other}}}
    paired = estimate({"a": 1.0, "b": -1.0}, outcomes, "accuracy", shared_queries=True).over_queries
    alone = estimate({"a": 1.0}, outcomes, "accuracy", shared_queries=True).over_queries
    assert max(map(abs, paired)) < 3
    assert alone[1] - alone[0] > 10


def test_seeds_with_worlds_of_their_own_cover_the_queries_and_shared_queries_add_theirs():
    rng = np.random.default_rng(3)
    own = {seed: {"accuracy": (rng.random(100) < 0.5).astype(float)} for seed in range(3)}
    worlds = estimate({"a": 1.0}, {"a": own}, "accuracy", shared_queries=False)
    union = [min(worlds.over_seeds[0], worlds.over_queries[0]), max(worlds.over_seeds[1], worlds.over_queries[1])]
    assert list(worlds.interval) == union
    shared = estimate({"a": 1.0}, {"a": own}, "accuracy", shared_queries=True)
    low, high = (
        math.hypot(s - shared.mean, q - shared.mean)
        for s, q in zip(shared.over_seeds, shared.over_queries, strict=True)
    )
    assert shared.interval == pytest.approx((shared.mean - low, shared.mean + high))


def test_the_interval_covers_the_truth_as_often_as_it_says():
    """Trainings of spread 3 points around 40 %, worlds of 200 questions: about 95 % of 300 tables are right."""
    rng = np.random.default_rng(4)
    hits, tables = 0, 300
    for _ in range(tables):
        own = {seed: {"accuracy": (rng.random(200) < rng.normal(0.4, 0.03)).astype(float)} for seed in range(3)}
        low, high = estimate({"a": 1.0}, {"a": own}, "accuracy", shared_queries=False).interval
        hits += low <= 40 <= high
    assert hits / tables > 0.95 - 3 * math.sqrt(0.95 * 0.05 / tables)


def test_ranks_are_median_or_mean_and_cut_at_one():
    own = {seed: {"t2v/rank": np.array(ranks)} for seed, ranks in enumerate(([1.0, 2.0, 9.0], [1.0, 1.0, 4.0]))}
    median = estimate({"a": 1.0}, {"a": own}, "t2v/MdR", shared_queries=False)
    assert median.mean == 1.5
    assert median.interval[0] == 1
    assert estimate({"a": 1.0}, {"a": own}, "t2v/MnR", shared_queries=False).mean == 3


def test_only_seeds_that_all_rows_have_are_compared():
    outcomes = {"a": {0: answers(1, 1), 1: answers(0, 0)}, "b": {1: answers(1, 0)}}
    assert estimate({"a": 1.0, "b": -1.0}, outcomes, "accuracy", shared_queries=False).mean == -50
    assert estimate({"a": 1.0, "c": -1.0}, outcomes, "accuracy", shared_queries=False) is None
    assert estimate({"a": 1.0}, outcomes, "t2v/R@1", shared_queries=False) is None
