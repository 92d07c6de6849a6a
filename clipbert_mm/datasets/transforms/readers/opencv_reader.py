"""OpenCV."""

from collections.abc import Iterator, Sequence

import cv2
import numpy as np

from clipbert_mm.datasets.transforms.readers.base import VideoReader, missing_frame
from clipbert_mm.datasets.transforms.readers.index import index_file


class OpenCVReader(VideoReader):
    """Frames of a video by OpenCV, which finds a frame for certain only by passing over those before it.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If OpenCV cannot open the file.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        index = index_file(name)
        index.tell(self)
        self.reader = cv2.VideoCapture(name, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, num_threads])
        if not self.reader.isOpened():
            raise ValueError("OpenCV cannot open it")

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames; see :meth:`VideoReader.read`."""
        left = set(frame_inds)
        for i in range(max(left) + 1):
            if not self.reader.grab():
                break
            if i in left:
                found, picture = self.reader.retrieve()
                if not found:
                    break
                left.remove(i)
                yield i, picture[..., ::-1]
        if left:
            raise missing_frame(self.total_frames, sorted(left))
        self.reader.set(cv2.CAP_PROP_POS_FRAMES, 0)  # so that it can be asked again

    def close(self) -> None:
        """Close the file."""
        self.reader.release()
