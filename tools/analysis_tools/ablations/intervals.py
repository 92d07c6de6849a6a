"""Intervals over seeds and over queries, of a metric and of paired contrasts of it between rows.

A seed is a training, and where the data is generated also a world of its own with queries of its own. Two sources of chance
are told apart:

* over queries: the bootstrap resamples the queries of each seed with its trainings as they are;
* over seeds: Student's t interval of the values of the seeds, with one degree of freedom less than there are seeds.

Where each seed has queries of its own, values of seeds differ by their queries too, so the interval over seeds covers both;
the interval is the union of the two, since a few seeds may agree by luck. Where all seeds share the queries, the interval over
seeds does not cover the choice of queries, and the distances to the ends are added in quadrature. Rows are compared on the same
seeds and the same resampled queries.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from statistics import NormalDist, fmean, stdev

import numpy as np

DRAWS = 2000
"""Resampled tests of the bootstrap."""
LEVEL = 0.95
"""Probability of the intervals."""
T_QUANTILES = (12.7062, 4.3027, 3.1824, 2.7764, 2.5706, 2.4469, 2.3646, 2.3060, 2.2622, 2.2281)
"""Student's t at 97.5 %, by degrees of freedom from 1."""
Interval = tuple[float, float]
Outcomes = Mapping[str, np.ndarray]
"""For each query, by metric: its share (R@K, AP, correct, 0 to 1) or its rank, (Q,) each."""


class Unordered(dict[str, np.ndarray]):
    """Outcomes of which is not known which query had which: how many were right is."""


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its intervals.

    Args:
        mean: Mean over the seeds.
        seeds: Number of seeds.
        over_queries: Interval by bootstrap over the queries, the trainings as they are.
        over_seeds: Student's t interval over the seeds; empty for one seed.
        interval: Both together; empty for one seed, which says nothing of another training.
    """

    mean: float
    seeds: int
    over_queries: Interval | tuple[()]
    over_seeds: Interval | tuple[()]
    interval: Interval | tuple[()]


def t_quantile(freedom: int) -> float:
    """Return the 97.5 % quantile of Student's t.

    From 11 degrees of freedom by its expansion (Abramowitz and Stegun, 26.7.5).

    >>> round(t_quantile(2), 3), round(t_quantile(20), 3)
    (4.303, 2.086)
    """
    if freedom <= len(T_QUANTILES):
        return T_QUANTILES[freedom - 1]
    z = NormalDist().inv_cdf((1 + LEVEL) / 2)
    terms = (z, (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384)
    return sum(term / freedom**power for power, term in enumerate(terms))


def value_of(outcomes: Outcomes, metric: str) -> float:
    """Compute a metric of some queries: a median (MdR) or mean (MnR) of ranks, or a mean share in percent.

    >>> value_of({"accuracy": np.array([1.0, 0.0, 1.0, 1.0])}, "accuracy")
    75.0
    """
    return float(_reduce(outcomes[outcome_key(metric)][None], metric)[0])


def outcome_key(metric: str) -> str:
    """Return the name of the outcomes that a metric is computed of.

    >>> outcome_key("t2v/MdR"), outcome_key("t2v/R@1"), outcome_key("t2v/mAP")
    ('t2v/rank', 't2v/R@1', 't2v/AP')
    """
    way, _, name = metric.rpartition("/")
    return f"{way}/" * bool(way) + {"MdR": "rank", "MnR": "rank", "mAP": "AP"}.get(name, name)


def less_is_better(metric: str) -> bool:
    """Say whether a smaller value of a metric is better."""
    return metric.rpartition("/")[2] in ("MdR", "MnR")


def _reduce(values: np.ndarray, metric: str) -> np.ndarray:
    """Compute a metric of rows of queries, (n, Q) to (n,)."""
    name = metric.rpartition("/")[2]
    if name == "MdR":
        return np.median(values, axis=1)
    return values.mean(axis=1) * (1 if name == "MnR" else 100)


@lru_cache(maxsize=16)
def _drawn(queries: int, stream: int) -> np.ndarray:
    """Draw queries with replacement, (DRAWS, Q); the same for all rows, so that they are compared on the same ones."""
    return np.random.default_rng(stream).integers(0, queries, (DRAWS, queries), dtype=np.int32)


def resampled(outcomes: Outcomes, metric: str, stream: int) -> np.ndarray:
    """Compute a metric of resampled queries, (DRAWS,); equal streams draw equal queries."""
    values = outcomes[outcome_key(metric)]
    return _reduce(values[_drawn(len(values), stream)], metric)


def estimate(
    contrast: Mapping[str, float],
    outcomes: Mapping[str, Mapping[int, Outcomes]],
    metric: str,
    *,
    shared_queries: bool,
    kept: Estimate | None = None,
) -> Estimate | None:
    """Estimate a weighted sum of rows' metrics, over the seeds that all of these rows have.

    Args:
        contrast: Weight of each row; ``{"a": 1}`` is the row's own metric, ``{"a": 1, "b": -1}`` the paired difference.
        outcomes: What became of each query, by row and seed. In a seed, all rows have the same queries.
        metric: The metric.
        shared_queries: Whether all seeds have the same queries.
        kept: The estimate of an earlier report, of the seeds whose outcomes are Unordered; None for none.

    Returns:
        The estimate; None if there is no seed that all rows have.
    """
    rows = [outcomes.get(row, {}) for row in contrast]
    key = outcome_key(metric)
    seeds = sorted(set.intersection(*(set(row) for row in rows))) if rows else []
    seeds = [seed for seed in seeds if len({len(row[seed].get(key, ())) for row in rows}) == 1 and key in rows[0][seed]]
    if not seeds:
        return None
    weights = list(contrast.values())
    values = [sum(w * value_of(row[seed], metric) for w, row in zip(weights, rows, strict=True)) for seed in seeds]
    unordered = [seed for seed in seeds if any(isinstance(row[seed], Unordered) for row in rows)]
    ordered = [seed for seed in seeds if seed not in unordered]
    before = [value for value, seed in zip(values, seeds, strict=True) if seed in unordered]
    # An estimate of other results has another mean.
    if kept is None or not before or kept.seeds != len(before) or abs(kept.mean - fmean(before)) > 1e-6:
        over_queries = _over_queries(weights, rows, seeds, metric, shared_queries)
    elif not ordered:
        over_queries = kept.over_queries
    else:
        mean = fmean(value for value, seed in zip(values, seeds, strict=True) if seed in ordered)
        new = Estimate(mean, len(ordered), _over_queries(weights, rows, ordered, metric, shared_queries), (), ())
        over_queries = joined(kept, new, shared_queries=shared_queries)
    found = combine(values, over_queries, shared_queries=shared_queries)
    return within(found, *bounds(metric)) if weights == [1.0] else found


def _over_queries(
    weights: Sequence[float],
    rows: Sequence[Mapping[int, Outcomes]],
    seeds: Sequence[int],
    metric: str,
    shared_queries: bool,
) -> Interval:
    """Return the interval of a contrast over the queries of some seeds, by bootstrap.

    In a seed with Unordered outcomes each row's queries are resampled on their own, which makes it wider.
    """
    draws = np.mean(
        [
            sum(
                w * resampled(row[seed], metric, stream)
                for w, row, stream in zip(weights, rows, _streams(rows, seed, shared_queries), strict=True)
            )
            for seed in seeds
        ],
        axis=0,
    )
    low, high = np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def joined(one: Estimate, other: Estimate, *, shared_queries: bool) -> Interval:
    """Return the interval over queries of the mean of two sets of seeds.

    Their distances to the ends, weighted by the number of seeds, are added: in quadrature if each set has queries of its own,
    else as they are, since they err together.

    >>> one, other = Estimate(1.0, 3, (0.0, 2.0), (), ()), Estimate(2.0, 2, (1.0, 3.0), (), ())
    >>> joined(one, other, shared_queries=False)  # sqrt(0.6**2 + 0.4**2) = 0.721
    (0.678..., 2.121...)
    >>> joined(one, other, shared_queries=True)
    (0.39..., 2.4)
    """
    shares = [each.seeds / (one.seeds + other.seeds) for each in (one, other)]
    mean = shares[0] * one.mean + shares[1] * other.mean

    def distance(end: int) -> float:
        parts = [s * abs(each.over_queries[end] - each.mean) for s, each in zip(shares, (one, other), strict=True)]
        return sum(parts) if shared_queries else math.hypot(*parts)

    return mean - distance(0), mean + distance(1)


def _streams(rows: Sequence[Mapping[int, Outcomes]], seed: int, shared_queries: bool) -> list[int]:
    """Return what the queries of each row of a seed are drawn by: the same, unless their order is not known."""
    stream = 0 if shared_queries else seed
    if any(isinstance(row[seed], Unordered) for row in rows):
        return [stream + 1000 * number for number in range(1, len(rows) + 1)]
    return [stream] * len(rows)


def bounds(metric: str) -> Interval:
    """Return the smallest and the largest value that a metric can have."""
    return (1.0, math.inf) if less_is_better(metric) else (0.0, 100.0)


def within(found: Estimate, low: float, high: float) -> Estimate:
    """Cut the intervals of an estimate at the smallest and the largest value that is possible."""

    def cut(interval: Interval | tuple[()]) -> Interval | tuple[()]:
        return (max(interval[0], low), min(interval[1], high)) if interval else ()

    return replace(
        found, over_queries=cut(found.over_queries), over_seeds=cut(found.over_seeds), interval=cut(found.interval)
    )


def combine(values: Sequence[float], over_queries: Interval, *, shared_queries: bool) -> Estimate:
    """Join the interval over queries with that over seeds.

    >>> combine([1.0, 2.0, 3.0], (1.5, 2.5), shared_queries=False).interval  # 2 ± 4.3027 / sqrt(3)
    (-0.484..., 4.484...)
    """
    mean = fmean(values)
    if len(values) < 2:
        return Estimate(mean, len(values), over_queries, (), ())
    half = t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
    low, high = over_queries
    if shared_queries:
        interval = (mean - math.hypot(half, mean - low), mean + math.hypot(half, high - mean))
    else:
        interval = (min(mean - half, low), max(mean + half, high))
    return Estimate(mean, len(values), over_queries, (mean - half, mean + half), interval)
