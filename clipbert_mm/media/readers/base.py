"""VideoReader, the interface of all readers."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

MAX_PIXELS = 1 << 26
"""Pixels of a frame, at most, as of 8,192 x 8,192; as RGB they take 0.2 GB."""


class VideoReader(ABC):
    """An open video. Its frames are numbered from 0 in display order.

    All readers follow the same rules: frames that an edit list cuts away do not count; frame i is the i-th shown frame, however
    unevenly the frames are spaced; frames are upright, by the orientation in the file; colors are converted by the matrix and
    range in the file.

    Attributes:
        total_frames: Number of frames that are shown.
        avg_fps: Average frames per second.
        duration: Seconds from the first frame to the end of the last.
        frame_times: Seconds from the first frame to each, (N,) float64, by the timestamps of the file; None if the rate is
            constant: then frame i is shown at i / avg_fps.
    """

    total_frames: int
    avg_fps: float
    duration: float
    frame_times: np.ndarray | None = None

    @abstractmethod
    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames, each once.

        Args:
            frame_inds: Numbers of the frames, distinct and ascending.

        Yields:
            Number and frame, (H, W, 3) uint8 RGB, in any order; a frame may be valid only until the next one.

        Raises:
            IndexError: If a frame does not exist.
        """

    def describe(self) -> dict[str, Any]:
        """Return the attributes of the video by their names."""
        return {name: getattr(self, name) for name in ("total_frames", "avg_fps", "duration", "frame_times")}

    def close(self) -> None:  # noqa: B027
        """Close the file."""


def missing_frame(total_frames: int, frame_inds: Sequence[int]) -> IndexError:
    """Return the error for a frame that the decoder did not return."""
    return IndexError(f"expected {total_frames} frames, frame {min(frame_inds)} cannot be decoded")


def too_large(width: int, height: int) -> str:
    """Return the message for a frame that is too large to be decoded.

    >>> too_large(16_000, 16_000)
    'its frames have 16000 x 16000 pixels, more than the 67,108,864 that are decoded'
    """
    return f"its frames have {width} x {height} pixels, more than the {MAX_PIXELS:,} that are decoded"
