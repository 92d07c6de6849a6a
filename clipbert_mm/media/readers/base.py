"""What every reader of a video can do."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

MAX_PIXELS = 1 << 26
"""Most pixels of a frame that is decoded, those of 8,192 x 8,192; as RGB they take 0.2 GB."""


class VideoReader(ABC):
    """An open video, whichever library decodes it. Frames count from 0 in the order in which they are shown.

    The rules that hold for all: a frame is what the file shows, so what an edit list cuts away does not count; frame i is the
    i-th shown one, however unevenly they are spaced; pictures are upright, as the file says that its camera was held; colors
    are converted by the matrix and range that the file names.

    Attributes:
        total_frames: Number of frames that are shown.
        avg_fps: Frames a second, on average.
        duration: Seconds from the first frame to the end of the last.
        frame_times: Seconds from the first frame to each, (N,) float64, by the file's time stamps; None where the rate is
            constant, so that frame i is shown at i / avg_fps.
    """

    total_frames: int
    avg_fps: float
    duration: float
    frame_times: np.ndarray | None = None

    @abstractmethod
    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames, each once.

        Args:
            frame_inds: Places of the frames, distinct and ascending.

        Yields:
            Place and picture, (H, W, 3) uint8 RGB, of each, in any order; a picture may be good only until the next.

        Raises:
            IndexError: If a frame is not there.
        """

    def describe(self) -> dict[str, Any]:
        """Return what is known of the video, by the names of the attributes."""
        return {name: getattr(self, name) for name in ("total_frames", "avg_fps", "duration", "frame_times")}

    def close(self) -> None:  # noqa: B027
        """Let go of the file."""


def missing_frame(total_frames: int, frame_inds: Sequence[int]) -> IndexError:
    """Return the error that says which frame a decoder did not give."""
    return IndexError(f"expected {total_frames} frames, frame {min(frame_inds)} cannot be decoded")


def too_large(width: int, height: int) -> str:
    """Return what to say of a frame that is not decoded for its size.

    >>> too_large(16_000, 16_000)
    'its frames have 16000 x 16000 pixels, more than the 67,108,864 that are decoded'
    """
    return f"its frames have {width} x {height} pixels, more than the {MAX_PIXELS:,} that are decoded"
