"""Moments: whether the best clip of a video is one that shows the text."""

from collections.abc import Sequence

import numpy as np

from clipbert_mm.errors import OptionError


def moment_figures(
    clip_scores: np.ndarray, clip_times: np.ndarray, spans: Sequence[Sequence[float]]
) -> tuple[float, float]:
    """Test whether the best clip of a right pair lies in one of the times at which the video shows the text.

    This is the pointing game (Zhang et al., Top-down Neural Attention by Excitation Backprop, 2016) over time: a clip lies in
    a span [start, end) if its center does. Clips with equal scores are in random order.

    Args:
        clip_scores: Score of each clip alone, (K,).
        clip_times: Start and end of each clip in seconds, (K, 2).
        spans: Start and end of each span in seconds.

    Returns:
        The probability that the best clip lies in a span, which is 1 or 0 without ties; and the share of clips that do, the
        probability for a random one.

    Raises:
        OptionError: If there are not as many times as scores.

    >>> moment_figures(np.array([0.5, 2.0]), np.array([[0.0, 1.0], [1.0, 2.0]]), [[1.2, 2.0]])
    (1.0, 0.5)
    """
    if clip_times.shape != (len(clip_scores), 2):
        raise OptionError(
            f"moment_figures expects clip_times of shape ({len(clip_scores)}, 2), one for each clip score, got "
            f"{clip_times.shape}."
        )
    centers = clip_times.mean(axis=1)[:, None]  # (K, 1)
    starts, ends = np.array(spans, float).T  # (spans,) each
    inside = ((starts <= centers) & (centers < ends)).any(axis=1)  # (K,)
    return float(inside[clip_scores == clip_scores.max()].mean()), float(inside.mean())
