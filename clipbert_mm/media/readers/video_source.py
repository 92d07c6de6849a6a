"""Source, a file that FFmpeg opens under any name, without decoding, and without opening other files; and its streams."""

import os
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from clipbert_mm.media.readers.base import MAX_PIXELS, too_large
from clipbert_mm.media.readers.mp4_claims import read_claims

CUT_SHORT = "not a video, or cut short"
NO_VIDEO = "it has no video stream"
QUICK = {"skip_frame": "all", "analyzeduration": "1"}
"""Options for FFmpeg to detect the format without decoding frames, which takes most of the time of opening."""
PEEKED = 24
"""Packets that are read to find out whether the display order differs from the decoding order."""
HAS_PROC = os.path.isdir("/proc/self/fd")
IMAGE_FORMATS = ("image2", "ico")
"""FFmpeg's names of formats of still images, besides those that end in "_pipe"."""
IMAGE_BRANDS = ("avif", "heic", "heix", "mif1", "miaf")
"""Brands of MP4 files that are still images."""
COVERS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
"""Streams that are cover images, not the video."""


class Source:
    """An open file, which is read by its descriptor, whatever becomes of its name or folder.

    FFmpeg reads from the descriptor: names such as ``12:30 talk.mp4`` are not taken for protocols, names need not be UTF-8, and
    references to other files, as in playlists, are not followed.

    Args:
        name: The file.

    Raises:
        ValueError: If it is an MP4 file that claims more frames than it has bytes.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._first = True
        self.descriptor = os.open(name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            self.is_mp4 = os.pread(self.descriptor, 8, 0)[4:] == b"ftyp"
            self.fragmented = self.is_mp4 and read_claims(self.descriptor).fragmented
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """A path of the open file, valid while it is open, for libraries that only take paths."""
        return f"/proc/self/fd/{self.descriptor}" if HAS_PROC else os.path.abspath(self.name)

    def open(self) -> tuple[InputContainer, VideoStream]:
        """Open the file with FFmpeg, quickly if it is an MP4 with a full header; return the container and the video stream.

        Raises:
            ValueError: If it is not a video, has no video stream, or one with too large frames or an unknown codec.
        """
        try:
            if self.is_mp4:
                container = self.container(**QUICK)
                stream = best_stream(container)
                if _has_full_header(container, stream):
                    return container, stream
                container.close()
            container = self.container(max_pixels=str(MAX_PIXELS))
            stream = best_stream(container)
            if not stream.codec_context.width:  # FFmpeg drops a size beyond max_pixels
                with self.container(**QUICK) as undecoded:
                    check_size(best_stream(undecoded))
        except av.error.FFmpegError as error:
            raise ValueError(CUT_SHORT) from error
        check_size(stream)
        return container, stream

    def container(self, **options: str) -> InputContainer:
        """Open the file with FFmpeg, with options for formats and decoders.

        Raises:
            av.error.FFmpegError: If FFmpeg cannot open it.
        """
        # Each container needs a file position of its own; the first uses that of this descriptor.
        descriptor = self.descriptor if self._first else os.open(self.path, os.O_RDONLY)
        self._first = False
        io_options = {"fd": str(descriptor), "protocol_whitelist": "fd"}
        try:
            return av.open("fd:", options=options, container_options=io_options, metadata_errors="replace")
        finally:
            if descriptor != self.descriptor:
                os.close(descriptor)  # FFmpeg has duplicated it

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; containers of it stay open."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            self.close()


def best_stream(container: InputContainer) -> VideoStream:
    """Return the stream that is the video, by the same rule for all readers.

    Covers are excluded. Of several streams, it is one with more than one frame; of those the default one, then the one with the
    largest frames, then the first.

    Raises:
        ValueError: If there is none, or FFmpeg knows none of the codecs.
    """
    streams = [stream for stream in container.streams.video if not stream.disposition & COVERS]
    if not streams:
        raise ValueError(NO_VIDEO)
    known = [stream for stream in streams if stream.codec_context is not None]
    if not known:
        raise ValueError("FFmpeg has no decoder for its video stream")
    return max(known, key=_preference) if len(known) > 1 else known[0]


def _preference(stream: VideoStream) -> tuple[Any, ...]:
    default = bool(stream.disposition & Disposition.default)
    # If the file does not count its frames, FFmpeg has seen which stream has several.
    several = stream.frames > 1 or (not stream.frames and stream is stream.container.streams.best("video"))
    return several, default, stream.codec_context.width * stream.codec_context.height, -stream.index


def is_still(container: InputContainer) -> bool:
    """Whether the format is one of still images; a file may have several of them in sequence."""
    name, brand = container.format.name, container.metadata.get("major_brand", "").strip()
    return name.endswith("_pipe") or name in IMAGE_FORMATS or brand in IMAGE_BRANDS


def check_size(stream: VideoStream) -> None:
    """Check that frames are not too large to be decoded.

    Raises:
        ValueError: If they are.
    """
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise ValueError(too_large(width, height))


def _has_full_header(container: InputContainer, stream: VideoStream) -> bool:
    """Whether the header has all that a decoder needs.

    H.264 may not state the delay between decoding and display order; then FFmpeg has to decode frames to find out.
    """
    check_size(stream)
    decoder = stream.codec_context
    if not decoder.width or not stream.average_rate:
        return False
    if decoder.name != "h264" or decoder.has_b_frames:
        return True
    times = [packet.pts for packet, _ in zip(read_packets(container, stream), range(PEEKED), strict=False)]
    go_to_start(container, stream, None)
    return None not in times and times == sorted(times)  # type: ignore[type-var]


def read_packets(container: InputContainer, stream: VideoStream) -> Iterator[Packet]:
    """Read the packets of a stream from the current position on, without empty ones."""
    return (packet for packet in container.demux(stream) if packet.size)


def go_to_start(container: InputContainer, stream: VideoStream, first: int | None) -> None:
    """Seek to the beginning.

    Args:
        container: The open file.
        stream: Its video stream.
        first: Decoding time of the first packet, in ticks; None if not known.

    Raises:
        av.error.FFmpegError: If FFmpeg cannot seek in it.
    """
    start = min(time for time in (first, stream.start_time, 0) if time is not None)
    container.seek(start, stream=stream)
