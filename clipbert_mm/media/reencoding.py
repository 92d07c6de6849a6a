"""Re-encoding videos for faster training: scaled down, H.264, frequent key frames, without sound."""

import errno
import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.codec.context import Flags
from av.container import OutputContainer
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation
from av.video.stream import VideoStream

from clipbert_mm.errors import BrokenMediaError, OptionError, printable
from clipbert_mm.fileio import atomic_path
from clipbert_mm.media.encoding import MAX_TICKS, add_h264_stream
from clipbert_mm.media.images import describe_decode_error
from clipbert_mm.media.readers.orientation import (
    display_matrix,
    swaps_sides,
    turn_upright,
    upright_filters,
)
from clipbert_mm.media.readers.pyav_reader import PyAVReader
from clipbert_mm.media.storage import as_file

BLACK = (16, 128, 128)
"""Black as Y, U and V."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """Settings of re-encoding.

    Args:
        height: Largest shorter side in pixels, which is the height of a landscape video; smaller videos keep their size.
        fps: Frames per second; None keeps each frame and its time.
        keyframes: Frames from one key frame to the next, at most.
        crf: Quality of x264: 0 is lossless, 23 its default, 51 the worst.
    """

    height: int = 240
    fps: float | None = None
    keyframes: int = 30
    crf: int = 23

    def __post_init__(self) -> None:
        if self.height < 2 or self.keyframes < 1 or not 0 <= self.crf <= 51 or (self.fps is not None and self.fps <= 0):
            raise OptionError(f"Encoding expects height >= 2, fps > 0, keyframes >= 1 and 0 <= crf <= 51, got {self}.")

    def scale(self, width: int, height: int) -> tuple[int, int]:
        """Return the new width and height of a video: even, as H.264 needs, and never larger.

        >>> Encoding(height=240).scale(1280, 720), Encoding(height=240).scale(721, 1280), Encoding().scale(161, 99)
        ((426, 240), (240, 426), (160, 98))
        """
        share = min(1.0, self.height / min(width, height))
        even = (max(2, min(2 * round(side * share / 2), side - side % 2)) for side in (width, height))
        return next(even), next(even)


def reencode(job: tuple[str, str, Encoding]) -> str:
    """Re-encode a video, upright and with the times of its frames; the new file gets its name only when it is complete.

    Args:
        job: The video, in any storage; the new file; the settings.

    Returns:
        Why the video cannot be re-encoded; empty if it was written.
    """
    source, target, encoding = job
    try:
        with atomic_path(target) as part, as_file(source) as name, closing(_open(source, name)) as reader:
            _write(part, reader, _read(source, reader), encoding)
    except BrokenMediaError as error:
        return error.reason
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return f"the name of the new file is too long: {printable(target)}"
    return ""


def _open(path: str, name: str) -> PyAVReader:
    try:
        return PyAVReader(name)
    except Exception as error:  # see OpenVideo
        raise BrokenMediaError(path, describe_decode_error(error)) from error


def _read(path: str, reader: PyAVReader) -> Iterator[VideoFrame]:
    """Decode all shown frames.

    Raises:
        BrokenMediaError: If a frame cannot be decoded, or there are fewer than the file claims.
    """
    count = 0
    try:
        for frame in islice(reader.decode_all(), reader.total_frames):
            yield frame
            count += 1
    except av.error.FFmpegError as error:
        raise BrokenMediaError(path, f"frame {count} cannot be decoded: {describe_decode_error(error)}") from error
    if count < reader.total_frames:
        raise BrokenMediaError(path, f"cut short, {count} of {reader.total_frames} frames can be decoded")


def _write(part: Path, reader: PyAVReader, frames: Iterator[VideoFrame], encoding: Encoding) -> None:
    """Encode the frames of a video."""
    times, ticks, tick = _plan(reader, encoding.fps)
    size: tuple[int, int] | None = None
    rotation: float | None = None
    filters: list[str] = []
    written = 0
    with av.open(str(part), "w", format="mp4") as new:
        stream = _add_stream(new, reader, encoding, tick)
        for frame, count in zip(frames, times, strict=True):
            if not count:
                continue
            size = size or encoding.scale(frame.width, frame.height)
            # Once its matrix is read, PyAV frees a frame late; so it is read only when the rotation changes.
            if frame.rotation != rotation:
                rotation, filters = frame.rotation, upright_filters(display_matrix(frame))
            scaled = _turn(_scale(frame, *size), filters)
            if not written:
                stream.width, stream.height = scaled.width, scaled.height
                if ratio := reader.stream.sample_aspect_ratio:  # keep the shape of pixels that are not square
                    stream.sample_aspect_ratio = 1 / ratio if swaps_sides(filters) else ratio
            scaled.pict_type, scaled.time_base = PictureType.NONE, tick  # the encoder chooses its own key frames
            for _ in range(count):
                scaled.pts = ticks[written]
                scaled.duration = ticks[written + 1] - ticks[written]
                new.mux(stream.encode(scaled))
                written += 1
        new.mux(stream.encode())


def _scale(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    """Scale a frame and convert its colors to BT.601, the usual standard of small videos."""
    colors: dict[str, Any] = dict(dst_colorspace=Colorspace.ITU601, dst_color_range=ColorRange.MPEG)
    return frame.reformat(width, height, "yuv420p", interpolation=Interpolation.AREA, threads=1, **colors)


def _turn(frame: VideoFrame, filters: Sequence[str]) -> VideoFrame:
    """Turn a YUV 4:2:0 frame with even sides upright by filters of FFmpeg."""
    if not filters:
        return frame
    planes = [
        np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, plane.line_size)[:, : plane.width]
        for plane in frame.planes
    ]
    turned = [turn_upright(plane, filters, black) for plane, black in zip(planes, BLACK, strict=True)]
    stacked = np.concatenate([plane.ravel() for plane in turned]).reshape(-1, turned[0].shape[1])
    return VideoFrame.from_ndarray(stacked, format="yuv420p")


def _plan(reader: PyAVReader, fps: float | None) -> tuple[list[int], list[int], Fraction]:
    """Plan how often each frame of a video is written, and the times of the written frames.

    Args:
        reader: Reader of the video.
        fps: Frames per second to write; None to write each frame once, at its time.

    Returns:
        How often each frame is written, (total_frames,); the times of the written frames and the end of the last, in ticks; the
        length of a tick in seconds.
    """
    total, times, rate = reader.total_frames, reader.frame_times, Fraction(reader.avg_fps).limit_denominator(MAX_TICKS)
    if fps is not None:
        new = Fraction(fps).limit_denominator(MAX_TICKS)
        end = total / rate if times is None else Fraction(reader.duration).limit_denominator(MAX_TICKS)
        count = max(1, math.ceil(end * new))
        if times is None:
            shown = np.array([int(i * rate / new) for i in range(count)])
        else:
            shown = np.searchsorted(times, np.arange(count) / float(new), side="right") - 1
        return np.bincount(shown, minlength=total).tolist(), list(range(count + 1)), 1 / new
    if times is None:
        return [1] * total, list(range(total + 1)), 1 / rate
    tick = max(reader.stream.time_base or Fraction(1), Fraction(1, MAX_TICKS))
    return [1] * total, np.rint(np.append(times, reader.duration) / float(tick)).astype(np.int64).tolist(), tick


def _add_stream(new: OutputContainer, reader: PyAVReader, encoding: Encoding, tick: Fraction) -> VideoStream:
    """Add an H.264 stream whose times are in ticks; ``tick`` is the length of one in seconds."""
    # The duration of an MP4 file is by decoding times, which lag behind with uneven frames.
    options = {"bf": "0"} if reader.frame_times is not None and encoding.fps is None else {}
    rate = encoding.fps or reader.avg_fps
    stream = add_h264_stream(new, rate, crf=encoding.crf, keyframes=encoding.keyframes, options=options)
    stream.codec_context.time_base = tick
    stream.codec_context.flags |= Flags.frame_duration
    return stream
