"""Ranks and metrics against brute force: every order of the ties, every query one by one."""

import itertools
from pathlib import Path

import numpy as np
import pytest

from clipbert_mm.errors import ClipBertError
from clipbert_mm.evaluation import CalibrationBins, RetrievalMetric, retrieval_metric
from clipbert_mm.evaluation.retrieval_metric import (
    best_ranks,
    bootstrap_intervals,
    query_figures,
    read_rankings,
    retrieval_metrics,
    shortlist_recall,
)


def rank_by_all_orders(scores: list[float], relevant: int) -> float:
    """The mean, over all orders of the candidates, of the rank of one after a stable sort by score."""
    ranks = []
    for order in itertools.permutations(range(len(scores))):
        ranking = sorted(order, key=lambda i: -scores[i])
        ranks.append(ranking.index(relevant) + 1)
    return float(np.mean(ranks))


def test_ties_count_by_their_expectation():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 3, (40, 5)).astype(float)  # many ties
    relevant = np.zeros((40, 5), bool)
    places = rng.integers(0, 5, 40)
    relevant[np.arange(40), places] = True
    wanted = [rank_by_all_orders(row.tolist(), place) for row, place in zip(scores, places, strict=True)]
    assert best_ranks(scores, relevant).tolist() == pytest.approx(wanted)
    assert len(set(wanted)) > 4


@pytest.mark.parametrize("seed", range(3))
def test_recalls_with_ties_are_the_share_of_all_orders(seed: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(retrieval_metric, "RECALLS", (1, 2, 3, 6, 10))
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, 3, (12, 6)).astype(float)
    relevant = rng.random((12, 6)) < 0.3
    relevant[np.arange(12), rng.integers(0, 6, 12)] = True  # some queries have several
    figures = query_figures(scores, relevant)
    for query, (row, own) in enumerate(zip(scores, relevant, strict=True)):
        ranks = []
        for order in itertools.permutations(range(6)):
            ranking = sorted(order, key=lambda i: -row[i])
            first = next(place for place, i in enumerate(ranking) if own[i])
            ranks.append(1 + first)  # relevant ones behind it do not stand in its way
        for k in (1, 2, 3, 6, 10):
            assert figures[f"R@{k}"][query] == pytest.approx(np.mean(np.array(ranks) <= k))
        assert figures["rank"][query] == pytest.approx(np.mean(ranks))


def test_a_tie_with_a_thousand_is_chance():
    figures = query_figures(np.zeros((1, 1000)), np.eye(1, 1000, dtype=bool))
    assert [figures[f"R@{k}"][0] for k in (1, 5, 10)] == pytest.approx([0.001, 0.005, 0.01])


def test_a_model_that_scores_all_alike_ranks_in_the_middle():
    assert best_ranks(np.zeros((1, 1001)), np.eye(1, 1001, dtype=bool)).tolist() == [501.0]


def test_of_several_relevant_candidates_the_best_counts_and_they_do_not_stand_in_each_other_s_way():
    relevant = np.array([[True, True, False, False]] * 3)
    scores = np.array([[1.0, 5.0, 3.0, 6.0], [5.0, 5.0, 1.0, 1.0], [5.0, 2.0, 5.0, 5.0]])
    assert best_ranks(scores, relevant).tolist() == [2.0, 1.0, 2.0]


def test_small_differences_count():
    scores = np.array([[0.9 + 1e-9, 0.9, 0.9 - 1e-9]])
    assert best_ranks(scores, np.array([[False, True, False]])).tolist() == [2.0]


@pytest.mark.parametrize(
    ("scores", "relevant", "message"),
    [
        (np.zeros((2, 3)), np.ones((3, 2), bool), r"two arrays of shape \(Q, G\), got \(2, 3\) and \(3, 2\)"),
        (np.zeros(3), np.ones(3, bool), r"two arrays of shape \(Q, G\), got \(3,\)"),
        (np.array([[0.0, np.nan]]), np.ones((1, 2), bool), "expects scores without NaN, got 1 NaN"),
        (np.zeros((2, 2)), np.array([[True, False], [False, False]]), "query 1 has no relevant candidate"),
    ],
    ids=["shapes differ", "one dimension", "nan", "nothing relevant"],
)
def test_what_cannot_be_ranked_is_refused(scores: np.ndarray, relevant: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        best_ranks(scores, relevant)


def metrics_by_hand(scores: np.ndarray, text_video: list[int]) -> dict[str, float]:
    """The metrics, query by query, without numpy's help; scores have no ties."""
    texts, videos = scores.shape
    ranks = {"t2v": [], "v2t": []}
    for text in range(texts):
        order = sorted(range(videos), key=lambda video: -scores[text, video])
        ranks["t2v"].append(order.index(text_video[text]) + 1)
    for video in range(videos):
        order = sorted(range(texts), key=lambda text: -scores[text, video])
        others_first = 0
        for text in order:
            if text_video[text] == video:
                break
            others_first += 1
        ranks["v2t"].append(others_first + 1)
    metrics = {}
    for direction, found in ranks.items():
        for k in (1, 5, 10):
            metrics[f"{direction}/R@{k}"] = 100 * sum(rank <= k for rank in found) / len(found)
        middle = sorted(found)
        half = len(middle) // 2
        metrics[f"{direction}/MdR"] = middle[half] if len(middle) % 2 else (middle[half - 1] + middle[half]) / 2
        metrics[f"{direction}/MnR"] = sum(found) / len(found)
    return metrics


@pytest.mark.parametrize("seed", range(5))
def test_metrics_with_any_number_of_captions_a_video(seed: int):
    rng = np.random.default_rng(seed)
    counts = rng.integers(1, 5, 12)
    text_video = np.repeat(np.arange(12), counts)
    scores = rng.normal(size=(len(text_video), 12)) + 1.5 * (text_video[:, None] == np.arange(12))
    assert retrieval_metrics(scores, text_video) == pytest.approx(metrics_by_hand(scores, text_video.tolist()))


def test_metrics_of_the_paper_s_kind_by_hand():
    # Three pairs; the ranks text to video are 1, 2 and 3, video to text 1, 1 and 3.
    scores = np.array([[9.0, 1.0, 8.0], [3.0, 2.0, 1.0], [5.0, 1.5, 0.0]])
    metrics = retrieval_metrics(scores, np.arange(3))
    assert metrics["t2v/R@1"] == pytest.approx(100 / 3)
    assert (metrics["t2v/R@5"], metrics["t2v/MdR"], metrics["t2v/MnR"]) == (100.0, 2.0, 2.0)
    assert metrics["v2t/R@1"] == pytest.approx(200 / 3)
    assert (metrics["v2t/MdR"], metrics["v2t/MnR"]) == (1.0, pytest.approx(5 / 3))


def entries_of(scores: np.ndarray, counts: list[int], broken: tuple[int, ...] = ()) -> list[dict]:
    """Entries as the loop hands them over; broken videos have no scores and their texts are in nobody's."""
    entries, column = [], 0
    for i, count in enumerate(counts):
        reason = "cut" if i in broken else None
        own = None if reason else scores[:, column]
        column += reason is None
        texts = [f"text {i}.{j}" for j in range(count)]
        entries.append(dict(sample_idx=i, path=f"{i}.mp4", texts=texts, broken=reason, scores=own))
    return entries


def evaluate(metric: RetrievalMetric, entries: list[dict]) -> dict[str, float]:
    """Process one entry a batch, evaluate."""
    for entry in entries:
        metric.process({}, [entry])
    return metric.evaluate(len(entries))


def test_entries_may_come_in_any_order(tmp_path: Path):
    rng = np.random.default_rng(0)
    counts = [2, 1, 3, 1]
    scores, text_video = rng.normal(size=(7, 4)), np.repeat(np.arange(4), counts)
    entries = entries_of(scores, counts)
    metric = RetrievalMetric(rankings_file=str(tmp_path / "deep" / "rankings.json"))
    found = evaluate(metric, [entries[i] for i in (2, 0, 3, 1)])
    assert found.pop("coverage") == 100
    assert found == pytest.approx(retrieval_metrics(scores, text_video))
    rankings = read_rankings(tmp_path / "deep" / "rankings.json")
    assert rankings["scores"].tolist() == scores.tolist()
    assert rankings["ranks"]["t2v"] == best_ranks(scores, text_video[:, None] == np.arange(4)).tolist()
    assert float(np.mean(rankings["ranks"]["v2t"])) == found["v2t/MnR"]
    assert rankings["text_video"] == text_video.tolist()
    assert rankings["videos"] == ["0.mp4", "1.mp4", "2.mp4", "3.mp4"]
    assert rankings["texts"] == [text for entry in entries for text in entry["texts"]]


def test_a_shortlist_keeps_right_answers_or_not():
    # Videos of 2, 1 and 1 captions. Text 1 lost its video, which keeps text 0; text 3 and video 2 lost one another.
    chosen = np.array([[1, 0, 1], [0, 1, 1], [0, 1, 0], [1, 1, 0]], bool)
    text_video = np.array([0, 0, 1, 2])
    found = {"t2v/shortlist_recall": 50.0, "v2t/shortlist_recall": pytest.approx(200 / 3)}
    assert shortlist_recall(chosen, text_video) == found
    scores = np.random.default_rng(0).normal(size=(4, 3))
    entries = entries_of(scores, [2, 1, 1])
    for entry, column in zip(entries, chosen.T, strict=True):
        entry["shortlist"] = column
    assert evaluate(RetrievalMetric(), entries) == retrieval_metrics(scores, text_video) | found | {"coverage": 100}


def test_broken_videos_are_left_out_with_their_captions():
    rng = np.random.default_rng(0)
    counts = [2, 1, 3, 1]
    scores = rng.normal(size=(4, 3))  # without the three captions of video 2
    found = evaluate(RetrievalMetric(), entries_of(scores, counts, broken=(2,)))
    assert found.pop("coverage") == 75
    assert found == pytest.approx(retrieval_metrics(scores, np.array([0, 0, 1, 2])))


def test_a_gallery_without_a_readable_video_is_an_error():
    with pytest.raises(ClipBertError, match="All 2 videos of the test are unreadable"):
        evaluate(RetrievalMetric(), entries_of(np.zeros((0, 0)), [1, 1], broken=(0, 1)))


def test_ties_with_several_relevant_candidates_count_by_their_expectation():
    rng = np.random.default_rng(0)
    relevant = np.arange(12) < 3
    places = [np.flatnonzero(relevant[rng.permutation(12)])[0] + 1 for _ in range(20000)]
    ours = best_ranks(np.zeros((1, 12)), relevant[None])
    assert ours == pytest.approx([1 + 9 / 4])
    assert np.mean(places) == pytest.approx(ours[0], abs=0.05)


def figures_of(ranks: np.ndarray) -> dict[str, np.ndarray]:
    """Figures of queries without ties."""
    return {f"R@{k}": (ranks <= k).astype(float) for k in (1, 5, 10)} | {"rank": ranks}


def test_bootstrap_intervals_hold_what_they_say():
    rng = np.random.default_rng(0)
    hits, trials = 0, 200
    for trial in range(trials):  # tests of 150 queries whose true R@1 is 30 %
        ranks = np.where(rng.random(150) < 0.3, 1.0, 2.0)
        low, high = bootstrap_intervals(figures_of(ranks), draws=200, seed=trial)["R@1"]
        hits += low <= 30 <= high
    assert 0.88 < hits / trials < 0.99


def test_bootstrap_intervals_agree_with_the_standard_error_and_are_drawn_from_the_seed():
    figures = figures_of(np.where(np.arange(1000) % 4 == 0, 1.0, 11.0))
    low, high = bootstrap_intervals(figures)["R@1"]
    error = 100 * np.sqrt(0.25 * 0.75 / 1000)  # of a share of 1,000 queries
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert bootstrap_intervals(figures) == bootstrap_intervals(figures)
    assert bootstrap_intervals(figures)["MdR"] == (11.0, 11.0)


def multi_positive_entries(rng: np.random.Generator) -> tuple[list[dict], list[str], np.ndarray]:
    """Entries of four videos that share texts, the different texts in order, and their scores, (5, 4)."""
    texts = [["a", "b"], ["b", "c"], ["d"], ["c", "a", "e"]]
    different = ["a", "b", "c", "d", "e"]
    unique = rng.normal(size=(5, 4))
    scores = unique[[different.index(text) for own in texts for text in own]]
    entries = entries_of(scores, [2, 2, 1, 3])
    for entry, own in zip(entries, texts, strict=True):
        entry["texts"] = own
    return entries, different, unique


def test_equal_texts_are_one_query_with_several_right_videos(tmp_path: Path):
    entries, different, unique = multi_positive_entries(np.random.default_rng(0))
    metric = RetrievalMetric(multi_positive=True, rankings_file=str(tmp_path / "rankings.json"))
    found = evaluate(metric, [entries[i] for i in (3, 1, 0, 2)])
    relevant = np.array([[text in entry["texts"] for entry in entries] for text in different])
    ranks = {"t2v": [], "v2t": []}
    precisions = {"t2v": [], "v2t": []}
    for way, queries, right in (("t2v", unique, relevant), ("v2t", unique.T, relevant.T)):
        for row, own in zip(queries, right, strict=True):
            order = sorted(range(len(row)), key=lambda i: -row[i])
            hits = [own[i] for i in order]
            ranks[way].append(1 + hits.index(True))
            at = [rank for rank, hit in enumerate(hits, start=1) if hit]
            precisions[way].append(np.mean([(i + 1) / rank for i, rank in enumerate(at)]))
    for way in ("t2v", "v2t"):
        assert found[f"{way}/mAP"] == pytest.approx(100 * np.mean(precisions[way]))
        assert found[f"{way}/R@1"] == pytest.approx(100 * np.mean(np.array(ranks[way]) == 1))
        assert found[f"{way}/MnR"] == pytest.approx(np.mean(ranks[way]))
    rankings = read_rankings(tmp_path / "rankings.json")
    assert rankings["texts"] == different
    assert rankings["text_video"] == [[0, 3], [0, 1], [1, 3], [2], [3]]
    assert np.array_equal(rankings["relevant"], relevant)
    assert np.array_equal(rankings["scores"], unique)
    assert "calibration" not in rankings


def test_a_shortlist_of_multi_positive_retrieval_keeps_a_right_one_or_not():
    entries, _, _ = multi_positive_entries(np.random.default_rng(0))
    for i, entry in enumerate(entries):
        entry["shortlist"] = np.full(8, i == 3)
    found = evaluate(RetrievalMetric(multi_positive=True), entries)
    assert found["t2v/shortlist_recall"] == 60, "a, c and e are true of video 3"
    assert found["v2t/shortlist_recall"] == 25


def test_calibration_is_that_of_all_pairs(tmp_path: Path):
    rng = np.random.default_rng(0)
    scores = rng.normal(0, 2, (4, 3))
    metric = RetrievalMetric(calibration=True, rankings_file=str(tmp_path / "rankings.json"))
    found = evaluate(metric, entries_of(scores, [2, 1, 1]))
    bins = CalibrationBins()
    bins.add(scores, np.array([0, 0, 1, 2])[:, None] == np.arange(3))
    assert {name: found[f"calibration/{name}"] for name in ("ECE", "Brier", "TPR@0.5")} == bins.metrics()
    assert read_rankings(tmp_path / "rankings.json")["calibration"] == bins.to_dict()
    plain = evaluate(RetrievalMetric(), entries_of(scores, [2, 1, 1]))
    assert plain == {name: value for name, value in found.items() if not name.startswith("calibration")}


def test_moments_are_those_of_the_captions_with_spans():
    scores = np.random.default_rng(0).normal(size=(5, 3))
    entries = entries_of(scores, [2, 1, 2])
    times = [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]]
    entries[0] |= dict(spans=[[[0, 2]], None], clip_times=times, clip_scores=np.array([[1.0, 4, 2, 3], [9.0, 0, 0, 0]]))
    entries[2] |= dict(
        spans=[[[0, 1]], [[0, 1], [3, 4]]], clip_times=times, clip_scores=np.array([[1.0, 4, 2, 3], [1.0, 2, 3, 4]])
    )
    found = evaluate(RetrievalMetric(), entries)
    assert found["moments/accuracy"] == pytest.approx(200 / 3)
    assert found["moments/chance"] == pytest.approx(100 * (0.5 + 0.25 + 0.5) / 3)
    plain = evaluate(RetrievalMetric(), entries_of(scores, [2, 1, 2]))
    assert plain == {name: value for name, value in found.items() if not name.startswith("moments")}
