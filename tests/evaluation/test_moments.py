"""The best clip of a right pair, in the spans or not."""

import numpy as np
import pytest

from clipbert_mm.evaluation import moment_figures

TIMES = np.array([[0.0, 1.0], [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]])  # centers 0.5, 1.5, 2.5, 3.5


@pytest.mark.parametrize(
    ("scores", "spans", "wanted"),
    [
        ([0.0, 1.0, 3.0, 2.0], [[2.0, 3.0]], (1.0, 0.25)),
        ([0.0, 1.0, 3.0, 2.0], [[2.6, 3.0]], (0.0, 0.0)),
        ([0.0, 4.0, 3.0, 2.0], [[0, 1], [2.5, 4]], (0.0, 0.75)),
        ([0.0, 4.0, 3.0, 5.0], [[0, 1], [2, 3.5]], (0.0, 0.5)),  # a span ends before its end
        ([0.0, 1.0, 5.0, 2.0], [[0, 1], [2.5, 3.5]], (1.0, 0.5)),  # and begins with its start
        ([7.0, 1.0, 7.0, 7.0], [[0, 1], [0, 3]], (2 / 3, 0.75)),  # ties; spans may overlap
        ([-1.0], [[0, 9]], None),
    ],
)
def test_the_center_of_the_best_clip_decides(scores: list[float], spans: list[list[float]], wanted: tuple | None):
    if wanted is None:
        with pytest.raises(
            ValueError, match=r"expects clip_times of shape \(1, 2\), one for each clip score, got \(4, 2\)"
        ):
            moment_figures(np.array(scores), TIMES, spans)
        return
    assert moment_figures(np.array(scores), TIMES, spans) == pytest.approx(wanted)
