"""Work-arounds for mmaction2's transforms, which draw from the random generators of the whole process."""

import random
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from clipbert_mm.compat.video_backbones import import_mmaction_package


def import_mmaction_transforms() -> None:
    """Import mmaction2's transforms, and not its models.

    For mmaction2 1.2.0 with numpy >= 2, where its ColorJitter fails for a hue below 0 ("Python integer -4 out of bounds for
    uint8"): from now on it adds in larger integers.

    Raises:
        BackendError: If mmaction2 is not installed.
    """
    import_mmaction_package("Transforms")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # see import_mmaction
        from mmaction.datasets.transforms import ColorJitter
    ColorJitter.adjust_hue = staticmethod(_adjust_hue)


def _adjust_hue(image: np.ndarray, factor: float) -> np.ndarray:
    """Turn the hue of an image (H, W, 3) by ``factor`` times 255 steps of 2 degrees, as ColorJitter does."""
    import cv2  # the package is imported without it

    hsv = cv2.cvtColor(np.clip(image, 0, 255).astype(np.uint8), cv2.COLOR_RGB2HSV)
    hsv[..., 0] = (hsv[..., 0].astype(np.int16) + int(factor * 255)) % 180
    return cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB).astype(np.float32)


@contextmanager
def seeded_generators(seed: int) -> Iterator[None]:
    """Seed the generators of Python, numpy and torch's CPU inside a block, and restore them at its end.

    For mmaction2 1.2.0, whose transforms draw from these three, which belong to the process: what a transform draws would
    depend on the worker and on what it read before. ColorJitter also draws when it is built, for the order of its parts.

    Args:
        seed: Seed, 0 to 2**32 - 1.
    """
    python, legacy, cpu = random.getstate(), np.random.get_state(), torch.default_generator.get_state()
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would seed GPUs too
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)
        torch.default_generator.set_state(cpu)
