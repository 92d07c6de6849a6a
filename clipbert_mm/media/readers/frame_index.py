"""Which frames a video has and when they are shown, known without decoding them wherever the file can be trusted."""

import math
import operator
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipbert_mm.media.readers.base import VideoReader
from clipbert_mm.media.readers.frame_times import UNKNOWN_FPS, Timing, constant_rate, is_even, time_frames
from clipbert_mm.media.readers.hidden_frames import TINY, begins_afresh, shows_nothing
from clipbert_mm.media.readers.video_source import CUT_SHORT, Source, is_still, read_packets

UNTIMELY = ("mpegts", "mpeg")
"""Containers, by FFmpeg's names, in which libraries that seek by time end up elsewhere."""
NO_TIMESTAMPS = 0x80
"""FFmpeg's mark of formats that say no times, which are bare streams."""
LONGEST_GAP = 10.0
"""Seconds from one frame to the next in such containers, as FFmpeg has it; more is a jump of the clock."""
FEWEST_BYTES = 8
"""Bytes of a file for each frame that it lists, at least; less is a claim that only costs memory."""
HEAD = 4096
"""Bytes of a packet that are looked at to see what it begins with."""


@dataclass(frozen=True, eq=False)
class Packets:
    """What is known of a stream's packets, in the order in which they are decoded.

    Args:
        dts: Decoding times, in ticks; None where the file does not say.
        key: Whether each is a key frame, (N,) bool; the first counts as one, for wherever a file begins, decoding has to.
        hidden: Whether what it holds is not shown, (N,) bool.
        pts: Times at which the frames are shown, in ticks, (N,) int64; None where that is not known.
        durations: How long they are shown, in ticks, (N,) int64; 0 where that is not known.
        pos: Where in the file the first begins, in bytes; None where that is not known.
        doubtful: Groups, which go from one key frame to the next, of which only decoding tells what they show.
    """

    dts: list[int | None]
    key: np.ndarray
    hidden: np.ndarray
    pts: np.ndarray | None
    durations: np.ndarray
    pos: int | None
    doubtful: frozenset[int] = frozenset()

    @property
    def group(self) -> np.ndarray:
        """Number of the group of each packet, (N,) int64."""
        return np.cumsum(self.key) - 1


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Where decoding can begin, and which frames follow from there. A group goes from one key frame to the next.

    Args:
        starts: Packets before each group, and of all groups, (G + 1,) int64.
        shown: Frames shown that come before each group, and in all, (G + 1,) int64.
        times: Decoding time of each group's first packet, in ticks; None where the file does not say.
        hidden: Packets that show nothing, (N,) bool.
        timing: When the frames are shown.
        container: FFmpeg's name of the container, such as "mpegts".
        listed: Whether the file lists its frames, so that seeking finds a group.
        timed: Whether the file says when a frame is shown. AVI does not, so where frames are shown in another order than they
            are decoded in, only decoding tells; nor do bare streams.
        odd: What misleads libraries that find frames by their times, empty if nothing does.
        untouched: Whether the container still stands before its first packet.
        first: Decoding time and place in the file of the first packet.
    """

    starts: np.ndarray
    shown: np.ndarray
    times: Sequence[int | None]
    hidden: np.ndarray
    timing: Timing
    container: str
    listed: bool
    timed: bool
    odd: str
    untouched: bool
    first: tuple[int | None, int | None]

    @property
    def total_frames(self) -> int:
        """Number of frames that are shown."""
        return int(self.shown[-1])

    def tell(self, reader: VideoReader) -> None:
        """Set what a reader says of its video."""
        reader.total_frames, reader.avg_fps = self.total_frames, self.timing.avg_fps
        reader.duration, reader.frame_times = self.timing.duration, self.timing.frame_times


def index_frames(source: Source, container: InputContainer, stream: VideoStream) -> FrameIndex:
    """Find out which frames a video has, from the file's own list or by passing over its packets.

    Groups are decoded only where packets do not tell what is shown: where a file begins between key frames, or MPEG-4 has
    packets that may be "not coded".

    Raises:
        ValueError: If the file is shorter than it says, claims more frames than it can hold, shows none or is a still image.
    """
    listed, packets = not source.fragmented, None
    if listed:
        packets = _list(source, container, stream)
    untouched = packets is not None
    if packets is None:
        listed, packets = False, _pass_over(container, stream)
    if packets.doubtful:
        packets, untouched = _decode_doubtful(source, packets, container.format.name), False
    before = np.concatenate([[0], np.cumsum(~packets.hidden)])
    name = container.format.name
    if before[-1] == 0 or (before[-1] == 1 and is_still(container)):
        raise ValueError("a still image, no video" if before[-1] else "it shows no frame")
    timed = packets.pts is not None or listed
    timed = timed and (name != "avi" or not stream.codec_context.has_b_frames)
    timing = _time_even(stream, packets) if untouched else None
    if timing is None:
        if untouched:
            packets = replace(_pass_over(container, stream), hidden=packets.hidden)
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
        odd=_name_oddity(container, timed, packets) if not untouched else "",
        untouched=untouched,
        first=(packets.dts[0], packets.pos),
    )


def _name_oddity(container: InputContainer, timed: bool, packets: Packets) -> str:
    """Say what misleads libraries that find frames by their times."""
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


def _list(source: Source, container: InputContainer, stream: VideoStream) -> Packets | None:
    """Read the list of packets of an MP4 file; None if there is none, or one that seeking cannot go by.

    Raises:
        ValueError: If the file is shorter than the list says, or the list longer than the file allows.
    """
    codec = stream.codec_context.name
    if "mp4" not in container.format.name or codec == "vp8":
        return None
    if len(stream.index_entries) * FEWEST_BYTES > container.size:
        claimed = f"{len(stream.index_entries):,} frames, its {container.size:,} bytes"
        raise ValueError(f"it claims {claimed} cannot hold so many")
    entries = [entry for entry in stream.index_entries if entry.size]
    if not entries:
        return None
    if container.size < max(entry.pos + entry.size for entry in entries):
        raise ValueError(CUT_SHORT)
    dts = [entry.timestamp for entry in entries]
    key = np.array([entry.is_keyframe for entry in entries])
    hidden = np.array([entry.is_discard for entry in entries])
    head = os.pread(source.number, min(entries[0].size, HEAD), entries[0].pos)
    if (
        (codec == "mpeg4" and any(entry.size < TINY for entry in entries))
        or not key[0]
        or not begins_afresh(codec, stream.codec_context.extradata, head)
    ):
        return None
    if any(map(operator.ge, dts, dts[1:])):  # an edit list of several parts
        return None
    return Packets([*dts], key, hidden, None, np.zeros(len(dts), np.int64), entries[0].pos)


def _pass_over(container: InputContainer, stream: VideoStream) -> Packets:
    """List the packets by reading them all."""
    name, codec, extradata = container.format.name, stream.codec_context.name, stream.codec_context.extradata
    rows: list[tuple[int | None, int | None, bool, bool, int | None, int]] = []
    afresh, pos, has_hidden = True, None, codec in ("vp8", "vp9")
    try:
        for packet in read_packets(container, stream):
            if not rows:
                pos = packet.pos
                afresh = packet.is_keyframe and begins_afresh(codec, extradata, bytes(memoryview(packet)[:HEAD]))
            hidden = packet.is_discard or (has_hidden and shows_nothing(codec, memoryview(packet)))
            rows.append((packet.dts, packet.pts, packet.is_keyframe, hidden, packet.duration, packet.size))
    except av.error.FFmpegError as error:
        raise ValueError(CUT_SHORT) from error
    dts = [row[0] for row in rows]
    # In an AVI file, frames that are repeated have no packet, but count; by a frame or two, headers of whole files err.
    counted = stream.frames if name == "avi" else 0
    if not rows or (dts[-1] or 0) * (1 + 1 / len(rows)) < 0.98 * counted - 3:
        raise ValueError(CUT_SHORT)
    # An AVI file does not say when a frame is shown.
    pts = dts if name == "avi" else [row[0] if row[1] is None else row[1] for row in rows]
    table = np.array([(key, hidden, duration or 0, size) for _, _, key, hidden, duration, size in rows], np.int64)
    key = table[:, 0].astype(bool)
    key[0] = True
    packets = Packets(dts, key, table[:, 1].astype(bool), None if None in pts else np.array(pts), table[:, 2], pos)
    doubtful = set() if afresh else {0}
    if packets.pts is not None and (packets.pts[packets.group == 0] < packets.pts[0]).any():
        doubtful.add(0)  # frames that may need some from before the first key frame
    if codec == "mpeg4":
        doubtful.update(packets.group[table[:, 3] < TINY].tolist())
    return replace(packets, doubtful=frozenset(doubtful))


def _decode_doubtful(source: Source, packets: Packets, name: str) -> Packets:
    """Find out which packets show a frame by decoding, from the first up to where no group is in doubt.

    Where a group lacks a frame, the next one may begin with frames that need it, so that one is decoded too.
    """
    last, groups = max(packets.doubtful), packets.group
    while True:
        count = int((groups <= last).sum())
        hidden = packets.hidden.copy()
        hidden[:count] |= _hidden_among(source, packets, count, name)
        lacks = hidden & ~packets.hidden
        if count == len(groups) or not lacks[groups == last].any():
            return replace(packets, hidden=hidden, doubtful=packets.doubtful if lacks.any() else frozenset())
        last = 2 * last + 1


def _hidden_among(source: Source, packets: Packets, count: int, name: str) -> np.ndarray:
    """Decode the first ``count`` packets; tell which of them show nothing, (count,) bool."""
    container, stream = source.open()
    with container:
        frames = _decode_all(container, stream, count)
        shown = Counter(frame.dts if name == "avi" else frame.pts for frame in frames)
    hidden = np.ones(count, bool)
    places = np.flatnonzero(~packets.hidden[:count])
    if packets.pts is not None:
        for place, time in zip(places.tolist(), packets.pts[places].tolist(), strict=True):
            if shown[time]:
                shown[time] -= 1
                hidden[place] = False
    left = sum(shown.values())  # of which the time does not tell the packet: the last ones, for what fails is the first
    hidden[places[hidden[places]][::-1][:left]] = False
    return hidden


def _decode_all(container: InputContainer, stream: VideoStream, count: int) -> Iterator[VideoFrame]:
    """Decode the first packets and nothing else, those that fail apart."""
    decoder = stream.codec_context
    for packet, _ in zip(read_packets(container, stream), range(count), strict=False):
        with suppress(av.error.FFmpegError):
            yield from decoder.decode(packet)
    with suppress(av.error.FFmpegError):
        yield from decoder.decode(None)


def _time_even(stream: VideoStream, packets: Packets) -> Timing | None:
    """Return the timing of an MP4 file whose list has even decoding times; None where they are not."""
    ticks, tick = np.array(packets.dts)[~packets.hidden], stream.time_base or Fraction(1)
    last, rate = (stream.duration or 0) - int(ticks[-1] - ticks[0]), _rate(stream)
    if rate and len(ticks) > 1:
        steps = np.diff(ticks)
        step = int(steps[0])
        if last == step == steps.max() == steps.min() and abs(rate * step * float(tick) - 1) * len(ticks) < 1:
            return constant_rate(len(ticks), rate)  # as time_frames finds, which takes its time
    return time_frames(ticks, last, tick, rate) if is_even(ticks, tick) else None


def _time(name: str, stream: VideoStream, packets: Packets) -> Timing:
    """Return when frames are shown by the times of their packets."""
    if packets.pts is None or stream.time_base is None:
        return constant_rate(int((~packets.hidden).sum()), _rate(stream) or UNKNOWN_FPS)
    # What follows a key frame in the file may be shown before it, but in no earlier group.
    order = np.lexsort((packets.pts, packets.group))
    order = order[~packets.hidden[order]]
    longest = LONGEST_GAP if name in UNTIMELY else math.inf
    return time_frames(packets.pts[order], int(packets.durations[order[-1]]), stream.time_base, _rate(stream), longest)


def _rate(stream: VideoStream) -> float:
    """Return the frames a second that the file says; 0 where it does not."""
    return float(stream.average_rate or stream.guessed_rate or 0)
