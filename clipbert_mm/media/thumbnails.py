"""Thumbnails: small JPEG pictures of the frame in the middle of a video, or of an image."""

from contextlib import closing, suppress

import cv2
import numpy as np

from clipbert_mm.errors import BrokenMediaError
from clipbert_mm.media.images import decode_image, describe_decode_error
from clipbert_mm.media.listing import IMAGES
from clipbert_mm.media.readers import VideoReader, open_reader
from clipbert_mm.media.storage import as_file

SIZE = (320, 240)
"""Largest width and height of a thumbnail in pixels; smaller pictures keep their size."""
QUALITY = 75
"""Quality of the JPEG, of 100."""


def draw_thumbnail(path: str) -> bytes | str:
    """Return the thumbnail of a video or image, as JPEG; the reason, if it cannot be read.

    The first frame of many videos is black, so that the one in the middle is shown, unless it cannot be decoded.
    """
    small = read_thumbnail((0, path, None))
    if isinstance(small, str):
        return small
    content = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1]
    return content.tobytes()


def read_thumbnail(job: tuple[int, str, float | None]) -> np.ndarray | str:
    """Return a small picture of a video or image, (h, w, 3) uint8 RGB; the reason, if it cannot be read.

    Args:
        job: A number of the caller's; the file; and the time of the frame in seconds, None for the one in the middle.
    """
    _, path, seconds = job
    try:
        frame = _frame(path, seconds)
    except BrokenMediaError as error:
        return error.reason
    height, width = frame.shape[:2]
    share = min(1.0, SIZE[0] / width, SIZE[1] / height)
    size = max(1, round(width * share)), max(1, round(height * share))
    return cv2.resize(frame, size, interpolation=cv2.INTER_AREA)


def _frame(path: str, seconds: float | None) -> np.ndarray:
    """Decode the frame of a thumbnail, (H, W, 3) uint8 RGB: the one at a time, or in the middle; else the first.

    Raises:
        BrokenMediaError: If the file is neither a video nor an image that can be decoded.
    """
    if path.lower().endswith(IMAGES):
        return decode_image(path)
    try:
        with as_file(path) as name, closing(open_reader(name, "pyav", 1)) as reader:
            wanted = reader.total_frames // 2 if seconds is None else _frame_at(reader, seconds)
            for i in dict.fromkeys([wanted, 0]):
                with suppress(Exception):
                    return next(iter(reader.read([i])))[1].copy()
            raise ValueError("no frame can be decoded")
    except BrokenMediaError:
        raise
    except Exception as error:  # each library has exceptions of its own, without a common base class
        raise BrokenMediaError(path, describe_decode_error(error)) from error


def _frame_at(reader: VideoReader, seconds: float) -> int:
    """Return the number of the frame that is shown at a time."""
    times = reader.frame_times
    number = seconds * reader.avg_fps if times is None else np.searchsorted(times, seconds, side="right") - 1
    return min(max(int(number), 0), reader.total_frames - 1)
