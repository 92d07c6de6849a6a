"""Images, wherever they lie."""

import av
import mmcv
import numpy as np

from clipbert_mm import compat
from clipbert_mm.datasets.transforms.readers.gif_reader import GifReader, is_gif
from clipbert_mm.datasets.transforms.storage import read_bytes
from clipbert_mm.errors import BrokenMediaError


def name_trouble(error: Exception) -> str:
    """Return what a decoder's error says of a file."""
    if isinstance(error, av.error.InvalidDataError):
        return "damaged, or cut short"
    return compat.decoder_reason(error)


def decode_image(path: str) -> np.ndarray:
    """Decode an image, wherever it lies, to (H, W, 3) uint8 RGB.

    Grey, palette and CMYK images become RGB; transparency is dropped; what the EXIF data says of the camera's orientation
    is applied, so that the picture is upright. Of an animated GIF it is the first frame.

    Raises:
        BrokenMediaError: If the file is not there, empty or no image.
    """
    data = read_bytes(path)
    try:
        if is_gif(data):
            return next(GifReader(data).read([0]))[1]
        image = mmcv.imfrombytes(data)  # BGR, since mmcv's own way to RGB fails where there is no image
    except Exception as error:  # each reader has exceptions of its own, which share no base class
        raise BrokenMediaError(path, name_trouble(error)) from error
    if image is None:
        raise BrokenMediaError(path, "not an image that OpenCV can decode")
    return np.ascontiguousarray(image[..., ::-1])
