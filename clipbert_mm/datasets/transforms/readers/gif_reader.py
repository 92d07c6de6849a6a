"""Animated GIFs, by PyAV."""

import io
from collections.abc import Iterator, Sequence
from fractions import Fraction

import av
import numpy as np

from clipbert_mm.datasets.transforms.readers.base import VideoReader, missing_frame

GIF_DELAY = Fraction(1, 10)
"""Seconds that a GIF's frame is shown where the file says 0, as browsers and FFmpeg have it."""


class GifReader(VideoReader):
    """Frames of an animated GIF, which decord opens none of. A frame is what differs from the one before.

    So all are decoded from the first to the last one wanted. What was transparent is white.

    Args:
        data: Bytes of the file.

    Raises:
        ValueError: If it is no whole GIF.
    """

    def __init__(self, data: bytes) -> None:
        if not _ends_as_gif(data):
            raise ValueError("a GIF that is cut short or damaged")
        self.data = data
        with av.open(io.BytesIO(data), "r", "gif") as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            tick = container.streams.video[0].time_base or Fraction(1, 100)
        if not packets:
            raise ValueError("a GIF without pictures")
        self.total_frames = len(packets)
        before, last = (packets[-1].pts or 0) * tick, (packets[-1].duration or 0) * tick  # seconds
        if not last:
            last = before / (len(packets) - 1) if before else GIF_DELAY
        self.duration = float(before + last)
        self.avg_fps = float(self.total_frames / (before + last))
        times = np.array([packet.pts or 0 for packet in packets]) * float(tick)
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


def _ends_as_gif(data: bytes) -> bool:
    """Whether a GIF's blocks lead to its end mark; decoders take one that is cut for a shorter one."""

    def colors(flags: int) -> int:
        return 3 << (flags % 8 + 1) if flags & 0x80 else 0

    place = 13 + colors(data[10]) if len(data) > 13 else len(data)
    while place < len(data):
        if data[place] == 0x3B:
            return True
        if data[place] == 0x21:  # an extension, with its label
            place += 2
        elif data[place] == 0x2C and place + 9 < len(data):  # a picture, perhaps with colours of its own
            place += 11 + colors(data[place + 9])
        else:
            return False
        while place < len(data) and data[place]:  # blocks that begin with their length, up to one of length 0
            place += data[place] + 1
        place += 1
    return False
