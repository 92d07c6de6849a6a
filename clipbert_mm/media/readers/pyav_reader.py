"""The default reader: FFmpeg by PyAV, which decodes only what the wanted frames need."""

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
"""Codecs whose files say of each frame whether any other refers to it. HEVC says so only within a temporal layer."""

FAR = 1 << 60
"""A time behind the end of every file, in ticks."""


class PyAVReader(VideoReader):
    """Frames of a video, bit for bit those of decoding all of it.

    From the key frame before it, a frame needs those that others refer to, and nothing behind it; FFmpeg is told to skip the
    rest. Frames that no key frame leads to in this way are found by decoding from the beginning. Colors are converted for
    wanted frames only.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If the file is no video, has no video stream, is cut short or claims too much.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        self.source = Source(name)
        self.num_threads = num_threads
        self.reformatter = VideoReformatter()
        self.matrix: Matrix | None = None  # of the frame that was converted last
        self.rotation: float | None = None  # of the same frame
        self._held: dict[int, list[Packet]] = {}  # the last two groups that were read
        self.open()
        self.index = index_frames(self.source, self.container, self.stream)
        self.index.tell(self)
        if not self.index.untouched:
            self._following = len(self.index.times)

    def open(self) -> None:
        """Open the file, before its first group."""
        self.container, self.stream = self.source.open()
        self.decoder = self.stream.codec_context
        self.decoder.thread_count = self.num_threads
        self.decoder.options = {"max_pixels": str(MAX_PIXELS)}
        self.packets: Iterator[Packet] = read_packets(self.container, self.stream)
        self._following = 0  # the group that the file stands before

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames group by group; see :meth:`VideoReader.read`."""
        missing = [i for i in frame_inds if i >= self.total_frames]
        if missing:
            raise missing_frame(self.total_frames, missing)
        wanted = np.asarray(frame_inds)
        groups = np.searchsorted(self.index.shown, wanted, side="right") - 1
        left = set(frame_inds)
        for group in np.unique(groups):
            for i, picture in self.read_group(int(group), wanted[groups == group].tolist()):
                left.discard(i)
                yield i, picture
        if left:
            yield from self.read_from_start(left)

    def read_group(self, group: int, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames of one group, as far as its key frame, or the one before, leads to them."""
        if not self.index.timed:
            return
        packets = self.fetch(group)
        hidden = self.index.hidden[self.index.starts[group] : self.index.starts[group + 1]]
        shows = [packet for packet, nothing in zip(packets, hidden.tolist(), strict=True) if not nothing]
        shown = sorted(packet.pts for packet in shows if packet.pts is not None)
        first = int(self.index.shown[group])
        if len(set(shown)) != self.index.shown[group + 1] - first:
            return
        places = {shown[i - first]: i for i in frame_inds}  # by the time at which a frame is shown
        key = packets[0].pts
        last = max(i for i, packet in enumerate(packets) if packet.pts in places and not hidden[i])
        leading = self.fetch(group - 1) if group and key is not None and min(places) < key else []
        run = [*leading, *packets[: last + 1]]
        whole = group - bool(leading) == 0  # some files call key frames what needs the frames before it, too
        for frame in self.decode(run, set(places)):
            whole = whole or (frame.pts == run[0].pts and frame.pict_type == PictureType.I)
            if frame.pts in places and whole and not frame.is_corrupt:
                yield places[frame.pts], self.convert(frame)

    def fetch(self, group: int) -> list[Packet]:
        """Read the packets of a group: seek to it where the file lists its frames, else pass over what comes before.

        Raises:
            ValueError: If the file ends too early.
        """
        if group in self._held:
            return self._held[group]
        if group < self._following or (group > self._following and self.index.listed):
            self.seek(group)
        for following in range(self._following, group + 1):
            count = int(self.index.starts[following + 1] - self.index.starts[following])
            packets = list(islice(self.packets, count))
            if len(packets) < count:
                raise ValueError(CUT_SHORT)
            self._held = {number: held for number, held in self._held.items() if number == following - 1}
            self._held[following] = packets
        self._following = group + 1
        return self._held[group]

    def seek(self, group: int) -> None:
        """Go to a group, or to one before it; to the beginning where the file does not list its frames."""
        times = self.index.times
        if self.index.listed:
            # FFmpeg goes to the last key frame that is *shown* by then, so ask for the end of the group.
            end = times[group + 1] if group + 1 < len(times) else None
            self.container.seek((end or FAR) - 1, stream=self.stream)
            self.packets = read_packets(self.container, self.stream)
            first = next(self.packets, None)
            if first is not None and first.dts in times[: group + 1]:
                self.packets = chain([first], self.packets)
                self._following = times.index(first.dts)
                return
        self.go_to_start()

    def go_to_start(self) -> None:
        """Go before the first packet; where seeking leads elsewhere, the file is opened anew."""
        self._following = 0
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
        """Decode packets that begin with a key frame; those shown at other times only as far as others refer to them."""
        skips = self.decoder.name in SKIPPING
        self.decoder.flush_buffers()
        skipping = None
        for packet in packets:
            unwanted = skips and packet.pts not in times
            if unwanted is not skipping:
                self.decoder.skip_frame = "NONREF" if unwanted else "DEFAULT"
                skipping = unwanted
            yield from self.decoder.decode(packet)
        yield from self.decoder.decode(None)

    def read_from_start(self, frame_inds: set[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode all frames up to the last wanted one, counting those that are shown."""
        left = set(frame_inds)
        for place, frame in enumerate(self.decode_all()):
            if place in left:
                left.remove(place)
                yield place, self.convert(frame)
            if not left:
                return
        raise missing_frame(self.total_frames, sorted(left))

    def decode_all(self) -> Iterator[VideoFrame]:
        """Decode all frames from the beginning on, in the order in which they are shown, with their own colors and size."""
        self.go_to_start()
        packets, self._following, self._held = self.packets, len(self.index.times), {}
        self.decoder.flush_buffers()
        self.decoder.skip_frame = "DEFAULT"
        for packet in chain(packets, [None]):  # at the end, what the decoder still holds is asked for
            yield from self.decoder.decode(packet)

    def convert(self, frame: VideoFrame) -> np.ndarray:
        """Return a frame as (H, W, 3) uint8 RGB, upright."""
        plane = self.reformatter.reformat(frame, format="rgb24", threads=1).planes[0]
        strides = (plane.line_size, 3, 1)
        pixels = np.ndarray((frame.height, frame.width, 3), np.uint8, buffer=memoryview(plane), strides=strides)
        if (
            frame.rotation != self.rotation
        ):  # PyAV frees a frame late once its matrix was asked for, so ask for one of them
            self.rotation, self.matrix = frame.rotation, display_matrix(frame)
        return turn_upright(pixels, upright_filters(self.matrix))

    def close(self) -> None:
        """Close the file; PyAV by itself would do so only when Python looks for garbage."""
        self._held = {}
        if hasattr(self, "container"):
            self.container.close()
        self.source.close()

    def __del__(self) -> None:
        if hasattr(self, "source"):
            self.close()
