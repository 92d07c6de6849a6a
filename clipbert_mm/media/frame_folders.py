"""Reading videos that are stored as folders of frames."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from clipbert_mm.errors import BrokenMediaError, quoted
from clipbert_mm.media.images import decode_image
from clipbert_mm.media.listing import list_names
from clipbert_mm.media.readers import VideoReader
from clipbert_mm.media.storage import read_bytes

FRAME_NAME = re.compile(r"(?P<prefix>\D*)(?P<number>\d+)(\.(jpg|jpeg|png|bmp|webp))?", re.IGNORECASE)
"""File name of a frame; the suffix may be missing in an LMDB."""


class FrameFolder(VideoReader):
    """Reader of a video that is stored as one image per frame.

    Args:
        paths: The images, in order.
        avg_fps: Frames per second.
    """

    def __init__(self, paths: Sequence[str], avg_fps: float) -> None:
        self.paths = paths
        self.total_frames, self.avg_fps, self.duration = len(paths), avg_fps, len(paths) / avg_fps

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Read frames; see :meth:`VideoReader.read`.

        Raises:
            BrokenMediaError: If a frame cannot be read, or differs in size from the first.
        """
        size: str | None = None
        for i in frame_inds:
            frame = decode_image(self.paths[i])
            frame_size = f"{frame.shape[1]} x {frame.shape[0]}"
            size = size or frame_size
            if frame_size != size:
                reason = f"expected the size of {self.paths[frame_inds[0]]}, {size} pixels, got {frame_size}"
                raise BrokenMediaError(self.paths[i], reason)
            yield i, frame


def open_frame_folder(folder: str, fps: float | None = None) -> FrameFolder:
    """Open a folder of frames without decoding them.

    Args:
        folder: The folder, in any storage of :mod:`~clipbert_mm.media.storage`.
        fps: Frames per second, for a folder without ``fps.txt``.

    Raises:
        BrokenMediaError: If there is no such folder, frames are missing, or the frame rate is not known.
    """
    names = list_names(folder)
    if not names:
        raise BrokenMediaError(folder, "there is no such folder of frames, or it is empty")
    return FrameFolder(_order_frames(folder, names), _read_fps(folder, names, fps))


def _read_fps(folder: str, names: Sequence[str], default: float | None) -> float:
    if not {"fps.txt", "fps"} & set(names):  # without suffix in some LMDBs
        if default is None:
            raise BrokenMediaError(
                folder, "its frame rate is not known; set fps of OpenFrames, or add a fps.txt to the folder"
            )
        return float(default)
    text = read_bytes(f"{folder}/fps.txt").decode(errors="replace").strip()
    try:
        fps = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        fps = 0.0
    if not fps > 0:
        raise BrokenMediaError(
            f"{folder}/fps.txt", f"expected the frames per second, such as 25 or 30000/1001, got {quoted(text)}"
        )
    return fps


def _order_frames(folder: str, names: list[str]) -> list[str]:
    """Return the paths of the frames in a folder, in order."""
    matches = [match for match in map(FRAME_NAME.fullmatch, names) if match]
    prefixes = {match["prefix"] for match in matches}
    numbers = sorted(int(match["number"]) for match in matches)
    if not matches or len(prefixes) > 1:
        got = (
            f"names that begin with {' and '.join(map(repr, sorted(prefixes)))}"
            if matches
            else f"{len(names)} other files"
        )
        raise BrokenMediaError(folder, f"expected frames 000001.jpg, 000002.jpg, ..., got {got}")
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        gap = next(i for i, number in enumerate(numbers, start=numbers[0]) if i != number)
        raise BrokenMediaError(
            folder,
            f"expected one frame for each number from {numbers[0]} to {numbers[-1]}; the first mismatch is at {gap}",
        )
    return [f"{folder}/{match[0]}" for match in sorted(matches, key=lambda match: int(match["number"]))]
