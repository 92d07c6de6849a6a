"""An overview of each video, one clip of all its frames, for all pairs; all its clips for the best of them."""

import numpy as np

from clipbert_mm.errors import OptionError


def candidates(share: float, count: int) -> int:
    """Return how many of ``count`` candidates a shortlist keeps: a share of them below 1, or a number.

    Raises:
        OptionError: If it is neither.

    >>> candidates(0.1, 1000), candidates(0.1, 5), candidates(20, 1000), candidates(20, 7)
    (100, 1, 20, 7)
    """
    if share <= 0 or (share >= 1 and share != int(share)):
        raise OptionError(f"A shortlist is a share between 0 and 1 or a whole number of candidates, got {share}.")
    return min(count, max(1, round(share * count) if share < 1 else int(share)))


def shortlist(scores: np.ndarray, videos: int, texts: int) -> np.ndarray:
    """Choose the best pairs both ways: of each text its best videos, of each video its best texts.

    Equal scores: the earlier candidate goes first.

    Args:
        scores: Scores of all pairs by the overviews, (texts, videos).
        videos: Videos that each text keeps.
        texts: Texts that each video keeps; 0 where only texts are queries.

    Returns:
        The chosen pairs, bool (texts, videos).
    """
    chosen = np.zeros(scores.shape, bool)
    np.put_along_axis(chosen, np.argsort(-scores, axis=1, kind="stable")[:, :videos], values=True, axis=1)
    np.put_along_axis(chosen, np.argsort(-scores, axis=0, kind="stable")[:texts], values=True, axis=0)
    return chosen


def merge(first: np.ndarray, second: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Put the pairs that were not chosen below all that were, in the order of their first scores.

    Args:
        first: Scores of all pairs by the overviews, (texts, videos).
        second: Scores of the chosen pairs by all clips, (texts, videos).
        chosen: The pairs, bool (texts, videos).

    Returns:
        Scores by which to rank, float32 (texts, videos).
    """
    if chosen.all():
        return second
    drop = max(0.0, float(first[~chosen].max() - second[chosen].min())) + 1.0
    return np.where(chosen, second, first - np.float32(drop))
