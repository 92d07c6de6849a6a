"""The shortlist and the order in which it ranks, against loops over queries."""

from types import SimpleNamespace

import numpy as np
import pytest

from clipbert_mm.retrieval.rerank import candidates, default_shortlist, merge_scores, shortlist


def test_the_shortlist_is_the_best_of_each_query():
    scores = np.random.default_rng(0).normal(size=(9, 6))
    chosen = shortlist(scores, videos=2, texts=3)
    for text in range(9):
        for video in range(6):
            near = (scores[text] > scores[text, video]).sum() < 2 or (scores[:, video] > scores[text, video]).sum() < 3
            assert chosen[text, video] == near
    assert (shortlist(scores, videos=2, texts=0).sum(axis=1) == 2).all()
    assert shortlist(scores, videos=6, texts=0).all()
    assert shortlist(np.zeros((2, 3)), videos=1, texts=0).tolist() == [[True, False, False]] * 2


def test_what_is_not_chosen_ranks_below_in_its_coarse_order():
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(9, 6)).astype(np.float32) + 50  # far above the fine scores
    chosen = shortlist(coarse, videos=2, texts=1)
    fine = np.where(chosen, rng.normal(size=(9, 6)), np.nan).astype(np.float32)
    merged = merge_scores(coarse, fine, chosen)
    assert np.array_equal(merged[chosen], fine[chosen])
    assert merged[~chosen].max() < merged[chosen].min()
    assert np.array_equal(np.argsort(merged[~chosen]), np.argsort(coarse[~chosen]))
    assert np.array_equal(merge_scores(coarse, coarse, np.ones_like(chosen)), coarse)


@pytest.mark.parametrize(
    ("fine", "rest"),
    [([[5, 9], [9, 4]], [2 - 1, 3 - 1]),  # lower already: one below
     ([[2.5, 9], [9, 4]], [2 - 1.5, 3 - 1.5]),  # the best of the rest, 3, comes one below the worst of the shortlist
     ([[-4, 9], [9, 0]], [2 - 8, 3 - 8])],
)  # fmt: skip
def test_what_is_not_chosen_is_lowered_by_no_more_than_it_takes(fine: list, rest: list):
    chosen = np.array([[True, False], [False, True]])
    merged = merge_scores(np.array([[7, 2], [3, 8]], np.float32), np.array(fine, np.float32), chosen)
    assert merged.dtype == np.float32
    assert merged.tolist() == [[fine[0][0], rest[0]], [rest[1], fine[1][1]]]


@pytest.mark.parametrize("keep", [0, -1, 2.5])
def test_a_shortlist_is_a_share_or_a_number(keep: float):
    with pytest.raises(ValueError, match=f"a share between 0 and 1 or a whole number of candidates, got {keep}"):
        candidates(keep, 10)


@pytest.mark.parametrize(
    ("keep", "count", "kept"),
    [(0.1, 1000, 100), (0.1, 5, 1), (0.01, 7, 1), (0.5, 7, 4), (0.999, 3, 3), (1, 7, 1), (1.0, 7, 1), (20, 1000, 20),
     (20, 7, 7), (20.0, 30, 20)],
)  # fmt: skip
def test_a_share_is_of_the_candidates_and_keeps_one_at_least(keep: float, count: int, kept: int):
    assert candidates(keep, count) == kept


@pytest.mark.parametrize(
    ("has_vectors", "compares_vectors", "topk", "count", "expected"),
    [
        (False, False, 10, 1000, 0),  # ClipBERT and ViLT score all of a small index
        (False, False, 10, 20_000, 2000),
        (False, False, 300, 2000, 300),
        (True, False, 10, 1000, 128),  # BLIP, as its authors evaluate it
        (True, False, 200, 1000, 200),
        (True, True, 10, 1000, 0),  # CLIP, all of whose scores are of vectors
        (True, True, 10, 5000, 128),
        (True, True, 200, 5000, 200),
    ],
)
def test_a_search_scores_as_many_as_its_model_s_authors_do(
    has_vectors: bool, compares_vectors: bool, topk: int, count: int, expected: int
):
    encoder = SimpleNamespace(has_vectors=has_vectors, compares_vectors=compares_vectors)
    assert default_shortlist(encoder, topk, count) == expected
