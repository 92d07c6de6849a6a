"""Thumbnails: small JPEG pictures of the frame in the middle of a video, or of an image."""

from contextlib import closing, suppress

import cv2
import numpy as np

from clipbert_mm.errors import BrokenMediaError
from clipbert_mm.media.images import decode_image, describe_decode_error
from clipbert_mm.media.listing import IMAGES
from clipbert_mm.media.readers import open_reader
from clipbert_mm.media.storage import as_file

SIZE = (320, 240)
"""Largest width and height of a thumbnail in pixels; smaller pictures keep their size."""
QUALITY = 75
"""Quality of the JPEG, of 100."""


def draw_thumbnail(path: str) -> bytes | str:
    """Return the thumbnail of a video or image, as JPEG; the reason, if it cannot be read.

    The first frame of many videos is black, so that the one in the middle is shown, unless it cannot be decoded.
    """
    try:
        frame = _frame(path)
    except BrokenMediaError as error:
        return error.reason
    height, width = frame.shape[:2]
    share = min(1.0, SIZE[0] / width, SIZE[1] / height)
    size = max(1, round(width * share)), max(1, round(height * share))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    content = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return content.tobytes()


def _frame(path: str) -> np.ndarray:
    """Decode the frame of a thumbnail, (H, W, 3) uint8 RGB.

    Raises:
        BrokenMediaError: If the file is neither a video nor an image that can be decoded.
    """
    if path.lower().endswith(IMAGES):
        return decode_image(path)
    try:
        with as_file(path) as name, closing(open_reader(name, "pyav", 1)) as reader:
            middle = reader.total_frames // 2
            for i in dict.fromkeys([middle, 0]):
                with suppress(Exception):
                    return next(iter(reader.read([i])))[1].copy()
            raise ValueError("no frame can be decoded")
    except BrokenMediaError:
        raise
    except Exception as error:  # each library has exceptions of its own, without a common base class
        raise BrokenMediaError(path, describe_decode_error(error)) from error
