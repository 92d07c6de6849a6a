"""Opening a file with FFmpeg: under any name, without decoding, and with no other file opened on its behalf."""

import os
from collections.abc import Iterator
from typing import Any

import av
from av.container import InputContainer
from av.packet import Packet
from av.stream import Disposition
from av.video.stream import VideoStream

from clipbert_mm.media.readers.base import MAX_PIXELS, too_large
from clipbert_mm.media.readers.boxes import read_claims

CUT_SHORT = "not a video, or cut short"
NO_VIDEO = "it has no video stream"
QUICK = {"skip_frame": "all", "analyzeduration": "1"}
"""Options by which FFmpeg looks for what a file is and decodes none of its frames, which costs more than all the rest."""
PEEKED = 24
"""Packets that are looked at to see whether frames are shown in another order than they are decoded in."""
HAS_PROC = os.path.isdir("/proc/self/fd")
IMAGE_FORMATS = ("image2", "ico")
"""FFmpeg's names of formats of still images, beside those that end in "_pipe"."""
IMAGE_BRANDS = ("avif", "heic", "heix", "mif1", "miaf")
"""Brands by which an MP4 file says that it is a still image."""
COVERS = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
"""Streams that are pictures of a file, and not its video."""


class Source:
    """A file that stays open until it is closed, so that neither its name nor its folder matters any more.

    FFmpeg reads from the open file: names such as ``12:30 talk.mp4`` are no protocols to it, names need not be UTF-8, and what
    a file says of other files, as playlists do, is not followed.

    Args:
        name: The file.

    Raises:
        ValueError: If it is an MP4 file that claims more frames than its bytes can hold.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._first = True
        self.number = os.open(name, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        try:
            self.is_mp4 = os.pread(self.number, 8, 0)[4:] == b"ftyp"
            self.fragmented = self.is_mp4 and read_claims(self.number).fragmented
        except BaseException:
            self.close()
            raise

    @property
    def path(self) -> str:
        """A path of the open file, good while it is open, for libraries that take paths alone."""
        return f"/proc/self/fd/{self.number}" if HAS_PROC else os.path.abspath(self.name)

    def open(self) -> tuple[InputContainer, VideoStream]:
        """Open it with FFmpeg, quickly if it is an MP4 that says enough of itself; return the video's stream too.

        Raises:
            ValueError: If it is no video, has no video stream, or one with too large frames or of an unknown codec.
        """
        try:
            if self.is_mp4:
                container = self.container(**QUICK)
                stream = best_stream(container)
                if _says_enough(container, stream):
                    return container, stream
                container.close()
            container = self.container(max_pixels=str(MAX_PIXELS))
            stream = best_stream(container)
            if not stream.codec_context.width:  # FFmpeg forgets a size that it may not decode
                with self.container(**QUICK) as undecoded:
                    check_size(best_stream(undecoded))
        except av.error.FFmpegError as error:
            raise ValueError(CUT_SHORT) from error
        check_size(stream)
        return container, stream

    def container(self, **options: str) -> InputContainer:
        """Open it with FFmpeg, as it is, with some options of formats and decoders.

        Raises:
            av.error.FFmpegError: If FFmpeg cannot open it.
        """
        # Each container stands at a place of its own in the file; the first may have the one of this file.
        number = self.number if self._first else os.open(self.path, os.O_RDONLY)
        self._first = False
        reads = {"fd": str(number), "protocol_whitelist": "fd"}
        try:
            return av.open("fd:", options=options, container_options=reads, metadata_errors="replace")
        finally:
            if number != self.number:
                os.close(number)  # FFmpeg has one of its own

    def __enter__(self) -> "Source":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a container that was opened stays open."""
        if self.number >= 0:
            os.close(self.number)
            self.number = -1

    def __del__(self) -> None:
        if hasattr(self, "number"):
            self.close()


def best_stream(container: InputContainer) -> VideoStream:
    """Return the stream that is the video, by one rule for whatever decodes it.

    It is no cover picture and, where there is a choice, not of a single frame; then it is the one that players begin with, the
    one of the largest picture, or the first.

    Raises:
        ValueError: If there is none, or FFmpeg knows none of their codecs.
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
    # Where the file does not count its frames, FFmpeg has seen which stream has several.
    several = stream.frames > 1 or (not stream.frames and stream is stream.container.streams.best("video"))
    return several, default, stream.codec_context.width * stream.codec_context.height, -stream.index


def is_still(container: InputContainer) -> bool:
    """Whether the format is one of still images, of which a file may still hold several, one behind the other."""
    name, brand = container.format.name, container.metadata.get("major_brand", "").strip()
    return name.endswith("_pipe") or name in IMAGE_FORMATS or brand in IMAGE_BRANDS


def check_size(stream: VideoStream) -> None:
    """See that a frame is not too large to be decoded.

    Raises:
        ValueError: If it is.
    """
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > MAX_PIXELS:
        raise ValueError(too_large(width, height))


def _says_enough(container: InputContainer, stream: VideoStream) -> bool:
    """Whether a decoder needs no more than what opening has found.

    H.264 need not say how far frames are shown from where they are decoded; FFmpeg then has to try.
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
    """Read the stream's packets from where the container stands, without empty ones."""
    return (packet for packet in container.demux(stream) if packet.size)


def go_to_start(container: InputContainer, stream: VideoStream, first: int | None) -> None:
    """Go back to the beginning.

    Args:
        container: The open file.
        stream: Its video.
        first: Decoding time of the first packet, in ticks; None if it is not known.

    Raises:
        av.error.FFmpegError: If FFmpeg cannot seek in it.
    """
    start = min(time for time in (first, stream.start_time, 0) if time is not None)
    container.seek(start, stream=stream)
