"""The reader that decodes by OpenCV."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from clipbert_mm.media.readers.base import VideoReader, missing_frame
from clipbert_mm.media.readers.inspection import inspect
from clipbert_mm.media.readers.orientation import turn_upright, upright_filters


class OpenCVReader(VideoReader):
    """Read a video by OpenCV, which finds a frame reliably only by decoding all frames before it.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If OpenCV cannot open the file.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        self.inspection = inspect(name)
        self.num_threads = num_threads
        self.filters = upright_filters(self.inspection.matrix)
        self.inspection.index.describe_to(self)
        try:
            self.inspection.check_stream("opencv", self.inspection.first)
            self.open().release()
        except BaseException:
            self.close()
            raise

    def open(self) -> cv2.VideoCapture:
        """Open the file at its first frame."""
        reader = cv2.VideoCapture(
            self.inspection.source.path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, self.num_threads]
        )
        if not reader.isOpened():
            raise ValueError("opencv cannot open it; use OpenVideo(backend='pyav')")
        reader.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return reader

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames; see :meth:`VideoReader.read`."""
        remaining, reader = set(frame_inds), self.open()
        try:
            for i in range(max(remaining) + 1):
                if not reader.grab():
                    break
                if i in remaining:
                    decoded, frame = reader.retrieve()
                    if not decoded:
                        break
                    remaining.remove(i)
                    yield i, turn_upright(frame[..., ::-1], self.filters)
        finally:
            reader.release()
        if remaining:
            raise missing_frame(self.total_frames, sorted(remaining))

    def close(self) -> None:
        """Close the file."""
        self.inspection.source.close()
