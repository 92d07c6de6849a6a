"""Opening a video quickly, and knowing its frames without decoding one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

CUT_SHORT = "not a video, or cut short"
QUICK = {"skip_frame": "all", "analyzeduration": "1"}
"""Options by which FFmpeg looks for what a file is and decodes none of its frames, which costs more than all the rest."""
UNTIMELY = ("mpegts", "mpeg")
"""Containers, by FFmpeg's names, in which libraries that seek by time end up elsewhere."""
PEEKED = 24
"""Packets that are looked at to see whether frames are shown in another order than they are decoded in."""

Entry = tuple[int | None, bool, bool]
"""Decoding time of a packet, whether it is a key frame, whether what it holds is not shown."""


@dataclass(frozen=True, eq=False)
class FrameIndex:
    """Where decoding can begin, and which frames follow from there. A group goes from one key frame to the next.

    Args:
        starts: Packets before each group, and of all groups, (G + 1,) int64.
        shown: Frames shown that come before each group, and in all, (G + 1,) int64.
        times: Decoding time of each group's first packet, in ticks of the stream, (G,); None where the file does not say.
        avg_fps: Frames a second.
        container: FFmpeg's name of the container, such as "mpegts".
        listed: Whether the file lists its frames, so that seeking finds a group.
        timed: Whether the file says when a frame is shown. AVI does not, so where frames are shown in another order than they
            are decoded in, only decoding tells.
    """

    starts: np.ndarray
    shown: np.ndarray
    times: Sequence[int | None]
    avg_fps: float
    container: str
    listed: bool
    timed: bool

    @property
    def total_frames(self) -> int:
        """Number of frames that are shown."""
        return int(self.shown[-1])

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
    packets, avg_fps = _list(container, stream) if listed else _pass_over(container, stream)
    keys = np.array([key for _, key, _ in packets])
    keys[0] = True  # wherever a file begins, decoding has to
    starts = np.flatnonzero(keys)
    before = np.concatenate([[0], np.cumsum([not hidden for _, _, hidden in packets])])
    ends = np.append(starts, len(packets))
    return FrameIndex(
        starts=ends,
        shown=before[ends],
        times=[packets[i][0] for i in starts.tolist()],
        avg_fps=avg_fps,
        container=container.format.name,
        listed=listed,
        timed=container.format.name != "avi" or not stream.codec_context.has_b_frames,
    )


def _list(container: InputContainer, stream: VideoStream) -> tuple[list[Entry], float]:
    """Read the file's own list of packets, and its frame rate."""
    entries = [entry for entry in stream.index_entries if entry.size]
    if not entries or container.size < max(entry.pos + entry.size for entry in entries):
        raise ValueError(CUT_SHORT)
    return [(entry.timestamp, entry.is_keyframe, entry.is_discard) for entry in entries], _rate(stream, [])


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


def _pass_over(container: InputContainer, stream: VideoStream) -> tuple[list[Entry], float]:
    """List the packets by reading them all, and find the frame rate."""
    entries: list[Entry] = []
    times = []
    try:
        for packet in read_packets(container, stream):
            entries.append((packet.dts, packet.is_keyframe, packet.is_discard))
            times.append(packet.dts if packet.pts is None else packet.pts)
    except av.error.FFmpegError as error:
        raise ValueError(CUT_SHORT) from error
    counted = stream.frames if container.format.name == "avi" else 0  # by a frame or two, headers of whole files err
    if not entries or len(entries) < 0.98 * counted - 2:
        raise ValueError(CUT_SHORT)
    rewind(container, stream, entries[0][0])
    return entries, _rate(stream, times)


def _rate(stream: VideoStream, times: Sequence[int | None]) -> float:
    """Return the frames a second: what the file says, else as its times have it."""
    if rate := stream.average_rate or stream.guessed_rate:
        return float(rate)
    known = [time for time in times if time is not None]
    span = (max(known) - min(known)) * stream.time_base if known and stream.time_base else 0
    return float((len(known) - 1) / span) if span else 0.0


def index_file(name: str) -> FrameIndex:
    """Find out which frames a video has; see :func:`open_container` and :func:`index_frames`."""
    with open_container(name) as container:
        return index_frames(container)
