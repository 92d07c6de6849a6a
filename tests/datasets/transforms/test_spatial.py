"""Resize and pad: OpenCV's pixels in the upper left, zeros elsewhere."""

import cv2
import numpy as np
import pytest

from clipbert_mm.datasets.transforms import ResizePad
from clipbert_mm.errors import OptionError


@pytest.mark.parametrize(
    ("height", "width", "size", "content"),
    [
        (120, 160, 64, (48, 64)),
        (160, 120, 64, (64, 48)),
        (144, 144, 64, (64, 64)),
        (108, 192, 64, (36, 64)),
        (30, 50, 448, (268, 448)),  # 268.8: the shorter side is cut to whole pixels, as in the paper's release
        (3, 900, 64, (1, 64)),  # 0.2: at least one pixel stays
        (64, 64, 64, (64, 64)),
    ],
)
def test_content_is_opencv_s_and_the_rest_is_zero(height: int, width: int, size: int, content: tuple[int, int]):
    frames = np.random.default_rng(0).integers(1, 256, (2, 3, height, width, 3), np.uint8)
    results = ResizePad(size=size).transform(dict(frames=frames.copy()))
    assert results["content_shape"] == content
    assert results["frames"].shape == (2, 3, size, size, 3)
    rows, columns = content
    for k in range(2):
        for t in range(3):
            resized = cv2.resize(frames[k, t], (columns, rows), interpolation=cv2.INTER_LINEAR)
            assert np.array_equal(results["frames"][k, t, :rows, :columns], resized)
    assert not results["frames"][:, :, rows:].any()
    assert not results["frames"][:, :, :, columns:].any()


def test_a_ramp_stays_a_ramp():
    # Independent of OpenCV: halving a linear ramp gives the means of neighbors.
    ramp = np.tile(np.arange(0, 240, 2, np.uint8)[None, :, None], (120, 1, 3))
    halved = ResizePad(size=60).transform(dict(frames=ramp[None, None]))["frames"][0, 0]
    assert np.abs(halved[:, :, 0] - (np.arange(60) * 4 + 1.0)).max() <= 1


def test_a_misspelt_option_is_refused():
    with pytest.raises(TypeError, match="unexpected keyword argument 'scale'"):
        ResizePad(scale=448)


@pytest.mark.parametrize("size", [-64, 0, 64.0, "64"])
def test_a_size_that_is_no_number_of_pixels_is_refused(size: object):
    with pytest.raises(OptionError, match=rf"^ResizePad expects size >= 1, in pixels, got {size!r}\.$"):
        ResizePad(size=size)
