"""ResizePad, which brings frames to the size that the model takes."""

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm.datasets.transforms.decoding import UndecodedResults, expect_keys
from clipbert_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ResizePad(BaseTransform):
    """Resize to a given longer side, keep the aspect ratio, pad with zeros on the right and below (Section 3).

    Required Keys:
        frames (uint8, (K, T, H, W, 3))

    Modified Keys:
        frames (uint8, (K, T, size, size, 3))

    Added Keys:
        content_shape (height and width of a resized frame without padding, in pixels)

    Args:
        size: The longer side L in pixels; 448 in the paper's downstream tasks, 768 in its pre-training.
    """

    def __init__(self, *, size: int) -> None:
        self.size = size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize and pad all frames.

        Raises:
            BrokenMediaError: If a frame cannot be decoded, when this is the first step that uses the frames.
            OptionError: If there are no frames.
        """
        if isinstance(results, UndecodedResults) and results.undecoded:
            shape, decoded = (results["num_clips"], results["clip_len"]), results.stream()
        else:
            expect_keys(self, results, "frames")
            frames = results["frames"]
            shape = frames.shape[:2]
            decoded = (([i], frame) for i, frame in enumerate(frames.reshape(-1, *frames.shape[2:])))
        padded = np.zeros((shape[0] * shape[1], self.size, self.size, 3), np.uint8)
        content: tuple[int, int] | None = None
        for positions, frame in decoded:
            height, width = content = content or self.fit(*frame.shape[:2])
            target = padded[positions[0]]
            cv2.resize(frame, (width, height), dst=target[:height, :width], interpolation=cv2.INTER_LINEAR)
            for position in positions[1:]:
                padded[position] = target
        results["frames"], results["content_shape"] = padded.reshape(*shape, *padded.shape[1:]), content
        return results

    def fit(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of a frame after resizing.

        >>> ResizePad(size=448).fit(1080, 1920)
        (252, 448)
        """
        scale = self.size / max(height, width)
        return max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6))
