"""FrameIndex: which frames a video has and when they are shown, found without decoding wherever the file can be trusted."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from clipbert_mm.media.readers.base import VideoReader
from clipbert_mm.media.readers.frame_times import UNKNOWN_FPS, Timing, constant_rate, is_even, time_frames
from clipbert_mm.media.readers.packets import Packets, find_hidden_by_decoding, list_packets, read_all_packets
from clipbert_mm.media.readers.video_source import Source, is_still

UNTIMELY = ("mpegts", "mpeg")
"""Containers, by FFmpeg's names, in which libraries that seek by time arrive at a wrong frame."""
NO_TIMESTAMPS = 0x80
"""FFmpeg's flag of formats without timestamps, which are raw streams."""
LONGEST_GAP = 10.0
"""Seconds from one frame to the next in these containers, at most, as in FFmpeg; a longer step is a jump of the clock."""


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """At which packets decoding can begin, and which frames follow from there. A group goes from one key frame to the next.

    Args:
        starts: Number of packets before each group, and in all, (G + 1,) int64.
        shown: Number of shown frames before each group, and in all, (G + 1,) int64.
        times: Decoding time of the first packet of each group, in ticks; None if not in the file.
        hidden: Whether each packet shows no frame, (N,) bool.
        timing: Times of the frames.
        container: FFmpeg's name of the container, such as "mpegts".
        listed: Whether the file has an index of its frames, so that seeking finds a group.
        timed: Whether the file has presentation times. AVI and raw streams have none: if the display order differs from the
            decoding order, only decoding tells.
        oddity: Why libraries that find frames by their times go wrong; empty if they do not.
        untouched: Whether the container is still before its first packet.
        first: Decoding time and byte position of the first packet.
    """

    starts: np.ndarray
    shown: np.ndarray
    times: Sequence[int | None]
    hidden: np.ndarray
    timing: Timing
    container: str
    listed: bool
    timed: bool
    oddity: str
    untouched: bool
    first: tuple[int | None, int | None]

    @property
    def total_frames(self) -> int:
        """Number of frames that are shown."""
        return int(self.shown[-1])

    def describe_to(self, reader: VideoReader) -> None:
        """Set the attributes of a reader that describe its video."""
        reader.total_frames, reader.avg_fps = self.total_frames, self.timing.avg_fps
        reader.duration, reader.frame_times = self.timing.duration, self.timing.frame_times


def index_frames(source: Source, container: InputContainer, stream: VideoStream) -> FrameIndex:
    """Find out which frames a video has, from the index of the file or by reading all packets.

    Groups are decoded only if packets do not tell what they show: if a file begins between key frames, or MPEG-4 packets may
    be "not coded".

    Raises:
        ValueError: If the file is cut short, claims more frames than it can have, shows no frame or is a still image.
    """
    listed, packets = not source.fragmented, None
    if listed:
        packets = list_packets(source, container, stream)
    untouched = packets is not None
    if packets is None:
        listed, packets = False, read_all_packets(container, stream)
    if packets.doubtful:
        packets, untouched = find_hidden_by_decoding(source, packets, container.format.name), False
    before = np.concatenate([[0], np.cumsum(~packets.hidden)])
    name = container.format.name
    if before[-1] == 0 or (before[-1] == 1 and is_still(container)):
        raise ValueError("a still image, no video" if before[-1] else "it shows no frame")
    timed = packets.pts is not None or listed
    timed = timed and (name != "avi" or not stream.codec_context.has_b_frames)
    timing = _time_even(stream, packets) if untouched else None
    if timing is None:
        if untouched:
            packets = replace(read_all_packets(container, stream), hidden=packets.hidden)
            untouched = False
        timing = _time(name, stream, packets)
    starts = np.flatnonzero(packets.key)
    ends = np.append(starts, len(packets.key))
    return FrameIndex(
        starts=ends,
        shown=before[ends],
        times=[packets.dts[i] for i in starts.tolist()],
        hidden=packets.hidden,
        timing=timing,
        container=name,
        listed=listed,
        timed=timed,
        oddity=_name_oddity(container, timed, packets) if not untouched else "",
        untouched=untouched,
        first=(packets.dts[0], packets.pos),
    )


def _name_oddity(container: InputContainer, timed: bool, packets: Packets) -> str:
    """Return why libraries that find frames by their times go wrong; empty if they do not."""
    name = container.format.name
    if name in UNTIMELY or container.format.flags & NO_TIMESTAMPS:
        return name
    known = [time for time in packets.dts if time is not None]
    if (np.diff(known) < 0).any():
        return f"{name}, whose times go back, as by an edit list of several parts"
    if not timed:
        return f"{name}, which does not say when its frames are shown"
    if packets.doubtful:
        return "with packets that show nothing"
    return ""


def _time_even(stream: VideoStream, packets: Packets) -> Timing | None:
    """Return the timing of an MP4 file by its index; None if the decoding times are uneven."""
    ticks, tick = np.array(packets.dts)[~packets.hidden], stream.time_base or Fraction(1)
    last, rate = (stream.duration or 0) - int(ticks[-1] - ticks[0]), _rate(stream)
    if rate and len(ticks) > 1:
        steps = np.diff(ticks)
        step = int(steps[0])
        if last == step == steps.max() == steps.min() and abs(rate * step * float(tick) - 1) * len(ticks) < 1:
            return constant_rate(len(ticks), rate)  # the result of time_frames, which is slow
    return time_frames(ticks, last, tick, rate) if is_even(ticks, tick) else None


def _time(name: str, stream: VideoStream, packets: Packets) -> Timing:
    """Return the timing of frames by the presentation times of their packets."""
    if packets.pts is None or stream.time_base is None:
        return constant_rate(int((~packets.hidden).sum()), _rate(stream) or UNKNOWN_FPS)
    # Packets that follow a key frame may be shown before it, but after all earlier groups.
    order = np.lexsort((packets.pts, packets.group))
    order = order[~packets.hidden[order]]
    longest = LONGEST_GAP if name in UNTIMELY else math.inf
    return time_frames(packets.pts[order], int(packets.durations[order[-1]]), stream.time_base, _rate(stream), longest)


def _rate(stream: VideoStream) -> float:
    """Return the frames per second by the header of the file; 0 if it has none."""
    return float(stream.average_rate or stream.guessed_rate or 0)
