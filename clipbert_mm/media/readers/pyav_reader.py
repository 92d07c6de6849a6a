"""The default reader: FFmpeg by PyAV, which decodes only the frames that the requested ones depend on."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import chain, islice

import av
import numpy as np
from av.packet import Packet
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter

from clipbert_mm.media.readers.base import MAX_PIXELS, VideoReader, missing_frame
from clipbert_mm.media.readers.frame_index import index_frames
from clipbert_mm.media.readers.orientation import Matrix, display_matrix, turn_upright, upright_filters
from clipbert_mm.media.readers.video_source import CUT_SHORT, Source, go_to_start, read_packets

SKIPPING = ("h264", "mpeg4", "mpeg2video", "mpeg1video")
"""Codecs that mark frames to which no other refers. HEVC does so only within a temporal layer."""

FAR = 1 << 60
"""A time after the end of any file, in ticks."""


class PyAVReader(VideoReader):
    """Read a video by PyAV; frames are bit for bit those of decoding the whole video.

    A frame depends on the reference frames from the last key frame on, and on none after it; FFmpeg is told to skip the others.
    Frames that cannot be decoded from a key frame are found by decoding from the beginning. Colors are converted for requested
    frames only.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If the file is not a video, has no video stream, is cut short or claims more frames than it can have.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        self.source = Source(name)
        self.num_threads = num_threads
        self.reformatter = VideoReformatter()
        self.matrix: Matrix | None = None  # of the last converted frame
        self.rotation: float | None = None  # of the same frame
        self._cached: dict[int, list[Packet]] = {}  # packets of the last two groups that were read
        self.open()
        self.index = index_frames(self.source, self.container, self.stream)
        self.index.describe_to(self)
        if not self.index.untouched:
            self._next_group = len(self.index.times)

    def open(self) -> None:
        """Open the file at its first group."""
        self.container, self.stream = self.source.open()
        self.decoder = self.stream.codec_context
        self.decoder.thread_count = self.num_threads
        self.decoder.options = {"max_pixels": str(MAX_PIXELS)}
        self.packets: Iterator[Packet] = read_packets(self.container, self.stream)
        self._next_group = 0  # the group that is read next

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames group by group; see :meth:`VideoReader.read`."""
        missing = [i for i in frame_inds if i >= self.total_frames]
        if missing:
            raise missing_frame(self.total_frames, missing)
        requested = np.asarray(frame_inds)
        groups = np.searchsorted(self.index.shown, requested, side="right") - 1
        remaining = set(frame_inds)
        for group in np.unique(groups):
            for i, frame in self.read_group(int(group), requested[groups == group].tolist()):
                remaining.discard(i)
                yield i, frame
        if remaining:
            yield from self.read_from_start(remaining)

    def read_group(self, group: int, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode those frames of a group that can be decoded from its key frame or the one before."""
        if not self.index.timed:
            return
        packets = self.fetch(group)
        hidden = self.index.hidden[self.index.starts[group] : self.index.starts[group + 1]]
        visible = [packet for packet, is_hidden in zip(packets, hidden.tolist(), strict=True) if not is_hidden]
        shown = sorted(packet.pts for packet in visible if packet.pts is not None)
        first = int(self.index.shown[group])
        if len(set(shown)) != self.index.shown[group + 1] - first:
            return
        numbers = {shown[i - first]: i for i in frame_inds}  # frame number by presentation time
        key = packets[0].pts
        last = max(i for i, packet in enumerate(packets) if packet.pts in numbers and not hidden[i])
        leading = self.fetch(group - 1) if group and key is not None and min(numbers) < key else []
        run = [*leading, *packets[: last + 1]]
        clean = group - bool(leading) == 0  # some files mark frames as key frames that depend on earlier ones
        for frame in self.decode(run, set(numbers)):
            clean = clean or (frame.pts == run[0].pts and frame.pict_type == PictureType.I)
            if frame.pts in numbers and clean and not frame.is_corrupt:
                yield numbers[frame.pts], self.convert(frame)

    def fetch(self, group: int) -> list[Packet]:
        """Read the packets of a group: seek to it if the file has an index, otherwise read all packets before it.

        Raises:
            ValueError: If the file ends too early.
        """
        if group in self._cached:
            return self._cached[group]
        if group < self._next_group or (group > self._next_group and self.index.listed):
            self.seek(group)
        for current in range(self._next_group, group + 1):
            count = int(self.index.starts[current + 1] - self.index.starts[current])
            packets = list(islice(self.packets, count))
            if len(packets) < count:
                raise ValueError(CUT_SHORT)
            self._cached = {number: cached for number, cached in self._cached.items() if number == current - 1}
            self._cached[current] = packets
        self._next_group = group + 1
        return self._cached[group]

    def seek(self, group: int) -> None:
        """Seek to a group, or to one before it; to the beginning if the file has no index."""
        times = self.index.times
        if self.index.listed:
            # FFmpeg seeks to the last key frame that is *shown* by a time, so pass the end of the group.
            end = times[group + 1] if group + 1 < len(times) else None
            self.container.seek((end or FAR) - 1, stream=self.stream)
            self.packets = read_packets(self.container, self.stream)
            first = next(self.packets, None)
            if first is not None and first.dts in times[: group + 1]:
                self.packets = chain([first], self.packets)
                self._next_group = times.index(first.dts)
                return
        self.go_to_start()

    def go_to_start(self) -> None:
        """Seek to the first packet; if seeking leads elsewhere, reopen the file."""
        self._next_group = 0
        with suppress(av.error.FFmpegError):
            go_to_start(self.container, self.stream, self.index.times[0])
            self.packets = read_packets(self.container, self.stream)
            first = next(self.packets, None)
            if first is not None and (first.dts, first.pos) == self.index.first:
                self.packets = chain([first], self.packets)
                return
        self.container.close()
        self.open()

    def decode(self, packets: Sequence[Packet], times: set[int]) -> Iterator[VideoFrame]:
        """Decode packets from a key frame on; frames at other times than ``times`` are skipped unless others refer to them."""
        skips = self.decoder.name in SKIPPING
        self.decoder.flush_buffers()
        skipping = None
        for packet in packets:
            skip = skips and packet.pts not in times
            if skip is not skipping:
                self.decoder.skip_frame = "NONREF" if skip else "DEFAULT"
                skipping = skip
            yield from self.decoder.decode(packet)
        yield from self.decoder.decode(None)

    def read_from_start(self, frame_inds: set[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode all frames up to the last requested one, and count them."""
        remaining = set(frame_inds)
        for i, frame in enumerate(self.decode_all()):
            if i in remaining:
                remaining.remove(i)
                yield i, self.convert(frame)
            if not remaining:
                return
        raise missing_frame(self.total_frames, sorted(remaining))

    def decode_all(self) -> Iterator[VideoFrame]:
        """Decode all frames from the beginning, in display order, without conversion of colors and size."""
        self.go_to_start()
        packets, self._next_group, self._cached = self.packets, len(self.index.times), {}
        self.decoder.flush_buffers()
        self.decoder.skip_frame = "DEFAULT"
        for packet in chain(packets, [None]):  # None flushes the decoder
            yield from self.decoder.decode(packet)

    def convert(self, frame: VideoFrame) -> np.ndarray:
        """Return a frame as (H, W, 3) uint8 RGB, upright."""
        plane = self.reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        strides = (plane.line_size, 3, 1)
        pixels = np.ndarray((frame.height, frame.width, 3), np.uint8, buffer=memoryview(plane), strides=strides)
        # Once its matrix is read, PyAV frees a frame late; so it is read only when the rotation changes.
        if frame.rotation != self.rotation:
            self.rotation, self.matrix = frame.rotation, display_matrix(frame)
        return turn_upright(pixels, upright_filters(self.matrix))

    def close(self) -> None:
        """Close the file; PyAV itself would close it only at garbage collection."""
        self._cached = {}
        if hasattr(self, "container"):
            self.container.close()
        self.source.close()

    def __del__(self) -> None:
        if hasattr(self, "source"):
            self.close()
