"""Animated GIFs, by PyAV."""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np

from clipbert_mm.media.readers.base import MAX_PIXELS, VideoReader, missing_frame, too_large

GIF_DELAY = Fraction(1, 10)
"""Seconds that a GIF's frame is shown where the file says 0, as browsers and FFmpeg have it."""
LARGEST_FILE = 1 << 29
"""Bytes of the largest file that is read; it is held in memory."""
MOST_PIXELS = 512 * MAX_PIXELS
"""Most pixels of all frames together. Any frame may need all before it, and 20 bytes are enough for one of any size."""


class GifReader(VideoReader):
    """Frames of an animated GIF, which decord opens none of. A frame is what differs from the one before.

    So all are decoded from the first to the last one wanted. What was transparent is white.

    Args:
        data: Bytes of the file.

    Raises:
        ValueError: If it is no whole GIF, or its frames are too large or too many.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) > LARGEST_FILE:
            raise ValueError(f"a GIF of more than the {LARGEST_FILE:,} bytes that are read. Encode it as a video")
        if not _is_whole(data):
            raise ValueError("a GIF that is cut short or damaged")
        width, height = (int.from_bytes(data[place : place + 2], "little") for place in (6, 8))
        if width * height > MAX_PIXELS:
            raise ValueError(too_large(width, height))
        self.data = data
        with av.open(io.BytesIO(data), "r", "gif") as container:
            shown = [(packet.pts or 0, packet.duration or 0) for packet in container.demux(video=0) if packet.size]
            tick = container.streams.video[0].time_base or Fraction(1, 100)
        if not shown:
            raise ValueError("a GIF without pictures")
        self.total_frames = len(shown)
        if self.total_frames * width * height > MOST_PIXELS:
            size = f"{self.total_frames:,} frames of {width:,} x {height:,} pixels"
            raise ValueError(
                f"its {size} are more than the {MOST_PIXELS:,} pixels that are decoded. Encode it as a video"
            )
        before, last = shown[-1][0] * tick, shown[-1][1] * tick  # seconds
        if not last:
            last = before / (len(shown) - 1) if before else GIF_DELAY
        self.duration = float(before + last)
        self.avg_fps = float(self.total_frames / (before + last))
        times = np.array([time for time, _ in shown]) * float(tick)
        if np.abs(times - np.arange(self.total_frames) / self.avg_fps).max() > tick:
            self.frame_times = times

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames; see :meth:`VideoReader.read`."""
        left = set(frame_inds)
        with av.open(io.BytesIO(self.data), "r", "gif") as container:
            for i, frame in enumerate(container.decode(video=0)):
                if i in left:
                    left.remove(i)
                    yield i, frame.to_ndarray(format="rgb24")
                if not left:
                    return
        raise missing_frame(self.total_frames, sorted(left))


def is_gif(head: bytes) -> bool:
    """Whether a file that begins like this is a GIF.

    >>> is_gif(b"GIF89a..."), is_gif(b"RIFF....")
    (True, False)
    """
    return head[:6] in (b"GIF87a", b"GIF89a")


def _is_whole(data: bytes) -> bool:
    """Whether a GIF's blocks lead to its end mark, or to the end, as some programs write no mark.

    Decoders take a GIF that is cut short for a shorter one.
    """

    def colors(flags: int) -> int:
        return 3 << (flags % 8 + 1) if flags & 0x80 else 0

    place = 13 + colors(data[10]) if len(data) > 13 else len(data) + 1
    while place < len(data):
        if data[place] == 0x3B:
            return True
        if data[place] == 0x21:  # an extension, with its label
            place += 2
        elif data[place] == 0x2C and place + 9 < len(data):  # a picture, perhaps with colors of its own
            place += 11 + colors(data[place + 9])
        else:
            return False
        while place < len(data) and data[place]:  # blocks that begin with their length, up to one of length 0
            place += data[place] + 1
        place += 1
    return place == len(data)
