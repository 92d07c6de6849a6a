"""Opening a video quickly, and knowing its frames without decoding one."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from clipbert_mm.datasets.transforms.readers.base import VideoReader
from clipbert_mm.datasets.transforms.readers.timing import UNKNOWN_FPS, Timing, constant_rate, is_even, time_frames

CUT_SHORT = "not a video, or cut short"
QUICK = {"skip_frame": "all", "analyzeduration": "1"}
"""Options by which FFmpeg looks for what a file is and decodes none of its frames, which costs more than all the rest."""
UNTIMELY = ("mpegts", "mpeg")
"""Containers, by FFmpeg's names, in which libraries that seek by time end up elsewhere."""
PEEKED = 24
"""Packets that are looked at to see whether frames are shown in another order than they are decoded in."""

LONGEST_GAP = 10.0
"""Seconds from one frame to the next in such containers, as FFmpeg has it; more is a jump of the clock."""


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Where decoding can begin, and which frames follow from there. A group goes from one key frame to the next.

    Args:
        starts: Packets before each group, and of all groups, (G + 1,) int64.
        shown: Frames shown that come before each group, and in all, (G + 1,) int64.
        times: Decoding time of each group's first packet, in ticks of the stream, (G,); None where the file does not say.
        timing: When they are shown.
        container: FFmpeg's name of the container, such as "mpegts".
        listed: Whether the file lists its frames, so that seeking finds a group.
        timed: Whether the file says when a frame is shown. AVI does not, so where frames are shown in another order than they
            are decoded in, only decoding tells.
    """

    starts: np.ndarray
    shown: np.ndarray
    times: Sequence[int | None]
    timing: Timing
    container: str
    listed: bool
    timed: bool

    @property
    def total_frames(self) -> int:
        """Number of frames that are shown."""
        return int(self.shown[-1])

    def tell(self, reader: VideoReader) -> None:
        """Set what a reader says of its video."""
        reader.total_frames, reader.avg_fps = self.total_frames, self.timing.avg_fps
        reader.duration, reader.frame_times = self.timing.duration, self.timing.frame_times

    def check_other(self, backend: str, counted: int) -> None:
        """See that a library that finds frames by their time takes the ones that the file shows.

        Args:
            backend: Its name.
            counted: Frames that it counts.

        Raises:
            ValueError: If it does not, because the file's times mislead it.
        """
        if counted != self.total_frames:
            trouble = f"{backend} counts {counted} frames, the file shows {self.total_frames}"
        elif not self.timed or self.container in UNTIMELY:
            trouble = f"{backend} takes wrong frames of such a file ({self.container}"
            trouble += ")" if self.timed else ", which does not say when its frames are shown)"
        else:
            return
        raise ValueError(f"{trouble}; use OpenVideo(backend='pyav') or 'opencv'")


def open_container(name: str) -> InputContainer:
    """Open a file: quickly if it is an MP4 that says enough of itself, else as FFmpeg does.

    Raises:
        ValueError: If it is no video, or has no video stream.
    """
    with open(name, "rb") as file:
        quick = file.read(8)[4:] == b"ftyp"
    try:
        if quick:
            container = av.open(name, options=QUICK)
            if _says_enough(container):
                return container
            container.close()
        container = av.open(name)
    except av.error.FFmpegError as error:
        raise ValueError(CUT_SHORT) from error
    if not container.streams.video:
        container.close()
        raise ValueError("it has no video stream")
    return container


def best_stream(container: InputContainer) -> VideoStream:
    """Return the stream that FFmpeg takes for the video, which is no cover picture."""
    stream = container.streams.best("video")
    assert isinstance(stream, VideoStream), "a container without video was opened"
    return stream


def _says_enough(container: InputContainer) -> bool:
    """Whether a decoder needs no more than what opening has found.

    H.264 need not say how far frames are shown from where they are decoded; FFmpeg then has to try.
    """
    if not container.streams.video or not best_stream(container).average_rate:
        return False
    stream = best_stream(container)
    if stream.codec_context.name != "h264" or stream.codec_context.has_b_frames:
        return True
    times = [packet.pts for packet, _ in zip(read_packets(container, stream), range(PEEKED), strict=False)]
    rewind(container, stream, None)
    return None not in times and times == sorted(times)  # type: ignore[type-var]


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Read the stream's packets from where the container stands, without empty ones."""
    return (packet for packet in container.demux(stream) if packet.size)


def rewind(container: InputContainer, stream: VideoStream, first: int | None) -> None:
    """Go back to the beginning.

    Args:
        container: The open file.
        stream: Its video.
        first: Decoding time of the first packet, in ticks; None if it is not known.
    """
    start = min(time for time in (first, stream.start_time, 0) if time is not None)
    container.seek(start, stream=stream)


def index_frames(container: InputContainer) -> FrameIndex:
    """Find out which frames a video has, from the file's own list or by passing over its packets; none is decoded.

    Raises:
        ValueError: If the file is shorter than it says.
    """
    stream = best_stream(container)
    listed = "mp4" in container.format.name and len(stream.index_entries) > 0 and not _in_fragments(container.name)
    packets = _list(container, stream) if listed else _pass_over(container, stream)
    packets.key[0] = True  # wherever a file begins, decoding has to
    starts = np.flatnonzero(packets.key)
    before = np.concatenate([[0], np.cumsum(~packets.hidden)])
    ends = np.append(starts, len(packets.key))
    return FrameIndex(
        starts=ends,
        shown=before[ends],
        times=[packets.dts[i] for i in starts.tolist()],
        timing=_time(container, stream, packets, listed) if before[-1] else Timing(_rate(stream), 0.0),
        container=container.format.name,
        listed=listed,
        timed=container.format.name != "avi" or not stream.codec_context.has_b_frames,
    )


@dataclass(frozen=True, eq=False)
class Packets:
    """What is known of a stream's packets, in the order in which they are decoded.

    Args:
        dts: Decoding times, in ticks; None where the file does not say.
        key: Whether each is a key frame, (N,) bool.
        hidden: Whether what it holds is not shown, (N,) bool.
        pts: Times at which the frames are shown, in ticks, (N,) int64; None where that is not known.
        durations: How long they are shown, in ticks, (N,) int64; 0 where that is not known.
    """

    dts: list[int | None]
    key: np.ndarray
    hidden: np.ndarray
    pts: np.ndarray | None
    durations: np.ndarray


def _list(container: InputContainer, stream: VideoStream) -> Packets:
    """Read the file's own list of packets."""
    entries = [entry for entry in stream.index_entries if entry.size]
    if not entries or container.size < max(entry.pos + entry.size for entry in entries):
        raise ValueError(CUT_SHORT)
    key = np.array([entry.is_keyframe for entry in entries])
    hidden = np.array([entry.is_discard for entry in entries])
    dts: list[int | None] = [entry.timestamp for entry in entries]
    return Packets(dts, key, hidden, None, np.zeros(len(dts), np.int64))


def _time(container: InputContainer, stream: VideoStream, packets: Packets, listed: bool) -> Timing:
    """Find out when the frames are shown; packets are passed over only where a list is of uneven times."""
    if stream.time_base is None:
        return constant_rate(int((~packets.hidden).sum()), _rate(stream) or UNKNOWN_FPS)
    longest = LONGEST_GAP if container.format.name in UNTIMELY else math.inf
    if listed:
        ticks = np.array(packets.dts)[~packets.hidden]
        if (np.diff(ticks) > 0).all() and is_even(ticks, stream.time_base):
            last = (stream.duration or 0) - int(ticks[-1] - ticks[0])
            return time_frames(ticks, last, stream.time_base, _rate(stream))
        packets = _pass_over(container, stream)
    if packets.pts is None:
        return constant_rate(int((~packets.hidden).sum()), _rate(stream) or UNKNOWN_FPS)
    group = np.cumsum(
        packets.key
    )  # what follows a key frame in the file may be shown before it, but in no earlier group
    order = np.lexsort((packets.pts, group))
    order = order[~packets.hidden[order]]
    last = int(packets.durations[order[-1]])
    return time_frames(packets.pts[order], last, stream.time_base, _rate(stream), longest)


def _in_fragments(name: str) -> bool:
    """Whether an MP4 file is written in fragments, of which its list has but the first."""
    with open(name, "rb") as file:
        place = 0
        while len(head := file.read(16)) >= 8:
            if head[4:8] == b"moof":
                return True
            size = int.from_bytes(head[8:16] if head[:4] == b"\0\0\0\1" else head[:4], "big")
            if size < 8:  # 0: up to the end
                return False
            place += size
            file.seek(place)
    return False


def _pass_over(container: InputContainer, stream: VideoStream) -> Packets:
    """List the packets by reading them all."""
    dts: list[int | None] = []
    rows: list[tuple[bool, bool, int]] = []
    pts: list[int | None] = []
    ordered = container.format.name == "avi"  # it does not say when a frame is shown
    try:
        for packet in read_packets(container, stream):
            dts.append(packet.dts)
            pts.append(packet.dts if ordered or packet.pts is None else packet.pts)
            rows.append((packet.is_keyframe, packet.is_discard, packet.duration or 0))
    except av.error.FFmpegError as error:
        raise ValueError(CUT_SHORT) from error
    counted = stream.frames if container.format.name == "avi" else 0  # by a frame or two, headers of whole files err
    if not rows or len(rows) < 0.98 * counted - 2:
        raise ValueError(CUT_SHORT)
    rewind(container, stream, dts[0])
    table = np.array(rows, np.int64)
    known = None if None in pts else np.array(pts)
    return Packets(dts, table[:, 0].astype(bool), table[:, 1].astype(bool), known, table[:, 2])


def _rate(stream: VideoStream) -> float:
    """Return the frames a second that the file says; 0 where it does not."""
    return float(stream.average_rate or stream.guessed_rate or 0)


def index_file(name: str) -> FrameIndex:
    """Find out which frames a video has; see :func:`open_container` and :func:`index_frames`."""
    with open_container(name) as container:
        return index_frames(container)
