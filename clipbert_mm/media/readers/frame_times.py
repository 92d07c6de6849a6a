"""Times at which the frames of a video are shown, by the timestamps of its file."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

JITTER = 0.001
"""Deviation in seconds that is allowed at a constant rate, since containers round to milliseconds."""
UNKNOWN_FPS = 25.0
"""Frames per second of a file without rate and times; FFmpeg's default for raw streams."""


@dataclass(frozen=True, eq=False)
class Timing:
    """Times of the frames of a video.

    Args:
        avg_fps: Average frames per second.
        duration: Seconds from the first frame to the end of the last.
        frame_times: Seconds from the first frame to each, (N,) float64, increasing; None if the rate is constant: then
            frame i is shown at i / avg_fps.
    """

    avg_fps: float
    duration: float
    frame_times: np.ndarray | None = None


def constant_rate(total_frames: int, fps: float) -> Timing:
    """Return the timing of frames at a constant rate."""
    return Timing(fps, total_frames / fps)


def is_even(ticks: np.ndarray, tick: Fraction) -> bool:
    """Whether times are evenly spaced from the first to the last, up to rounding to the container's ticks.

    Args:
        ticks: The times, (N,) int64, ascending.
        tick: Length of a tick in seconds.

    >>> is_even(np.array([0, 33, 67, 100, 133]), Fraction(1, 1000)), is_even(np.array([0, 40, 3000]), Fraction(1, 1000))
    (True, False)
    """
    grid = np.linspace(ticks[0], ticks[-1], len(ticks))
    return bool(np.abs(ticks - grid).max() <= max(1.0, JITTER / float(tick)) + 1e-6)


def time_frames(ticks: np.ndarray, last: int, tick: Fraction, fps: float, longest: float = math.inf) -> Timing:
    """Find out whether the rate is constant, and at which time each frame is shown.

    Args:
        ticks: Times of the frames in display order, (N,) int64, in ticks of the stream. If a step is not positive, or longer
            than ``longest``, as in recordings that were joined, it is replaced by the median step.
        last: Duration of the last frame in ticks; 0 if the file has none: then it is the median step.
        tick: Length of a tick in seconds.
        fps: Frames per second by the file's header; 0 if it has none. It is used if the frames are even and it deviates by
            less than one frame over the whole video.
        longest: The longest time from one frame to the next, in seconds.
    """
    steps = np.diff(ticks)
    known = (steps > 0) & (steps <= longest / float(tick))
    usual = float(np.median(steps[known])) if known.any() else 0.0
    if not usual:  # one frame, or no usable times
        fps = fps or (1 / float(last * tick) if len(ticks) == 1 and last > 0 else UNKNOWN_FPS)
        return constant_rate(len(ticks), fps)
    if not known.all():
        ticks = ticks[0] + np.concatenate([[0], np.cumsum(np.where(known, steps, max(round(usual), 1)))])
    end = ticks[-1] + (last if last > 0 else usual)
    duration = float((end - ticks[0]) * tick)
    count = len(ticks)
    if is_even(ticks, tick):
        step = float((ticks[-1] - ticks[0]) * tick) / (count - 1)
        if fps and abs(count / fps - duration) < 1 / fps:
            return constant_rate(count, fps)
        if abs(duration - count * step) < step:
            return constant_rate(count, 1 / step)
    return Timing(count / duration, duration, (ticks - ticks[0]) * float(tick))
