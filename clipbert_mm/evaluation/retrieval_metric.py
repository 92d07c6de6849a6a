"""Metrics of retrieval in both directions, with any number of captions per video."""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation.coverage import readable
from clipbert_mm.fileio import atomic_write
from clipbert_mm.log import logger
from clipbert_mm.registry import METRICS

RECALLS = (1, 5, 10)
"""The k of recall@k."""

Figures = Mapping[str, np.ndarray]
"""For each query the probability of a hit at k, ``R@1`` ..., and the expected ``rank``; (Q,) each."""


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
    """Compute the metrics of some queries: recalls in percent, median (MdR) and mean (MnR) of the expected ranks."""
    recalls = {f"R@{k}": float(figures[f"R@{k}"].mean() * 100) for k in RECALLS}
    return recalls | {"MdR": float(np.median(figures["rank"])), "MnR": float(figures["rank"].mean())}


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
    both_ways = figures_both_ways(scores, text_video)
    return {f"{way}/{name}": value for way, own in both_ways.items() for name, value in summarize(own).items()}


def figures_both_ways(scores: np.ndarray, text_video: np.ndarray) -> dict[str, dict[str, np.ndarray]]:
    """Find what becomes of each text's video (``t2v``, (texts,) each) and of each video's best text (``v2t``, (videos,)).

    Arguments as of :func:`retrieval_metrics`.
    """
    relevant = text_video[:, None] == np.arange(scores.shape[1])  # (texts, videos)
    return {"t2v": query_figures(scores, relevant), "v2t": query_figures(scores.T, relevant.T)}


def shortlist_recall(chosen: np.ndarray, text_video: np.ndarray) -> dict[str, float]:
    """Compute the share of queries with a relevant candidate in a shortlist, in percent, in both directions.

    Args:
        chosen: Which pairs are in the shortlist, bool (texts, videos).
        text_video: The video of each text, int (texts,); every video has at least one.

    Returns:
        ``t2v/shortlist_recall`` and ``v2t/shortlist_recall``, the upper bound of every recall after re-ranking.
    """
    kept = chosen & (text_video[:, None] == np.arange(chosen.shape[1]))  # (texts, videos)
    return {
        f"{way}/shortlist_recall": float(kept.any(axis=axis).mean() * 100) for way, axis in (("t2v", 1), ("v2t", 0))
    }


def write_rankings(
    path: str | os.PathLike,
    videos: Sequence[str],
    texts: Sequence[str],
    text_video: np.ndarray,
    scores: np.ndarray,
    ranks: Mapping[str, np.ndarray],
) -> None:
    """Write the result of each query: videos, texts and ranks to a JSON file, scores to a ``.npy`` file.

    Args:
        path: The JSON file; the scores get the same name with ``.npy``.
        videos: Path of each video.
        texts: The texts.
        text_video: The video of each text, int (texts,).
        scores: Scores, (texts, videos).
        ranks: Expected rank of each query, by direction, ``t2v`` and ``v2t``.
    """
    with atomic_write(Path(path).with_suffix(".npy"), "wb") as file:
        np.save(file, scores)
    about = dict(videos=list(videos), texts=list(texts), text_video=text_video.tolist())
    with atomic_write(path) as file:
        json.dump(about | dict(ranks={direction: values.tolist() for direction, values in ranks.items()}), file)


def read_rankings(path: str | os.PathLike) -> dict[str, Any]:
    """Read what :func:`write_rankings` wrote, with ``scores``, (texts, videos)."""
    scores = np.load(Path(path).with_suffix(".npy"))
    return json.loads(Path(path).read_text(encoding="utf-8")) | {"scores": scores}


def bootstrap_intervals(
    figures: Figures, *, draws: int = 1000, seed: int = 0, level: float = 0.95
) -> dict[str, tuple[float, float]]:
    """Estimate confidence intervals of the metrics by bootstrap over the queries.

    Args:
        figures: Result of each query, from :func:`query_figures`.
        draws: Number of resampled tests.
        seed: Seed of the resampling.
        level: Share of the draws inside an interval.

    Returns:
        Lower and upper end for each of R@1, R@5, R@10, MdR and MnR.
    """
    rng = np.random.default_rng(seed)
    count = len(figures["rank"])
    resampled = []
    for _ in range(draws):
        drawn = rng.integers(0, count, count)
        resampled.append(summarize({name: values[drawn] for name, values in figures.items()}))
    ends = np.quantile(
        [list(each.values()) for each in resampled], [(1 - level) / 2, (1 + level) / 2], axis=0
    )  # (2, metrics)
    return {name: (float(low), float(high)) for name, (low, high) in zip(resampled[0], ends.T, strict=True)}


@METRICS.register_module()
class RetrievalMetric(BaseMetric):
    """Retrieval metrics over the whole gallery, from one entry per video.

    An entry is a dict with ``sample_idx``, ``path``, ``texts`` (the video's captions), ``broken`` (None, or why the video
    could not be read) and ``scores`` (of all texts of the gallery in the order of their videos, (texts,)). Videos that could
    not be read are excluded with their captions; ``coverage`` is the share of videos that were tested. If the loop re-ranked
    only a shortlist, entries have ``shortlist`` (which of all texts are in it, (texts,)), and ``t2v/shortlist_recall`` and
    ``v2t/shortlist_recall`` are the shares of queries with a relevant candidate in it.

    Args:
        rankings_file: JSON file for the result of each query: ``videos``, ``texts``, the index of the video of each text
            (``text_video``) and the ``ranks`` in both directions; scores go to a ``.npy`` file of the same name. See
            :func:`read_rankings`. None writes no file.
        collect_device: Device that gathers the results of all ranks, "cpu" or "gpu".
    """

    default_prefix = ""

    def __init__(self, *, rankings_file: str | None = None, collect_device: str = "cpu") -> None:
        super().__init__(collect_device=collect_device)
        self.rankings_file = rankings_file

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Add the entries of some videos."""
        self.results.extend(data_samples)

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics over all videos."""
        entries = {entry["sample_idx"]: entry for entry in results}
        gallery, coverage = readable([entries[i] for i in sorted(entries)])
        scores = np.stack([entry["scores"] for entry in gallery], axis=1)  # (texts, videos)
        text_video = np.repeat(np.arange(len(gallery)), [len(entry["texts"]) for entry in gallery])
        metrics = retrieval_metrics(scores, text_video) | {"coverage": coverage}
        if "shortlist" in gallery[0]:
            metrics |= shortlist_recall(np.stack([entry["shortlist"] for entry in gallery], axis=1), text_video)
        by_direction = figures_both_ways(scores, text_video)
        for direction, figures in by_direction.items():
            intervals = [
                f"{name} {low:.1f} to {high:.1f}" for name, (low, high) in bootstrap_intervals(figures).items()
            ]
            logger.info(
                f"{direction}, 95 % intervals by bootstrap over {len(figures['rank'])} queries: {', '.join(intervals)}"
            )
        if self.rankings_file is not None:
            texts = [text for entry in gallery for text in entry["texts"]]
            videos = [entry["path"] for entry in gallery]
            ranks = {direction: figures["rank"] for direction, figures in by_direction.items()}
            write_rankings(self.rankings_file, videos, texts, text_video, scores, ranks)
        return metrics
