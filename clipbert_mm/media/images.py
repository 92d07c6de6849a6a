"""Decoding images, and short descriptions of decoders' errors."""

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

PILLOW_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "TIFF", "PPM", "JPEG2000", "AVIF")
"""Supported formats besides GIF, by Pillow's names."""
MAX_BYTES = 8 * MAX_PIXELS
"""Bytes of an image file, at most, as of four uncompressed channels of 16 bits."""


def describe_decode_error(error: Exception) -> str:
    """Return a short description of a decoder's error, without the path."""
    if isinstance(error, av.error.InvalidDataError):
        return "damaged, or cut short"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror  # without the path, which may be that of a temporary file
    return compat.decoder_reason(error)


def decode_image(path: str) -> np.ndarray:
    """Decode an image from any storage to (H, W, 3) uint8 RGB.

    Gray, palette and CMYK images become RGB; images of 16 bits keep the upper 8; transparency is dropped; the image is turned
    upright by the EXIF orientation. Of an animation the first frame is decoded.

    Raises:
        BrokenMediaError: If the file does not exist, is empty, not an image, truncated or damaged, or has more than
            ``MAX_PIXELS``.
    """
    data = read_bytes(path, MAX_BYTES)
    try:
        return next(GifReader(data).read([0]))[1] if is_gif(data) else _decode(data)
    except Exception as error:  # each library has exceptions of its own, without a common base class
        raise BrokenMediaError(path, describe_decode_error(error)) from error


def _decode(data: bytes) -> np.ndarray:
    """Decode an image of one of the formats.

    Pillow reads the header, so that the size is known before anything is decoded, and decodes: OpenCV's PNG reader was seen to
    crash the process on damaged files. JPEG is decoded by OpenCV, since Pillow's pixels differ.
    """
    try:
        image = Image.open(io.BytesIO(data), formats=PILLOW_FORMATS)
    except Image.UnidentifiedImageError:
        raise ValueError(
            f"not an image, or damaged at its beginning; supported: {', '.join(PILLOW_FORMATS)} and GIF"
        ) from None
    except Image.DecompressionBombError:  # more than twice the size at which it warns
        raise ValueError(f"it has more than {MAX_PIXELS:,} pixels, the largest size that is decoded") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(too_large(image.width, image.height))
        if data.startswith(b"\xff\xd8"):
            pixels = mmcv.imfrombytes(data)  # BGR: mmcv's conversion to RGB fails if there is no image
            if pixels is None:
                raise ValueError("damaged, or cut short")
            return np.ascontiguousarray(pixels[..., ::-1])
        image.load()
        try:
            upright = ImageOps.exif_transpose(image)
        except Exception:  # unreadable EXIF data is ignored, as by OpenCV
            upright = image
        if upright.mode.startswith("I"):  # gray of 16 bits
            return np.repeat(np.clip(np.asarray(upright) >> 8, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        return np.array(upright.convert("RGB"))
