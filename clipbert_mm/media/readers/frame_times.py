"""When each frame of a video is on screen, by the time stamps of its file."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

JITTER = 0.001
"""Seconds by which a frame of a constant rate may stand off its time, since containers round to milliseconds."""
UNKNOWN_FPS = 25.0
"""Frames a second of a file that says neither a rate nor a time, as FFmpeg has it for bare streams."""


@dataclass(frozen=True, eq=False)
class Timing:
    """When the frames of a video are shown.

    Args:
        avg_fps: Frames a second, on average.
        duration: Seconds from the first frame to the end of the last.
        frame_times: Seconds from the first frame to each, (N,) float64, increasing; None where the rate is constant, so that
            frame i is shown at i / avg_fps.
    """

    avg_fps: float
    duration: float
    frame_times: np.ndarray | None = None


def constant_rate(total_frames: int, fps: float) -> Timing:
    """Return the timing of frames that follow each other evenly."""
    return Timing(fps, total_frames / fps)


def is_even(ticks: np.ndarray, tick: Fraction) -> bool:
    """Whether times lie on an even grid from the first to the last, as far as rounding to the container's ticks allows.

    Args:
        ticks: The times, (N,) int64, ascending.
        tick: Seconds of a tick.

    >>> is_even(np.array([0, 33, 67, 100, 133]), Fraction(1, 1000)), is_even(np.array([0, 40, 3000]), Fraction(1, 1000))
    (True, False)
    """
    grid = np.linspace(ticks[0], ticks[-1], len(ticks))
    return bool(np.abs(ticks - grid).max() <= max(1.0, JITTER / float(tick)) + 1e-6)


def time_frames(ticks: np.ndarray, last: int, tick: Fraction, fps: float, longest: float = math.inf) -> Timing:
    """Find out whether the rate is constant, and when each frame is shown.

    Args:
        ticks: The times at which frames are shown, in their order, (N,) int64, in ticks of the stream. Where one is not later
            than the one before it, or later by more than ``longest``, as in recordings that were joined, the usual step is
            taken to lie between them.
        last: How long the last frame is shown, in ticks; 0 where the file does not say, which means the usual step.
        tick: Seconds of a tick.
        fps: Frames a second as the file's header has it; 0 where it has none. It is kept where the frames are even and it is
            out by less than a frame at the end.
        longest: The longest time from one frame to the next, in seconds.
    """
    steps = np.diff(ticks)
    known = (steps > 0) & (steps <= longest / float(tick))
    usual = float(np.median(steps[known])) if known.any() else 0.0
    if not usual:  # one frame, or times that say nothing
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
