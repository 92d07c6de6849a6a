"""OpenCV."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from clipbert_mm.media.readers.base import VideoReader, missing_frame
from clipbert_mm.media.readers.inspection import inspect
from clipbert_mm.media.readers.orientation import turn_upright, upright_filters


class OpenCVReader(VideoReader):
    """Frames of a video by OpenCV, which finds a frame for certain only by passing over those before it.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If OpenCV cannot open the file.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        self.found = inspect(name)
        self.num_threads = num_threads
        self.filters = upright_filters(self.found.matrix)
        self.found.index.tell(self)
        try:
            self.found.check_stream("opencv", self.found.first)
            self.open().release()
        except BaseException:
            self.close()
            raise

    def open(self) -> cv2.VideoCapture:
        """Open the file, before its first frame."""
        reader = cv2.VideoCapture(self.found.source.path, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, self.num_threads])
        if not reader.isOpened():
            raise ValueError("opencv cannot open it; use OpenVideo(backend='pyav')")
        reader.set(cv2.CAP_PROP_ORIENTATION_AUTO, 0)
        return reader

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames; see :meth:`VideoReader.read`."""
        left, reader = set(frame_inds), self.open()
        try:
            for i in range(max(left) + 1):
                if not reader.grab():
                    break
                if i in left:
                    found, picture = reader.retrieve()
                    if not found:
                        break
                    left.remove(i)
                    yield i, turn_upright(picture[..., ::-1], self.filters)
        finally:
            reader.release()
        if left:
            raise missing_frame(self.total_frames, sorted(left))

    def close(self) -> None:
        """Close the file."""
        self.found.source.close()
