"""Packets of a video stream: which ones show a frame, by the index of the file, by reading all of them, or by decoding."""

import operator
import os
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipbert_mm.media.readers.packet_content import TINY, is_clean_start, shows_no_frame
from clipbert_mm.media.readers.video_source import CUT_SHORT, Source, read_packets

MIN_BYTES = 8
"""Bytes of a file per frame in its index, at least; an index with more frames is a false claim that only costs memory."""
HEAD = 4096
"""Bytes of a packet that are read to find out with which picture it begins."""


@dataclass(frozen=True, eq=False)
class Packets:
    """The packets of a stream in decoding order. A group goes from one key frame to the next.

    Args:
        dts: Decoding times in ticks; None if not in the file.
        key: Whether each is a key frame, (N,) bool; the first counts as one, since decoding has to begin there.
        hidden: Whether each shows no frame, (N,) bool.
        pts: Presentation times in ticks, (N,) int64; None if not known.
        durations: Durations in ticks, (N,) int64; 0 if not known.
        pos: Byte position of the first packet in the file; None if not known.
        doubtful: Groups for which only decoding tells which packets show a frame.
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


def list_packets(source: Source, container: InputContainer, stream: VideoStream) -> Packets | None:
    """Read the packets from the index of an MP4 file; None if it has no index, or one that seeking cannot rely on.

    Raises:
        ValueError: If the file is shorter than its index says, or the index has more frames than the file can have.
    """
    codec = stream.codec_context.name
    if "mp4" not in container.format.name or codec == "vp8":
        return None
    if len(stream.index_entries) * MIN_BYTES > container.size:
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
    head = os.pread(source.descriptor, min(entries[0].size, HEAD), entries[0].pos)
    if (
        (codec == "mpeg4" and any(entry.size < TINY for entry in entries))
        or not key[0]
        or not is_clean_start(codec, stream.codec_context.extradata, head)
    ):
        return None
    if any(map(operator.ge, dts, dts[1:])):  # an edit list of several parts
        return None
    return Packets([*dts], key, hidden, None, np.zeros(len(dts), np.int64), entries[0].pos)


def read_all_packets(container: InputContainer, stream: VideoStream) -> Packets:
    """List the packets by reading all of them.

    Raises:
        ValueError: If the file is cut short.
    """
    name, codec, extradata = container.format.name, stream.codec_context.name, stream.codec_context.extradata
    rows: list[tuple[int | None, int | None, bool, bool, int | None, int]] = []
    clean, pos, may_hide = True, None, codec in ("vp8", "vp9")
    try:
        for packet in read_packets(container, stream):
            if not rows:
                pos = packet.pos
                clean = packet.is_keyframe and is_clean_start(codec, extradata, bytes(memoryview(packet)[:HEAD]))
            hidden = packet.is_discard or (may_hide and shows_no_frame(codec, memoryview(packet)))
            rows.append((packet.dts, packet.pts, packet.is_keyframe, hidden, packet.duration, packet.size))
    except av.error.FFmpegError as error:
        raise ValueError(CUT_SHORT) from error
    dts = [row[0] for row in rows]
    # In an AVI file repeated frames count but have no packet, and headers of intact files are wrong by a frame or two.
    counted = stream.frames if name == "avi" else 0
    if not rows or (dts[-1] or 0) * (1 + 1 / len(rows)) < 0.98 * counted - 3:
        raise ValueError(CUT_SHORT)
    # An AVI file has no presentation times.
    pts = dts if name == "avi" else [row[0] if row[1] is None else row[1] for row in rows]
    table = np.array([(key, hidden, duration or 0, size) for _, _, key, hidden, duration, size in rows], np.int64)
    key = table[:, 0].astype(bool)
    key[0] = True
    packets = Packets(dts, key, table[:, 1].astype(bool), None if None in pts else np.array(pts), table[:, 2], pos)
    doubtful = set() if clean else {0}
    if packets.pts is not None and (packets.pts[packets.group == 0] < packets.pts[0]).any():
        doubtful.add(0)  # these frames may depend on some before the first key frame
    if codec == "mpeg4":
        doubtful.update(packets.group[table[:, 3] < TINY].tolist())
    return replace(packets, doubtful=frozenset(doubtful))


def find_hidden_by_decoding(source: Source, packets: Packets, name: str) -> Packets:
    """Find out by decoding which packets show a frame, from the first packet up to the last doubtful group.

    If a group lacks a frame, the next one may begin with frames that depend on it, so that group is decoded too.
    """
    last, groups = max(packets.doubtful), packets.group
    while True:
        count = int((groups <= last).sum())
        hidden = packets.hidden.copy()
        hidden[:count] |= _hidden_among(source, packets, count, name)
        missing = hidden & ~packets.hidden
        if count == len(groups) or not missing[groups == last].any():
            return replace(packets, hidden=hidden, doubtful=packets.doubtful if missing.any() else frozenset())
        last = 2 * last + 1


def _hidden_among(source: Source, packets: Packets, count: int, name: str) -> np.ndarray:
    """Decode the first ``count`` packets; return which of them show no frame, (count,) bool."""
    container, stream = source.open()
    with container:
        frames = _decode_all(container, stream, count)
        shown = Counter(frame.dts if name == "avi" else frame.pts for frame in frames)
    hidden = np.ones(count, bool)
    candidates = np.flatnonzero(~packets.hidden[:count])
    if packets.pts is not None:
        for i, time in zip(candidates.tolist(), packets.pts[candidates].tolist(), strict=True):
            if shown[time]:
                shown[time] -= 1
                hidden[i] = False
    # Frames whose time belongs to no packet are those of the last packets, since the first ones fail to decode.
    unmatched = sum(shown.values())
    hidden[candidates[hidden[candidates]][::-1][:unmatched]] = False
    return hidden


def _decode_all(container: InputContainer, stream: VideoStream, count: int) -> Iterator[VideoFrame]:
    """Decode only the first ``count`` packets; packets that cannot be decoded are skipped."""
    decoder = stream.codec_context
    for packet, _ in zip(read_packets(container, stream), range(count), strict=False):
        with suppress(av.error.FFmpegError):
            yield from decoder.decode(packet)
    with suppress(av.error.FFmpegError):
        yield from decoder.decode(None)
