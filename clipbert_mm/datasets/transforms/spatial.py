"""ResizeFrames, which brings frames to the size that the model takes, and ResizePad, as the paper does it."""

from abc import abstractmethod
from contextlib import closing
from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm.datasets.transforms.decoding import UndecodedResults, expect_keys
from clipbert_mm.errors import BrokenMediaError, OptionError, is_count, quoted
from clipbert_mm.registry import TRANSFORMS


class ResizeFrames(BaseTransform):
    """Resize all frames of a video; subclasses say how. Undecoded frames are resized one by one, as they are decoded.

    Required Keys:
        frames (uint8, (K, T, H, W, 3))

    Modified Keys:
        frames (uint8, (K, T, H', W', 3))

    Added Keys:
        content_shape (height and width of a resized frame without padding, in pixels)

    Args:
        frame_shape: Height and width of the frames that the model gets, in pixels; where they differ between videos, the
            largest.
    """

    def __init__(self, *, frame_shape: tuple[int, int]) -> None:
        self.frame_shape = frame_shape

    @abstractmethod
    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of a frame after resizing.

        Raises:
            ValueError: If a frame of this shape cannot be resized; it says why.
        """

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width of what the model gets of a frame that is resized to a shape."""
        return self.frame_shape

    @abstractmethod
    def resize(self, frame: np.ndarray, shape: tuple[int, int], out: np.ndarray) -> tuple[int, int]:
        """Resize a frame.

        Args:
            frame: uint8 frame, (H, W, 3).
            shape: What :meth:`fit` returns for it.
            out: Where to write it, in the upper left: zeros, (H', W', 3).

        Returns:
            Height and width of what was written.
        """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize all frames.

        Raises:
            BrokenMediaError: If a frame has a shape that cannot be resized or, when this is the first step that uses the
                frames, cannot be decoded.
            OptionError: If there are no frames.
        """
        if isinstance(results, UndecodedResults) and results.undecoded:
            path, shape, decoded = results["path"], (results["num_clips"], results["clip_len"]), results.stream()
        else:
            expect_keys(self, results, "frames")
            path, frames = results.get("path", "frames without a file"), results["frames"]
            shape = frames.shape[:2]
            decoded = (([i], frame) for i, frame in enumerate(frames.reshape(-1, *frames.shape[2:])))
        count = shape[0] * shape[1]
        target, resized = (0, 0), np.zeros(0, np.uint8)
        with closing(decoded):
            for positions, frame in decoded:
                if not resized.size:
                    try:
                        target = self.fit(*frame.shape[:2])
                    except ValueError as error:
                        raise BrokenMediaError(path, str(error)) from error
                    resized = np.zeros((count, *self.padded(target), 3), np.uint8)
                results["content_shape"] = self.resize(frame, target, resized[positions[0]])
                resized[positions[1:]] = resized[positions[0]]
        results["frames"] = resized.reshape(*shape, *resized.shape[1:])  # (K, T, H', W', 3)
        return results


@TRANSFORMS.register_module()
class ResizePad(ResizeFrames):
    """Resize to a given longer side, keep the aspect ratio, pad with zeros on the right and below (Section 3).

    Required Keys:
        frames (uint8, (K, T, H, W, 3))

    Modified Keys:
        frames (uint8, (K, T, size, size, 3))

    Added Keys:
        content_shape (height and width of a resized frame without padding, in pixels)

    Args:
        size: The longer side L in pixels; 448 in the paper's downstream tasks, 768 in its pre-training.

    Raises:
        OptionError: If the size is no whole number of 1 or more.
    """

    def __init__(self, *, size: int) -> None:
        if not is_count(size):
            raise OptionError(f"ResizePad expects size >= 1, in pixels, got {quoted(size)}.")
        super().__init__(frame_shape=(size, size))
        self.size = size

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of a frame after resizing.

        >>> ResizePad(size=448).fit(1080, 1920)
        (252, 448)
        """
        scale = self.size / max(height, width)
        return max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6))

    def resize(self, frame: np.ndarray, shape: tuple[int, int], out: np.ndarray) -> tuple[int, int]:
        """Resize a frame by OpenCV, linearly between pixels."""
        height, width = shape
        cv2.resize(frame, (width, height), dst=out[:height, :width], interpolation=cv2.INTER_LINEAR)
        return shape
