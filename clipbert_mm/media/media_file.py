"""Reading one file in a process of its own, as is due to a file that somebody else has made: the decoder may crash or hang."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from clipbert_mm.errors import BrokenMediaError
from clipbert_mm.media.images import describe_decode_error
from clipbert_mm.media.isolation import run_each
from clipbert_mm.media.readers.video_source import COVERS, Source, best_stream, is_still
from clipbert_mm.media.storage import as_file

MEMORY = 2**30
"""Bytes of memory that the reading of one file may take."""
LATE = 0.1
"""Seconds by which a player may be late; moments are told in whole ones."""


@dataclass(frozen=True)
class Media:
    """A video or image as the model takes it.

    Args:
        frames: uint8 RGB frames, (K, T, H, W, 3).
        clip_times: Start and end of each clip in seconds, (K, 2); None for images.
        content_shape: Height and width of the picture without its padding, in pixels.
        seconds: Length of the video; None for images.
    """

    frames: np.ndarray
    clip_times: np.ndarray | None
    content_shape: tuple[int, int]
    seconds: float | None


def read_media(steps: Sequence[Any], path: str) -> Media:
    """Run the transforms up to the frames over a file.

    Raises:
        BrokenMediaError: If it cannot be read.
    """
    results: dict[str, Any] = dict(path=path)
    for step in steps:
        results = step(results)
    seconds = results.get("duration")
    if seconds is None and "avg_fps" in results:  # opened by a transform that takes the rate for constant
        seconds = results["total_frames"] / results["avg_fps"]
    return Media(results["frames"], results.get("clip_times"), tuple(results["content_shape"]), seconds)


def read_media_alone(steps: Sequence[Any], path: str, timeout: float) -> Media:
    """Do the same in a process of its own.

    Args:
        steps: The transforms.
        path: The file.
        timeout: Seconds that it may take.

    Raises:
        BrokenMediaError: If it cannot be read, or its decoder crashes, hangs or takes too much memory.
    """
    return run_alone(_read, (path, steps), timeout)


def run_alone(function: Callable[[Any], Any], job: tuple[Any, ...], timeout: float) -> Any:  # noqa: ANN401
    """Call a function on a file in a process of its own.

    Args:
        function: A function that can be imported by its name.
        job: What it is called with; the file comes first.
        timeout: Seconds that it may take.

    Raises:
        BrokenMediaError: If the function raises it, or the process crashes, hangs or takes too much memory.
    """
    (outcome,) = run_each(function, [job], workers=1, timeout=timeout, memory=MEMORY)
    if outcome.trouble:
        raise BrokenMediaError(job[0], outcome.trouble)
    return outcome.value


def _read(job: tuple[str, Sequence[Any]]) -> Media:
    path, steps = job
    return read_media(steps, path)


@dataclass(frozen=True)
class Description:
    """What a file is by its content, whatever it is called.

    Args:
        is_image: Whether its format is one of still images.
        codec: FFmpeg's name of its video's codec; None where it has no video that FFmpeg reads.
        from_start: Whether players show the video that is read, from its first frame at 0 seconds. They do not where they
            choose among several, or where the first frame comes late in the file, which browsers count differently.
    """

    is_image: bool
    codec: str | None
    from_start: bool


def describe(job: tuple[str]) -> Description:
    """Say what a file is.

    Args:
        job: The path.

    Raises:
        BrokenMediaError: If it cannot be opened.
    """
    (path,) = job
    try:
        with as_file(path) as name, Source(name) as source, source.container() as container:
            try:
                video = best_stream(container)
            except ValueError:
                return Description(is_still(container), None, False)
            others = [each for each in container.streams.video if each.index != video.index]
            first = (video.start_time or 0) * (video.time_base or 0)
            return Description(
                is_image=is_still(container),
                codec=video.codec_context.codec.canonical_name,
                from_start=first < LATE and all(each.disposition & COVERS for each in others),
            )
    except (av.error.FFmpegError, ValueError) as error:
        raise BrokenMediaError(path, f"not a video, or {describe_decode_error(error)}") from error
