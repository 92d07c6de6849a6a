"""Metrics of retrieval in both directions, with any number of captions per video."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation.calibration import CalibrationBins
from clipbert_mm.evaluation.coverage import readable
from clipbert_mm.evaluation.moments import moment_figures
from clipbert_mm.evaluation.ranked_precision import precision_figures
from clipbert_mm.fileio import atomic_write
from clipbert_mm.log import logger
from clipbert_mm.registry import METRICS

RECALLS = (1, 5, 10)
"""The k of recall@k."""
DRAWN = 2**16
"""Queries that a bootstrap resamples at a time, at most."""

Figures = Mapping[str, np.ndarray]
"""For each query the probability of a hit at k, ``R@1`` ..., and the expected ``rank``; (Q,) each. In multi-positive retrieval
also ``AP`` and ``R-precision``."""


def best_ranks(scores: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Rank the best relevant candidate of each query, from 1.

    Ties count by their expectation under random order: an irrelevant candidate with the same score as the best relevant one
    adds half a rank, or 1 / (r + 1) of a rank where r relevant ones share that score. So a model that gives all candidates
    the same score ranks as chance does, not first.

    Args:
        scores: Score of each query and candidate, (Q, G), unrounded, larger is better.
        relevant: Which candidates are relevant to a query, bool (Q, G), at least one each.

    Returns:
        The expected ranks, float (Q,).

    Raises:
        OptionError: If the shapes differ, a query has no relevant candidate, or a score is NaN.

    >>> best_ranks(np.array([[0.9, 0.1, 0.5]]), np.array([[False, False, True]])).tolist()
    [2.0]
    >>> best_ranks(np.zeros((1, 3)), np.array([[False, False, True]])).tolist()
    [2.0]
    """
    return query_figures(scores, relevant)["rank"]


def query_figures(scores: np.ndarray, relevant: np.ndarray) -> dict[str, np.ndarray]:
    """Compute for each query the probability that a relevant candidate is among the first k, and its expected rank.

    Candidates with equal scores are in random order. Let a irrelevant candidates score above the best relevant score, and e
    irrelevant and r relevant ones have it. Then the first k candidates contain a relevant one unless the first j = k - a of
    the e + r tied ones are all irrelevant: the probability is 1 - C(e, j) / C(e + r, j), and 0 where j < 1. Without ties it is
    1 or 0.

    Arguments and errors as for :func:`best_ranks`.

    Returns:
        ``R@1``, ``R@5``, ``R@10`` (probabilities, 0 to 1) and ``rank``, float (Q,) each.

    >>> {name: values.tolist() for name, values in query_figures(np.zeros((1, 2)), np.array([[True, False]])).items()}
    {'R@1': [0.5], 'R@5': [1.0], 'R@10': [1.0], 'rank': [1.5]}
    """
    if scores.shape != relevant.shape or scores.ndim != 2:
        raise OptionError(f"best_ranks expects two arrays of shape (Q, G), got {scores.shape} and {relevant.shape}.")
    if np.isnan(scores).any():
        raise OptionError(f"best_ranks expects scores without NaN, got {int(np.isnan(scores).sum())} NaN.")
    if not relevant.any(axis=1).all():
        raise OptionError(f"best_ranks: query {int(np.argmin(relevant.any(axis=1)))} has no relevant candidate.")
    best = np.where(relevant, scores, -np.inf).max(axis=1, keepdims=True)  # (Q, 1)
    above = ((scores > best) & ~relevant).sum(axis=1)
    equal = ((scores == best) & ~relevant).sum(axis=1)
    tied = ((scores == best) & relevant).sum(axis=1)
    figures = {f"R@{k}": 1.0 - _probability_of_none(equal, tied, k - above) for k in RECALLS}
    return figures | {"rank": 1.0 + above + equal / (tied + 1)}


def _probability_of_none(equal: np.ndarray, tied: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Return the probability of no relevant candidate in ``drawn`` draws, C(e, j) / C(e + r, j), (Q,)."""
    probability = np.ones(len(equal))
    for i in range(max(RECALLS)):
        factor = np.maximum(equal - i, 0) / np.maximum(equal + tied - i, 1)
        probability = np.where(i < drawn, probability * factor, probability)
    return probability


def summarize(figures: Figures) -> dict[str, float]:
    """Compute the metrics of some queries: recalls in percent, median (MdR) and mean (MnR) of the expected ranks.

    In multi-positive retrieval also mean average precision (mAP) and R-precision, in percent.
    """
    return {name: float(value) for name, value in _over_queries(figures).items()}


def _over_queries(figures: Figures) -> dict[str, np.ndarray]:
    """Compute what :func:`summarize` does over the last axis, (..., Q) to (...)."""
    shares = {f"R@{k}": f"R@{k}" for k in RECALLS} | {"mAP": "AP", "R-precision": "R-precision"}
    percent = {name: figures[key].mean(axis=-1) * 100 for name, key in shares.items() if key in figures}
    return percent | {"MdR": np.median(figures["rank"], axis=-1), "MnR": figures["rank"].mean(axis=-1)}


def retrieval_metrics(scores: np.ndarray, text_video: np.ndarray) -> dict[str, float]:
    """Compute R@1/5/10 in percent, median and mean rank, text to video and video to text.

    Each text is a query for its one video; each video is a query for any of its texts, of which the best counts. Ties count by
    their expectation under random order: recall and MnR are what many random orders give on average, MdR is the median of the
    expected ranks; see :func:`query_figures`.

    Args:
        scores: Score of each text and video, (texts, videos).
        text_video: The video of each text, int (texts,); every video has at least one.

    Returns:
        ``t2v/R@1`` ... ``t2v/MnR`` and the same under ``v2t/``.

    >>> retrieval_metrics(np.zeros((2, 2)), np.array([0, 1]))["t2v/R@1"]
    50.0
    """
    return _summarize_both_ways(_figures_both_ways(scores, relevance(text_video, scores.shape[1])))


def multi_positive_metrics(scores: np.ndarray, relevant: np.ndarray) -> dict[str, float]:
    """Compute the metrics of retrieval in which a text may be true of several videos, text to video and video to text.

    Mean average precision (mAP) and R-precision count all relevant candidates of a query, see
    :func:`~clipbert_mm.evaluation.ranked_precision.precision_figures`; R@1/5/10, MdR and MnR the best one, see
    :func:`query_figures`.

    Args:
        scores: Score of each text and video, (texts, videos); each text is there once.
        relevant: Which videos each text is true of, bool (texts, videos), at least one in each row and column.

    Returns:
        ``t2v/R@1`` ... ``t2v/mAP``, ``t2v/R-precision``, ``t2v/MdR`` and ``t2v/MnR``, and the same under ``v2t/``.

    >>> metrics = multi_positive_metrics(np.array([[3.0, 1.0, 2.0]]), np.array([[True, True, True]]))
    >>> metrics["t2v/mAP"], metrics["t2v/R-precision"]
    (100.0, 100.0)
    """
    return _summarize_both_ways(_figures_both_ways(scores, relevant, multi_positive=True))


def _summarize_both_ways(both_ways: Mapping[str, Figures]) -> dict[str, float]:
    return {f"{way}/{name}": value for way, own in both_ways.items() for name, value in summarize(own).items()}


def _figures_both_ways(
    scores: np.ndarray, relevant: np.ndarray, *, multi_positive: bool = False
) -> dict[str, dict[str, np.ndarray]]:
    """Find what becomes of each text's videos (``t2v``, (texts,) each) and of each video's texts (``v2t``, (videos,))."""
    both_ways = {}
    for way, own, right in (("t2v", scores, relevant), ("v2t", scores.T, relevant.T)):
        both_ways[way] = query_figures(own, right) | (precision_figures(own, right) if multi_positive else {})
    return both_ways


def relevance(text_video: np.ndarray | Sequence[Any], videos: int) -> np.ndarray:
    """Return which videos are relevant to each text, bool (texts, videos).

    Args:
        text_video: The video of each text, or the list of its videos.
        videos: Number of videos.

    >>> relevance([0, [0, 1]], 2).tolist()
    [[True, False], [True, True]]
    """
    relevant = np.zeros((len(text_video), videos), bool)
    for row, own in zip(relevant, text_video, strict=True):
        row[own] = True
    return relevant


def group_texts(texts: Sequence[str], text_video: np.ndarray) -> tuple[list[int], list[list[int]]]:
    """Group equal texts.

    Args:
        texts: The texts.
        text_video: The video of each, int (texts,).

    Returns:
        The index of the first of each group, and the videos of the group.

    >>> group_texts(["a", "b", "a"], np.array([0, 0, 1]))
    ([0, 1], [[0, 1], [0]])
    """
    first: dict[str, int] = {}
    videos: dict[str, dict[int, None]] = {}
    for i, (text, video) in enumerate(zip(texts, text_video.tolist(), strict=True)):
        first.setdefault(text, i)
        videos.setdefault(text, {})[video] = None
    return list(first.values()), [list(own) for own in videos.values()]


def shortlist_recall(chosen: np.ndarray, text_video: np.ndarray | Sequence[Any]) -> dict[str, float]:
    """Compute the share of queries with a relevant candidate in a shortlist, in percent, in both directions.

    Args:
        chosen: Which pairs are in the shortlist, bool (texts, videos).
        text_video: The video of each text, int (texts,), or the list of its videos; every video has at least one text.

    Returns:
        ``t2v/shortlist_recall`` and ``v2t/shortlist_recall``, the upper bound of every recall after re-ranking.
    """
    kept = chosen & relevance(text_video, chosen.shape[1])  # (texts, videos)
    return {
        f"{way}/shortlist_recall": float(kept.any(axis=axis).mean() * 100) for way, axis in (("t2v", 1), ("v2t", 0))
    }


def write_rankings(
    path: str | os.PathLike,
    videos: Sequence[str],
    texts: Sequence[str],
    text_video: np.ndarray | Sequence[Any],
    scores: np.ndarray,
    ranks: Mapping[str, np.ndarray],
    calibration: Mapping[str, Any] | None = None,
) -> None:
    """Write the result of each query: videos, texts and ranks to a JSON file, scores to a ``.npy`` file.

    Args:
        path: The JSON file; the scores get the same name with ``.npy``.
        videos: Path of each video.
        texts: The texts.
        text_video: The video of each text, int (texts,), or the list of its videos.
        scores: Scores, (texts, videos).
        ranks: Expected rank of each query, by direction, ``t2v`` and ``v2t``.
        calibration: :meth:`~clipbert_mm.evaluation.CalibrationBins.to_dict` of the bins of all pairs; None for none.
    """
    with atomic_write(Path(path).with_suffix(".npy"), "wb") as file:
        np.save(file, scores)
    about: dict[str, Any] = dict(videos=list(videos), texts=list(texts), text_video=list(text_video), ranks=dict(ranks))
    if calibration is not None:
        about["calibration"] = calibration
    with atomic_write(path) as file:
        json.dump(about, file, default=lambda array: array.tolist())


def read_rankings(path: str | os.PathLike) -> dict[str, Any]:
    """Read what :func:`write_rankings` wrote, with ``scores`` and ``relevant``, (texts, videos) each."""
    scores = np.load(Path(path).with_suffix(".npy"))
    rankings = json.loads(Path(path).read_text(encoding="utf-8"))
    return rankings | {"scores": scores, "relevant": relevance(rankings["text_video"], scores.shape[1])}


def bootstrap_intervals(
    figures: Figures,
    *,
    draws: int = 1000,
    seed: int = 0,
    level: float = 0.95,
    metrics_of: Callable[[Figures], dict[str, np.ndarray]] = _over_queries,
) -> dict[str, tuple[float, float]]:
    """Estimate confidence intervals of the metrics by bootstrap over the queries.

    Args:
        figures: Result of each query, from :func:`query_figures`.
        draws: Number of resampled tests.
        seed: Seed of the resampling.
        level: Share of the draws inside an interval.
        metrics_of: Computes the metrics of queries over the last axis, (..., Q) to (...).

    Returns:
        Lower and upper end for each of R@1, R@5, R@10, MdR and MnR, or what ``metrics_of`` returns.
    """
    rng = np.random.default_rng(seed)
    count = len(next(iter(figures.values())))
    at_a_time = max(1, DRAWN // count)
    parts = []
    for first in range(0, draws, at_a_time):
        drawn = rng.integers(0, count, (min(at_a_time, draws - first), count))
        parts.append(metrics_of({name: values[drawn] for name, values in figures.items()}))
    ends = [(1 - level) / 2, (1 + level) / 2]
    resampled = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}  # (draws,) each
    return {name: tuple(np.quantile(values, ends).tolist()) for name, values in resampled.items()}


def _log_intervals(
    what: str, over: str, figures: Figures, metrics_of: Callable[[Figures], dict[str, np.ndarray]] = _over_queries
) -> None:
    intervals = bootstrap_intervals(figures, metrics_of=metrics_of)
    ends = ", ".join(f"{name} {low:.1f} to {high:.1f}" for name, (low, high) in intervals.items())
    logger.info(f"{what}, 95 % intervals by bootstrap over {over}: {ends}")


@METRICS.register_module()
class RetrievalMetric(BaseMetric):
    """Retrieval metrics over the whole gallery, from one entry per video.

    An entry is a dict with ``sample_idx``, ``path``, ``texts`` (the video's captions), ``broken`` (None, or why the video
    could not be read) and, as tensors like the scores of other tasks, ``scores`` (of all texts of the gallery in the order of
    their videos, (texts,)). Videos that could not be read are excluded with their captions; ``coverage`` is the share of videos
    that were tested. If the loop re-ranked only a shortlist, entries have ``shortlist`` (which of all texts are in it,
    (texts,)), and ``t2v/shortlist_recall`` and ``v2t/shortlist_recall`` are the shares of queries with a relevant candidate in
    it.

    Where captions have time spans, entries have ``spans`` (of each caption, None for one without), ``clip_scores`` (of each
    caption and clip, (m, K)) and ``clip_times`` (K, 2). ``moments/accuracy`` is then the share of these captions whose best
    clip lies in a span, and ``moments/chance`` the mean share of clips that do, in percent; see
    :func:`~clipbert_mm.evaluation.moments.moment_figures`.

    Args:
        multi_positive: Whether equal texts are one query, for which all videos with this text are relevant. The metrics are
            then those of :func:`multi_positive_metrics`. The retrieval loop encodes and scores equal texts once.
        calibration: Whether to test the probabilities of all pairs: ``calibration/ECE``, ``calibration/Brier`` and
            ``calibration/TPR@0.5``, see :class:`~clipbert_mm.evaluation.calibration.CalibrationBins`. Scores must be log-odds,
            as of a MatchingHead, and of all clips for all pairs.
        rankings_file: JSON file for the result of each query: ``videos``, ``texts``, the index of the video of each text
            (``text_video``; in multi-positive retrieval the list of its videos), the ``ranks`` in both directions and the bins
            of the ``calibration``; scores go to a ``.npy`` file of the same name. See :func:`read_rankings`. None writes no
            file.
        collect_device: Device that gathers the results of all ranks, "cpu" or "gpu".
        prefix: Prefix of the metrics' names.
        collect_dir: Folder that gathers the results of all ranks by way of the disk.
    """

    default_prefix = ""

    def __init__(
        self,
        *,
        multi_positive: bool = False,
        calibration: bool = False,
        rankings_file: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        self.multi_positive, self.calibration = multi_positive, calibration
        self.rankings_file = rankings_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Add the entries of some videos."""
        arrays = ("scores", "shortlist", "clip_scores")
        for entry in data_samples:
            read = {key: np.asarray(entry[key]) for key in arrays if entry.get(key) is not None}
            self.results.append({**entry, **read})

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics over all videos."""
        entries = {entry["sample_idx"]: entry for entry in results}
        gallery, coverage = readable([entries[i] for i in sorted(entries)])
        texts = [text for entry in gallery for text in entry["texts"]]
        text_video: Any = np.repeat(np.arange(len(gallery)), [len(entry["texts"]) for entry in gallery])
        rows: Any = slice(None)
        if self.multi_positive:
            rows, text_video = group_texts(texts, text_video)
            texts = [texts[i] for i in rows]
        scores = np.stack([entry["scores"][rows] for entry in gallery], axis=1)  # (texts, videos)
        relevant = relevance(text_video, len(gallery))
        by_direction = _figures_both_ways(scores, relevant, multi_positive=self.multi_positive)
        metrics = _summarize_both_ways(by_direction) | {"coverage": coverage}
        if "shortlist" in gallery[0]:
            metrics |= shortlist_recall(np.stack([entry["shortlist"][rows] for entry in gallery], axis=1), text_video)
        for direction, figures in by_direction.items():
            _log_intervals(direction, f"{len(figures['rank'])} queries", figures)
        metrics |= _moment_metrics(gallery)
        bins = None
        if self.calibration:
            bins = CalibrationBins()
            bins.add(scores, relevant)
            metrics |= {f"calibration/{name}": value for name, value in bins.metrics().items()}
        if self.rankings_file is not None:
            videos = [entry["path"] for entry in gallery]
            ranks = {direction: figures["rank"] for direction, figures in by_direction.items()}
            calibration = None if bins is None else bins.to_dict()
            write_rankings(self.rankings_file, videos, texts, text_video, scores, ranks, calibration)
        return metrics


def _moment_metrics(gallery: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Compute the metrics of the captions that have time spans; none if there are none."""
    pairs = [
        moment_figures(clip_scores, np.array(entry["clip_times"]), spans)
        for entry in gallery
        if "spans" in entry
        for clip_scores, spans in zip(entry["clip_scores"], entry["spans"], strict=True)
        if spans is not None
    ]
    if not pairs:
        return {}
    figures = dict(zip(("accuracy", "chance"), np.array(pairs).T, strict=True))  # (captions,) each
    _log_intervals("moments", f"{len(pairs)} captions", figures, _percent)
    return {f"moments/{name}": float(value) for name, value in _percent(figures).items()}


def _percent(figures: Figures) -> dict[str, np.ndarray]:
    return {name: values.mean(axis=-1) * 100 for name, values in figures.items()}
