"""ResizeTo, which resizes frames as the image processors of Hugging Face do."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch

from clipbert_mm.datasets.transforms.spatial import ResizeFrames
from clipbert_mm.errors import OptionError, is_count, quoted
from clipbert_mm.registry import TRANSFORMS

INTERPOLATIONS = ("bilinear", "bicubic")
MAX_PIXELS = 2**25
"""Most pixels of a frame between resizing and the crop; as many as one of 8K."""


@TRANSFORMS.register_module()
class ResizeTo(ResizeFrames):
    """Resize by an antialiased filter, as the image processors of Hugging Face do, in one of three ways.

    ``size`` squashes a frame to it, whatever its aspect ratio (BLIP, SigLIP). ``shorter`` with ``crop`` resizes to a shorter
    side and cuts out the center (CLIP). ``shorter`` with ``longest`` resizes to a shorter side, or less if the longer one
    would exceed ``longest``, and cuts both to multiples of ``multiple`` (ViLT): videos have different shapes then, and each
    is encoded in a batch of its own.

    The pixels are those of the processors that compute by torchvision. Those that compute by Pillow, as the models' authors
    did, round otherwise: by two grey levels at most, and less than one of a hundred pixels at all.

    Required Keys:
        frames (uint8, (K, T, H, W, 3))

    Modified Keys:
        frames (uint8, (K, T, H', W', 3)), of ``size``, a square of ``crop``, or at most ``longest``

    Added Keys:
        content_shape (H' and W')

    Args:
        size: Height and width.
        shorter: The shorter side, in pixels.
        crop: Side of the square that is cut out of the center, at most ``shorter``.
        longest: The largest longer side, at least ``shorter``.
        multiple: What both sides are multiples of, with ``longest``.
        interpolation: "bilinear" or "bicubic".

    Raises:
        OptionError: If the arguments describe none of the three ways.
    """

    def __init__(
        self,
        *,
        size: Sequence[int] | None = None,
        shorter: int | None = None,
        crop: int | None = None,
        longest: int | None = None,
        multiple: int = 1,
        interpolation: str = "bicubic",
    ) -> None:
        if interpolation not in INTERPOLATIONS:
            raise OptionError(
                f"ResizeTo expects interpolation {' or '.join(INTERPOLATIONS)}, got {quoted(interpolation)}."
            )
        self._fit: Callable[[int, int], tuple[int, int]] | None = None
        counts = all(is_count(side) for side in (shorter, crop, longest, multiple) if side is not None)
        if is_size(size) and shorter is crop is longest is None and multiple == 1:
            height, width = size or ()
        elif counts and size is None and shorter and crop and crop <= shorter and longest is None and multiple == 1:
            height = width = crop
            self._fit = partial(cover, shorter=shorter)
        elif counts and size is None and crop is None and shorter and longest and multiple <= shorter <= longest:
            height = width = longest // multiple * multiple
            self._fit = partial(contain, shorter=shorter, longest=longest, multiple=multiple)
        else:
            given = dict(size=size, shorter=shorter, crop=crop, longest=longest, multiple=multiple)
            raise OptionError(
                "ResizeTo expects size=(height, width), or shorter with a crop that is not larger, or shorter with a longest "
                "that is not smaller and, if wanted, a multiple; all in pixels, from 1. Got "
                f"{', '.join(f'{key}={quoted(value)}' for key, value in given.items() if value is not None)}."
            )
        super().__init__(frame_shape=(height, width))
        self.crop, self.interpolation = crop, interpolation

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of a frame after resizing and before the crop.

        >>> ResizeTo(size=(384, 384)).fit(1080, 1920), ResizeTo(shorter=224, crop=224).fit(1080, 1920)
        ((384, 384), (224, 398))

        Raises:
            ValueError: If a side would have no pixel, or the frame more than :data:`MAX_PIXELS`.
        """
        return self._fit(height, width) if self._fit else self.frame_shape

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of what the model gets; no frame is padded."""
        return shape if self.crop is None else self.frame_shape

    def resize(self, frame: np.ndarray, shape: tuple[int, int], out: np.ndarray) -> tuple[int, int]:
        """Resize a frame by torch on uint8, as torchvision does, and crop it."""
        pixels = torch.from_numpy(np.require(frame, requirements=("C", "W"))).permute(2, 0, 1)[None]  # (1, 3, H, W)
        large = torch.nn.functional.interpolate(
            pixels, shape, mode=self.interpolation, align_corners=False, antialias=True
        )
        top, left = (0, 0) if self.crop is None else ((shape[0] - self.crop) // 2, (shape[1] - self.crop) // 2)
        height, width = shape if self.crop is None else (self.crop, self.crop)
        out[:height, :width] = large[0, :, top : top + height, left : left + width].permute(1, 2, 0).numpy()
        return height, width


def is_size(value: object) -> bool:
    """Return whether a value is a height and a width."""
    return isinstance(value, (list, tuple)) and len(value) == 2 and all(map(is_count, value))


def cover(height: int, width: int, *, shorter: int) -> tuple[int, int]:
    """Return the shape of a frame that is resized to a shorter side; the longer one is cut to whole pixels.

    Raises:
        ValueError: If it would have more than :data:`MAX_PIXELS`.
    """
    longer = int(shorter * max(height, width) / min(height, width))
    if shorter * longer > MAX_PIXELS:
        raise ValueError(
            f"its sides are too different for the model: resized to a shorter side of {shorter} pixels, a frame of {width} x "
            f"{height} has {shorter * longer:,} pixels, and at most {MAX_PIXELS:,} are allowed. Cut out a part of it"
        )
    return (shorter, longer) if height <= width else (longer, shorter)


def contain(height: int, width: int, *, shorter: int, longest: int, multiple: int) -> tuple[int, int]:
    """Return the shape of a frame that is resized to a shorter side, or less so that the longer one is at most ``longest``.

    Both sides are rounded, then cut to multiples of ``multiple``.

    >>> contain(1080, 1920, shorter=384, longest=640, multiple=32)
    (352, 640)

    Raises:
        ValueError: If a side would have no pixel.
    """
    scale = shorter / min(height, width)
    sides = [shorter if side == min(height, width) else side * scale for side in (height, width)]
    if max(sides) > longest:
        scale = longest / max(sides)
        sides = [side * scale for side in sides]
    rows, columns = (int(side + 0.5) // multiple * multiple for side in sides)
    if not rows or not columns:
        raise ValueError(
            f"its sides are too different for the model: resized to a longer side of {longest} pixels, a frame of {width} x "
            f"{height} has less than {multiple} on the shorter one. Cut out a part of it"
        )
    return rows, columns
