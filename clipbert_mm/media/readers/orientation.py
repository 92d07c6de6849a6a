"""Turning frames upright by the display matrix of their file, as players do."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
from av.video.frame import VideoFrame

Matrix = tuple[int, ...]
"""The nine numbers of a display matrix, row by row; its upper left 2 x 2 part is the rotation."""

TURNS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "transpose=clock": lambda pixels: np.rot90(pixels, -1),
    "transpose=cclock": lambda pixels: np.rot90(pixels),
    "transpose=clock_flip": lambda pixels: np.rot90(pixels, 2).swapaxes(0, 1),
    "transpose=cclock_flip": lambda pixels: pixels.swapaxes(0, 1),
    "hflip": lambda pixels: pixels[:, ::-1],
    "vflip": lambda pixels: pixels[::-1],
}
"""Effect of FFmpeg's filters on (H, W, 3) pixels."""
PLAIN: list[list[str]] = [[], ["transpose=clock"], ["transpose=cclock"], ["hflip", "vflip"]]
"""The filters that only rotate, by right angles."""


def display_matrix(frame: VideoFrame) -> Matrix | None:
    """Return the display matrix of a decoded frame; None if it has none."""
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if side_data is None else tuple(np.frombuffer(side_data, np.int32, 9).tolist())


def upright_filters(matrix: Sequence[int] | None) -> list[str]:
    """Return the FFmpeg filters that turn a frame upright: those that ``ffmpeg -i`` inserts itself.

    Angles are rounded to degrees. A rotation that is not by a right angle keeps the size of the frame and fills with black. A
    matrix without a direction, such as zeros, rotates nothing.

    >>> (
    ...     upright_filters((0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)),
    ...     upright_filters((65536, 0, 0, 0, -65536, 0, 0, 0, 1 << 30)),
    ... )
    (['transpose=clock'], ['vflip'])
    """
    if matrix is None:
        return []
    width, height = math.hypot(matrix[0], matrix[3]), math.hypot(matrix[1], matrix[4])
    if not width or not height:
        return []
    degrees = _round(math.degrees(math.atan2(matrix[1] / height, matrix[0] / width))) % 360
    if degrees == 90:
        return ["transpose=cclock_flip" if matrix[3] > 0 else "transpose=clock"]
    if degrees == 270:
        return ["transpose=clock_flip" if matrix[3] < 0 else "transpose=cclock"]
    if degrees == 180:
        return ["hflip"] * (matrix[0] < 0) + ["vflip"] * (matrix[4] < 0)
    if degrees > 1:
        return [f"rotate={degrees}*PI/180"]
    return ["vflip"] if degrees == 0 and matrix[4] < 0 else []


def _round(value: float) -> int:
    """Round half away from zero, as in C."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def is_plain(matrix: Sequence[int] | None) -> bool:
    """Whether a matrix rotates by a multiple of 90° and mirrors nothing, which every library supports."""
    exact = matrix is None or matrix[1] == matrix[3] == 0 or matrix[0] == matrix[4] == 0
    return exact and upright_filters(matrix) in PLAIN


def swaps_sides(filters: Sequence[str]) -> bool:
    """Whether filters exchange width and height."""
    return any(name.startswith("transpose") for name in filters)


def turn_upright(pixels: np.ndarray, filters: Sequence[str], black: int = 0) -> np.ndarray:
    """Apply filters to a frame, (H, W) or (H, W, C) uint8; return a view if possible.

    Args:
        pixels: The frame.
        filters: Filters of :func:`upright_filters`.
        black: Value that fills the corners after a rotation by another angle than a right one.
    """
    for name in filters:
        if name in TURNS:
            pixels = TURNS[name](pixels)
        else:  # a rotation that keeps the size
            height, width = pixels.shape[:2]
            degrees = float(name.removeprefix("rotate=").removesuffix("*PI/180"))
            turn = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), -degrees, 1.0)
            pixels = cv2.warpAffine(np.ascontiguousarray(pixels), turn, (width, height), borderValue=[black] * 3)
    return pixels
