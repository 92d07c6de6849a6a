"""Encoding frames as H.264 video, and as an animated GIF for programs that show no video."""

import io
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from os import PathLike

import av
import numpy as np
from av.container import OutputContainer
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream

from clipbert_mm.fileio import atomic_path

MAX_TICKS = 100_000
"""Time units per second that are written, and denominator of a frame rate, at most."""


def add_h264_stream(
    container: OutputContainer,
    rate: float | Fraction,
    *,
    crf: int,
    keyframes: int,
    options: Mapping[str, str] | None = None,
) -> VideoStream:
    """Add an H.264 stream in the colors of BT.601, the usual standard of small videos.

    Args:
        container: The new file.
        rate: Frames per second.
        crf: Quality of x264: 0 is lossless, 23 its default, 51 the worst.
        keyframes: Frames from one key frame to the next, at most.
        options: Further options of x264.
    """
    settings = {"crf": str(crf), "preset": "veryfast", "threads": "1", **(options or {})}
    stream = container.add_stream("libx264", rate=Fraction(rate).limit_denominator(MAX_TICKS), options=settings)
    stream.pix_fmt = "yuv420p"
    stream.gop_size = keyframes
    stream.codec_context.colorspace, stream.codec_context.color_range = Colorspace.ITU601, ColorRange.MPEG
    return stream


def write_video(path: str | PathLike, frames: Iterable[np.ndarray], fps: float) -> None:
    """Write an MP4 file that players and browsers show; it gets its name only when it is complete.

    Args:
        path: The file.
        frames: uint8 RGB frames, (H, W, 3) each, of one size with even sides.
        fps: Frames per second.
    """
    with (
        atomic_path(path) as part,
        av.open(str(part), "w", format="mp4", options={"movflags": "faststart"}) as container,
    ):
        stream = add_h264_stream(container, fps, crf=23, keyframes=30)
        for i, frame in enumerate(frames):
            if not i:
                stream.height, stream.width = frame.shape[:2]
            colors = dict(dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)
            converted = VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="yuv420p", **colors)
            container.mux(stream.encode(converted))
        container.mux(stream.encode())


def encode_gif(frames: Sequence[np.ndarray], fps: float) -> bytes:
    """Encode uint8 RGB frames, (H, W, 3) each, as an animated GIF that repeats."""
    from PIL import Image

    first, *others = (Image.fromarray(frame) for frame in frames)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=others, duration=round(1000 / fps), loop=0)
    return file.getvalue()
