"""Reading a single video or image for inference, in an isolated process if others made the file; and probing its format."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from clipbert_mm.errors import BrokenMediaError
from clipbert_mm.media.images import describe_decode_error
from clipbert_mm.media.isolation import run_isolated
from clipbert_mm.media.readers.video_source import COVERS, Source, best_stream, is_still
from clipbert_mm.media.storage import as_file

MAX_START = 0.1
"""Seconds at which a video may start and still count as starting at 0; the page shows times in whole seconds."""


@dataclass(frozen=True)
class Media:
    """A decoded video or image, as input of the model.

    Args:
        frames: uint8 RGB frames, (K, T, H, W, 3).
        clip_times: Start and end of each clip in seconds, (K, 2); None for images.
        content_shape: Height and width of a frame without its padding, in pixels.
        seconds: Duration of the video; None for images.
    """

    frames: np.ndarray
    clip_times: np.ndarray | None
    content_shape: tuple[int, int]
    seconds: float | None


def read_media(steps: Sequence[Any], path: str) -> Media:
    """Read a file by the transforms of a pipeline, up to the frames.

    Raises:
        BrokenMediaError: If it cannot be read.
    """
    results: dict[str, Any] = dict(path=path)
    for step in steps:
        results = step(results)
    seconds = results.get("duration")
    if seconds is None and "avg_fps" in results:  # a transform of another package that assumes a constant rate
        seconds = results["total_frames"] / results["avg_fps"]
    return Media(results["frames"], results.get("clip_times"), tuple(results["content_shape"]), seconds)


def read_media_isolated(steps: Sequence[Any], path: str, timeout: float) -> Media:
    """Read a file as :func:`read_media` does, in an isolated process.

    Args:
        steps: The transforms.
        path: The file.
        timeout: Seconds that it may take.

    Raises:
        BrokenMediaError: If it cannot be read, or its decoder crashes, hangs or takes too much memory.
    """
    return run_isolated(_read_job, (path, steps), timeout)


def _read_job(job: tuple[str, Sequence[Any]]) -> Media:
    path, steps = job
    return read_media(steps, path)


@dataclass(frozen=True)
class MediaInfo:
    """Format of a file by its content, whatever its name.

    Args:
        is_image: Whether its format is one of still images.
        codec: FFmpeg's name of the codec of its video; None if it has no video that FFmpeg can read.
        plays_from_start: Whether players show the same video as is read, with its first frame at 0 seconds. They may not if
            the file has several videos, or if its first frame has a later time, which browsers treat differently.
    """

    is_image: bool
    codec: str | None
    plays_from_start: bool


def probe_media(job: tuple[str]) -> MediaInfo:
    """Find out the format of a file.

    Args:
        job: The path, as the only element.

    Raises:
        BrokenMediaError: If it cannot be opened.
    """
    (path,) = job
    try:
        with as_file(path) as name, Source(name) as source, source.container() as container:
            try:
                video = best_stream(container)
            except ValueError:
                return MediaInfo(is_still(container), None, False)
            others = [each for each in container.streams.video if each.index != video.index]
            first = (video.start_time or 0) * (video.time_base or 0)
            return MediaInfo(
                is_image=is_still(container),
                codec=video.codec_context.codec.canonical_name,
                plays_from_start=first < MAX_START and all(each.disposition & COVERS for each in others),
            )
    except (av.error.FFmpegError, ValueError) as error:
        raise BrokenMediaError(path, f"not a video, or {describe_decode_error(error)}") from error
