"""Frames to the size that the model takes."""

from typing import Any

import cv2
import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class ResizePad(BaseTransform):
    """Resize to a given longer side, keep the aspect ratio, pad with zeros on the right and below (Section 3).

    Required Keys:
        frames (uint8, (K, T, H, W, 3))

    Modified Keys:
        frames (uint8, (K, T, size, size, 3))

    Added Keys:
        content_shape (height and width of the picture without padding, in pixels)

    Args:
        size: The longer side L in pixels; 448 in the paper's downstream tasks, 768 in its pre-training.
    """

    def __init__(self, *, size: int) -> None:
        self.size = size

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Resize and pad all frames alike."""
        frames = results["frames"]
        clips, length, height, width, _ = frames.shape
        scale = self.size / max(height, width)
        height, width = max(1, int(height * scale + 1e-6)), max(1, int(width * scale + 1e-6))
        padded = np.zeros((clips, length, self.size, self.size, 3), np.uint8)
        for k in range(clips):
            for t in range(length):
                target = padded[k, t, :height, :width]  # OpenCV writes into it
                cv2.resize(frames[k, t], (width, height), dst=target, interpolation=cv2.INTER_LINEAR)
        results["frames"], results["content_shape"] = padded, (height, width)
        return results
