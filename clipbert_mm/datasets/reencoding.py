"""Smaller videos that open faster: scaled down, H.264, key frames close to one another, without sound."""

import errno
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
from av.container import InputContainer, OutputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from clipbert_mm.datasets.transforms.images import name_trouble
from clipbert_mm.datasets.transforms.storage import as_file
from clipbert_mm.errors import BrokenMediaError, OptionError, printable
from clipbert_mm.structures import made_whole

TURNS = {90: ["transpose=cclock"], 180: ["hflip", "vflip"], 270: ["transpose=clock"]}
"""Filters that turn a picture by so many degrees against the clock."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How videos are written.

    Args:
        height: Pixels of the shorter side, the height of a landscape video, at most; smaller ones keep their size.
        fps: Frames a second; None keeps each frame at its time.
        keyframes: Frames from one key frame to the next, at most.
        crf: Quality of x264: 0 loses nothing, 23 is its default, 51 is the worst.
    """

    height: int = 240
    fps: float | None = None
    keyframes: int = 30
    crf: int = 23

    def __post_init__(self) -> None:
        if self.height < 2 or self.keyframes < 1 or not 0 <= self.crf <= 51 or (self.fps is not None and self.fps <= 0):
            raise OptionError(f"Encoding expects height >= 2, fps > 0, keyframes >= 1 and 0 <= crf <= 51, got {self}.")

    def scale(self, width: int, height: int) -> tuple[int, int]:
        """Return the size of a video of this size: even, as H.264 has it, and never larger.

        >>> Encoding(height=240).scale(1280, 720), Encoding(height=240).scale(721, 1280), Encoding().scale(161, 99)
        ((426, 240), (240, 426), (160, 98))
        """
        share = min(1.0, self.height / min(width, height))
        even = (max(2, min(2 * round(side * share / 2), side - side % 2)) for side in (width, height))
        return next(even), next(even)


def reencode(job: tuple[str, str, Encoding]) -> str:
    """Write a video anew; it appears under its name when it is whole. The picture is upright, and the duration kept.

    Args:
        job: The video, wherever it lies; the new file; how it is written.

    Returns:
        What is wrong with the video; empty if it was written.
    """
    source, target, encoding = job
    try:
        with (
            made_whole(target) as part,
            as_file(source) as name,
            _open(source, name) as video,
            av.open(str(part), "w", format="mp4") as new,
        ):
            _transcode(source, video, new, encoding)
    except BrokenMediaError as error:
        return error.reason
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return f"its new name is too long: {printable(target)}"
    return ""


def _open(path: str, name: str) -> InputContainer:
    try:
        container = av.open(name)
    except av.error.FFmpegError as error:
        raise BrokenMediaError(path, f"not a video, or {name_trouble(error)}") from error
    if not container.streams.video:
        container.close()
        raise BrokenMediaError(path, "it has no video stream")
    return container


def _read(path: str, container: InputContainer) -> Iterator[VideoFrame]:
    """Decode all frames; their times count from 0, each is later than the one before.

    Raises:
        BrokenMediaError: If one cannot be decoded, or there are fewer than the file says.
    """
    stream = container.streams.video[0]
    # An AVI file does not say when a frame is to be shown, only the order to decode them in.
    without_times = container.format.name == "avi"
    count, last, start = 0, -1, None
    try:
        for frame in container.decode(stream):
            time = frame.dts if without_times else frame.pts
            start = (time or 0) if start is None else start
            frame.pts = last = last + _ticks(stream) * (count > 0) if time is None else max(time - start, last + 1)
            count += 1
            yield frame
    except av.error.FFmpegError as error:
        raise BrokenMediaError(path, f"frame {count} cannot be decoded: {name_trouble(error)}") from error
    if count == 0 or count < 0.98 * stream.frames - 2:  # frames outside of an edit list are not shown
        found = f"{count} of {stream.frames} frames" if stream.frames else f"{count} frames"
        raise BrokenMediaError(path, f"cut short, {found} can be decoded")


def _ticks(stream: VideoStream) -> int:
    """Return how long a frame is usually shown, in the stream's ticks."""
    return max(1, round(1 / (stream.average_rate or 25) / stream.time_base)) if stream.time_base else 1


def _at_rate(frames: Iterator[VideoFrame], stream: VideoStream, rate: Fraction) -> Iterator[VideoFrame]:
    """Choose the frame that is shown at each multiple of 1 / rate seconds, from 0 to the end."""
    shown: VideoFrame | None = None
    count, end = 0, Fraction(0)
    for frame in frames:
        start = (frame.pts or 0) * (stream.time_base or Fraction(1))  # seconds
        end = start + _ticks(stream) * (stream.time_base or Fraction(1))
        while shown is not None and count / rate < start:
            shown.pts, shown.time_base = count, 1 / rate
            yield shown
            count += 1
        shown = frame
    while shown is not None and count / rate < end:
        shown.pts, shown.time_base = count, 1 / rate
        yield shown
        count += 1


def _transcode(path: str, video: InputContainer, new: OutputContainer, encoding: Encoding) -> None:
    source = video.streams.video[0]
    frames, tick = _read(path, video), source.time_base or Fraction(1)
    if encoding.fps:
        rate = Fraction(encoding.fps).limit_denominator(1001)
        frames, tick = _at_rate(frames, source, rate), 1 / rate
    target: VideoStream | None = None
    graph = av.filter.Graph()
    for frame in frames:
        if target is None:
            target = _add_stream(new, source, frame, encoding)
            target.codec_context.time_base = tick
            _link(graph, source, frame, target)
        graph.vpush(frame)
        _encode(graph, target, new)
    if target is not None:
        graph.vpush(None)
        _encode(graph, target, new)
        new.mux(target.encode())


def _add_stream(new: OutputContainer, source: VideoStream, frame: VideoFrame, encoding: Encoding) -> VideoStream:
    turned = frame.rotation % 180 == 90
    rate = Fraction(encoding.fps).limit_denominator(1001) if encoding.fps else source.average_rate or Fraction(25)
    options = {"crf": str(encoding.crf), "preset": "veryfast", "threads": "1"}
    stream = new.add_stream("libx264", rate=rate, options=options)
    size = (frame.height, frame.width) if turned else (frame.width, frame.height)
    stream.width, stream.height = encoding.scale(*size)
    stream.pix_fmt = "yuv420p"
    stream.gop_size = encoding.keyframes
    stream.codec_context.colorspace = av.video.reformatter.Colorspace.ITU601
    stream.codec_context.color_range = av.video.reformatter.ColorRange.MPEG
    if ratio := source.sample_aspect_ratio:  # pixels that are not square stay so
        stream.sample_aspect_ratio = 1 / ratio if turned else ratio
    return stream


def _link(graph: av.filter.Graph, source: VideoStream, frame: VideoFrame, target: VideoStream) -> None:
    """Turn, scale, and write colours the one way that small videos have them (BT.601), whatever the source's."""
    scale = f"scale={target.width}:{target.height}:flags=area:out_color_matrix=bt601:out_range=tv"
    nodes = [graph.add_buffer(template=source, time_base=target.codec_context.time_base)]
    nodes += [
        graph.add(*step.split("=", 1)) for step in [*TURNS.get(frame.rotation % 360, []), scale, "format=yuv420p"]
    ]
    graph.link_nodes(*nodes, graph.add("buffersink")).configure()


def _encode(graph: av.filter.Graph, target: VideoStream, new: OutputContainer) -> None:
    """Encode what the filters have ready."""
    while True:
        try:
            frame = graph.vpull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        frame.pict_type = av.video.frame.PictureType.NONE  # the encoder chooses its own key frames
        new.mux(target.encode(frame))
