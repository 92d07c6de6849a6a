"""Coarse-to-fine re-ranking: score all pairs with coarse tokens (one clip of all frames, or vectors), the best with all."""

from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor

from clipbert_mm.errors import OptionError

if TYPE_CHECKING:
    from clipbert_mm.models.encoders import EncodedTexts


SHORTLIST_FROM = 1000
"""An index of more videos is searched with a shortlist by default."""
PUBLISHED_SHORTLIST = 128
"""Videos that BLIP's evaluation scores by the joint encoder, chosen by their vectors (Li et al., ICML 2022)."""


def default_shortlist(encoder: Any, topk: int, count: int) -> int:  # noqa: ANN401
    """Return how many of ``count`` videos a search scores with all clips, at least ``topk``; 0 for all.

    Args:
        encoder: The model's encoder. One that reads tokens and has vectors too is used as its authors use it.
        topk: Number of hits.
        count: Number of videos.
    """
    if encoder.has_vectors:
        return max(topk, PUBLISHED_SHORTLIST) if not encoder.compares_vectors or count > SHORTLIST_FROM else 0
    return max(topk, count // 10) if count > SHORTLIST_FROM else 0


def score_vectors(texts: "EncodedTexts", tokens: Tensor) -> Tensor:
    """Return the cosine similarities of texts and videos, (M, V), by their vectors.

    Args:
        texts: The M texts, with vectors (M, P).
        tokens: Coarse tokens of videos whose encoder has vectors: these vectors, (V, 1, 1, P).
    """
    assert texts.vectors is not None
    return texts.vectors.float() @ tokens[:, 0, 0].to(texts.vectors.device).float().T


def candidates(share: float, count: int) -> int:
    """Return the number of candidates, of ``count``, that a shortlist keeps: a share below 1, or a number.

    Raises:
        OptionError: If ``share`` is neither.

    >>> candidates(0.1, 1000), candidates(0.1, 5), candidates(20, 1000), candidates(20, 7)
    (100, 1, 20, 7)
    """
    if share <= 0 or (share >= 1 and share != int(share)):
        raise OptionError(f"shortlist expects a share between 0 and 1 or a whole number of candidates, got {share}.")
    return min(count, max(1, round(share * count) if share < 1 else int(share)))


def shortlist(scores: np.ndarray, videos: int, texts: int) -> np.ndarray:
    """Choose the best pairs in both directions: the best videos of each text and the best texts of each video.

    Among equal scores the earlier candidate comes first.

    Args:
        scores: Scores of all pairs by coarse tokens, (texts, videos).
        videos: Number of videos to keep for each text.
        texts: Number of texts to keep for each video; 0 if only texts are queries.

    Returns:
        The chosen pairs, bool (texts, videos).
    """
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, np.argsort(-scores, axis=1, kind="stable")[:, :videos], values=True, axis=1)
    np.put_along_axis(chosen, np.argsort(-scores, axis=0, kind="stable")[:texts], values=True, axis=0)
    return chosen


def merge_scores(coarse: np.ndarray, fine: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Rank the pairs outside the shortlist below all pairs in it, in the order of their coarse scores.

    Args:
        coarse: Scores of all pairs by coarse tokens, (texts, videos).
        fine: Scores of the chosen pairs by all clips, (texts, videos).
        chosen: The pairs in the shortlist, bool (texts, videos).

    Returns:
        Scores to rank by, float32 (texts, videos).
    """
    if chosen.all():
        return fine
    drop = max(0.0, float(coarse[~chosen].max() - fine[chosen].min())) + 1.0
    return np.where(chosen, fine, coarse - np.float32(drop))
