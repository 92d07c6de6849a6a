"""Images, wherever they lie."""

import io

import av
import mmcv
import numpy as np
from PIL import Image, ImageOps

from clipbert_mm import compat
from clipbert_mm.errors import BrokenMediaError
from clipbert_mm.media.readers.base import MAX_PIXELS, too_large
from clipbert_mm.media.readers.gif_reader import GifReader, is_gif
from clipbert_mm.media.storage import read_bytes

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Formats that are read, beside GIF, by Pillow's names."""
LARGEST_FILE = 8 * MAX_PIXELS
"""Bytes of the largest file that is read, as four channels of 16 bits without compression."""


def describe_decode_error(error: Exception) -> str:
    """Return what a decoder's error says of a file."""
    if isinstance(error, av.error.InvalidDataError):
        return "damaged, or cut short"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which a user may not know
    return compat.decoder_reason(error)


def decode_image(path: str) -> np.ndarray:
    """Decode an image, wherever it lies, to (H, W, 3) uint8 RGB.

    Gray, palette and CMYK images become RGB; of 16 bits the upper 8 count; transparency is dropped; what the EXIF data says of
    the camera's orientation is applied, so that the picture is upright. Of an animation it is the first frame.

    Raises:
        BrokenMediaError: If the file is not there, empty, no image, cut short or damaged, or has more than ``MAX_PIXELS``.
    """
    data = read_bytes(path, LARGEST_FILE)
    try:
        return next(GifReader(data).read([0]))[1] if is_gif(data) else _decode(data)
    except Exception as error:  # each reader has exceptions of its own, which share no base class
        raise BrokenMediaError(path, describe_decode_error(error)) from error


def _decode(data: bytes) -> np.ndarray:
    """Decode an image of one of the formats.

    Pillow reads the head, so that the size is known before anything is decoded. It decodes too, since OpenCV's reader of PNG
    was seen to end the process at damaged files; but JPEG is decoded by OpenCV, to the pixels that it always had.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.UnidentifiedImageError:
        raise ValueError(f"not an image, or damaged at its beginning; {', '.join(FORMATS)} and GIF are read") from None
    except Image.DecompressionBombError:  # more than twice of what it warns of
        raise ValueError(f"its frames have more than the {MAX_PIXELS:,} pixels that are decoded") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(too_large(image.width, image.height))
        if data.startswith(b"\xff\xd8"):
            pixels = mmcv.imfrombytes(data)  # BGR, since mmcv's own way to RGB fails where there is no image
            if pixels is None:
                raise ValueError("damaged, or cut short")
            return np.ascontiguousarray(pixels[..., ::-1])
        image.load()
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:  # EXIF data that cannot be read says nothing, as to OpenCV
            upright = image
        if upright.mode.startswith("I"):  # gray of 16 bits
            return np.repeat(np.clip(np.asarray(upright) >> 8, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        return np.array(upright.convert("RGB"))
