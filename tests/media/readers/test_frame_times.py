"""When frames are shown: a constant rate is told from an uneven one by the time stamps alone."""

from fractions import Fraction

import numpy as np
import pytest

from clipbert_mm.media.readers.frame_times import is_even, time_frames

MS = Fraction(1, 1000)


@pytest.mark.parametrize("fps", [5, 23.976, 29.97, 50, 60, 119.88])
@pytest.mark.parametrize("rounding", [np.round, np.floor, np.ceil])
def test_rounding_to_milliseconds_is_no_unevenness(fps: float, rounding):
    ticks = 700 + rounding(np.arange(20_000) * 1000 / fps).astype(np.int64)
    for count in (2, 3, 100, 20_000):
        timing = time_frames(ticks[:count], 0, MS, fps)
        assert (timing.frame_times, timing.avg_fps, timing.duration) == (None, fps, count / fps)


def test_drift_is_not_forgiven_because_each_step_is_small():
    steps = np.array([40] * 500 + [41] * 500)  # a clock that changes from 25 to 24.4 frames a second
    assert not is_even(np.cumsum(steps), MS)


def test_a_rate_that_the_header_has_wrong_is_measured():
    timing = time_frames(np.arange(100) * 40, 40, MS, fps=1000.0)
    assert (timing.frame_times, timing.avg_fps) == (None, pytest.approx(25))


def test_uneven_frames_have_their_times():
    ticks = 500 + np.array([0, 33, 66, 3000, 3033, 12_000])
    timing = time_frames(ticks, 100, MS, fps=25.0)
    assert timing.frame_times.tolist() == pytest.approx([0, 0.033, 0.066, 3, 3.033, 12])
    assert (timing.duration, timing.avg_fps) == (pytest.approx(12.1), pytest.approx(6 / 12.1))
    assert time_frames(ticks, 0, MS, 25.0).duration == pytest.approx(12.033), "an unknown end: the median step"


def test_a_last_frame_that_stays_counts_in_full():
    timing = time_frames(np.arange(50) * 40, 10_000, MS, fps=25.0)
    assert timing.duration == pytest.approx(11.96)
    assert np.allclose(timing.frame_times, np.arange(50) * 0.04)


def test_where_the_clock_begins_again_the_usual_step_lies_between():
    ticks = np.concatenate([np.arange(50), np.arange(50)]) * 40
    assert time_frames(ticks, 40, MS, 25.0).frame_times is None
    late = np.concatenate([np.arange(50), 100_000 + np.arange(50)]) * 40
    assert time_frames(late, 40, MS, 25.0, longest=10.0).duration == 4
    assert time_frames(late, 40, MS, 25.0).duration == pytest.approx(4002)


def test_one_frame_is_as_long_as_the_file_says():
    assert time_frames(np.array([7]), 2000, MS, 0.0).duration == 2
    assert time_frames(np.array([7]), 0, MS, 10.0).duration == 0.1
    assert time_frames(np.array([7]), 0, MS, 0.0).duration == 0.04
