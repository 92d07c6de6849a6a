"""How many samples an MP4 file claims to have, read without FFmpeg, which would allocate memory for them."""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from struct import Struct

PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")
"""Boxes that contain the boxes that count samples."""
COUNTS = {b"stsz": 8, b"stz2": 8, b"trun": 4}
"""Boxes that count samples, and the offset of the count in their content."""
HEAD, LONG, NUMBER = Struct(">I4s"), Struct(">Q"), Struct(">I")


@dataclass(frozen=True)
class Claims:
    """Contents that an MP4 file claims to have.

    Args:
        samples: Number of video frames and audio samples of all tracks.
        fragmented: Whether it is written in fragments, of which its index lists only the first.
    """

    samples: int
    fragmented: bool


def read_claims(descriptor: int) -> Claims:
    """Read the boxes of an open MP4 file.

    Args:
        descriptor: The file descriptor; its position is not changed.

    Raises:
        ValueError: If the file claims more samples than it has bytes; FFmpeg would allocate memory for each of them.
    """
    samples, fragmented = 0, False
    with mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ) as data:
        for name, begin, end in _counting_boxes(data, 0, len(data), len(PARENTS)):
            fragmented = fragmented or name == b"trun"
            begin += COUNTS[name]
            samples += NUMBER.unpack_from(data, begin)[0] if begin + 4 <= end else 0
        if samples > len(data):
            raise ValueError(f"it claims {samples:,} frames and samples, its {len(data):,} bytes cannot hold so many")
    return Claims(samples, fragmented)


def _counting_boxes(data: mmap.mmap, start: int, end: int, depth: int) -> Iterator[tuple[bytes, int, int]]:
    """Find the boxes that count samples: the name of each, and the start and end of its content."""
    while start + 8 <= end:
        size, name = HEAD.unpack_from(data, start)
        begin = start + 8
        if size == 1 and start + 16 <= end:
            size, begin = LONG.unpack_from(data, begin)[0], start + 16
        stop = min(start + size, end) if size else end  # 0: up to the end
        if stop < begin:
            return
        if name in COUNTS:
            yield name, begin, stop
        elif depth and name in PARENTS:
            yield from _counting_boxes(data, begin, stop, depth - 1)
        start = stop
