"""The reader of animated GIFs."""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np

from clipbert_mm.media.readers.base import MAX_PIXELS, VideoReader, missing_frame, too_large

GIF_DELAY = Fraction(1, 10)
"""Seconds that a frame is shown if the file says 0, as in browsers and FFmpeg."""
MAX_BYTES = 1 << 29
"""Bytes of a file, at most; it is held in memory."""
MAX_TOTAL_PIXELS = 512 * MAX_PIXELS
"""Pixels of all frames together, at most. A frame may depend on all earlier ones, and 20 bytes can encode one of any size."""


class GifReader(VideoReader):
    """Read an animated GIF by PyAV; Decord cannot open any.

    A frame is stored as the difference to the previous one, so all are decoded up to the last requested one. Transparent pixels
    become white.

    Args:
        data: The bytes of the file.

    Raises:
        ValueError: If it is not a complete GIF, or its frames are too large or too many.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) > MAX_BYTES:
            raise ValueError(f"a GIF of more than {MAX_BYTES:,} bytes, the largest that is read. Encode it as a video")
        if not _is_complete(data):
            raise ValueError("a GIF that is cut short or damaged")
        width, height = (int.from_bytes(data[offset : offset + 2], "little") for offset in (6, 8))
        if width * height > MAX_PIXELS:
            raise ValueError(too_large(width, height))
        self.data = data
        with av.open(io.BytesIO(data), "r", "gif") as container:
            shown = [(packet.pts or 0, packet.duration or 0) for packet in container.demux(video=0) if packet.size]
            tick = container.streams.video[0].time_base or Fraction(1, 100)
        if not shown:
            raise ValueError("a GIF without frames")
        self.total_frames = len(shown)
        if self.total_frames * width * height > MAX_TOTAL_PIXELS:
            size = f"{self.total_frames:,} frames of {width:,} x {height:,} pixels"
            raise ValueError(
                f"its {size} are more than the {MAX_TOTAL_PIXELS:,} pixels that are decoded. Encode it as a video"
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
        remaining = set(frame_inds)
        with av.open(io.BytesIO(self.data), "r", "gif") as container:
            for i, frame in enumerate(container.decode(video=0)):
                if i in remaining:
                    remaining.remove(i)
                    yield i, frame.to_ndarray(format="rgb24")
                if not remaining:
                    return
        raise missing_frame(self.total_frames, sorted(remaining))


def is_gif(head: bytes) -> bool:
    """Whether a file with these first bytes is a GIF.

    >>> is_gif(b"GIF89a..."), is_gif(b"RIFF....")
    (True, False)
    """
    return head[:6] in (b"GIF87a", b"GIF89a")


def _is_complete(data: bytes) -> bool:
    """Whether the blocks of a GIF end with its trailer, or with the file, since some programs write no trailer.

    Decoders read a GIF that is cut short as a shorter one.
    """

    def palette_size(flags: int) -> int:
        return 3 << (flags % 8 + 1) if flags & 0x80 else 0

    offset = 13 + palette_size(data[10]) if len(data) > 13 else len(data) + 1
    while offset < len(data):
        if data[offset] == 0x3B:
            return True
        if data[offset] == 0x21:  # an extension, with its label
            offset += 2
        elif data[offset] == 0x2C and offset + 9 < len(data):  # a frame, possibly with a palette of its own
            offset += 11 + palette_size(data[offset + 9])
        else:
            return False
        while offset < len(data) and data[offset]:  # blocks that begin with their length; one of length 0 is the last
            offset += data[offset] + 1
        offset += 1
    return offset == len(data)
