"""Videos that lie as folders of their frames."""

import re
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from clipbert_mm.errors import BrokenMediaError, quoted
from clipbert_mm.media.images import decode_image
from clipbert_mm.media.readers import VideoReader
from clipbert_mm.media.storage import list_names, read_bytes

FRAME_NAME = re.compile(r"(?P<prefix>\D*)(?P<number>\d+)(\.(jpg|jpeg|png|bmp|webp))?", re.IGNORECASE)
"""Name of a frame in a folder of frames; without an ending in an LMDB of files without endings."""


class FrameFolder(VideoReader):
    """Frames that lie as images, one a frame.

    Args:
        paths: The images in their order.
        avg_fps: Frames a second.
    """

    def __init__(self, paths: Sequence[str], avg_fps: float) -> None:
        self.paths = paths
        self.total_frames, self.avg_fps, self.duration = len(paths), avg_fps, len(paths) / avg_fps

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Read frames; see :meth:`VideoReader.read`.

        Raises:
            BrokenMediaError: If one cannot be read, or has another size than the others.
        """
        size: str | None = None
        for i in frame_inds:
            picture = decode_image(self.paths[i])
            found = f"{picture.shape[1]} x {picture.shape[0]}"
            size = size or found
            if found != size:
                expected = f"expected the size of {self.paths[frame_inds[0]]}, {size} pixels, got {found}"
                raise BrokenMediaError(self.paths[i], expected)
            yield i, picture


def open_frame_folder(folder: str, fps: float | None = None) -> FrameFolder:
    """Open a folder of frames without decoding one.

    Args:
        folder: The folder; see :mod:`~clipbert_mm.media.storage` for where it may lie.
        fps: Frames a second where the folder has no ``fps.txt``.

    Raises:
        BrokenMediaError: If there is no such folder, it has no frames or lacks some, or no frame rate is known.
    """
    names = list_names(folder)
    if not names:
        raise BrokenMediaError(folder, "there is no such folder of frames, or it is empty")
    return FrameFolder(_order_frames(folder, names), _read_fps(folder, names, fps))


def _read_fps(folder: str, names: Sequence[str], default: float | None) -> float:
    if not {"fps.txt", "fps"} & set(names):  # without an ending in an LMDB of files without endings
        if default is None:
            raise BrokenMediaError(folder, "its frame rate is not known; set fps of OpenFrames or put a fps.txt there")
        return float(default)
    text = read_bytes(f"{folder}/fps.txt").decode(errors="replace").strip()
    try:
        fps = float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        fps = 0.0
    if not fps > 0:
        raise BrokenMediaError(
            f"{folder}/fps.txt", f"expected the frames a second, such as 25 or 30000/1001, got {quoted(text)}"
        )
    return fps


def _order_frames(folder: str, names: list[str]) -> list[str]:
    """Return the paths of the frames among the files of a folder, in their order."""
    found = [match for match in map(FRAME_NAME.fullmatch, names) if match]
    prefixes = {match["prefix"] for match in found}
    numbers = sorted(int(match["number"]) for match in found)
    if not found or len(prefixes) > 1:
        got = (
            f"names that begin with {' and '.join(map(repr, sorted(prefixes)))}"
            if found
            else f"{len(names)} other files"
        )
        raise BrokenMediaError(folder, f"expected frames 000001.jpg, 000002.jpg, ..., got {got}")
    if numbers != list(range(numbers[0], numbers[0] + len(numbers))):
        gap = next(i for i, number in enumerate(numbers, start=numbers[0]) if i != number)
        raise BrokenMediaError(
            folder, f"expected one frame for each number from {numbers[0]} to {numbers[-1]}; see {gap}"
        )
    return [f"{folder}/{match[0]}" for match in sorted(found, key=lambda match: int(match["number"]))]
