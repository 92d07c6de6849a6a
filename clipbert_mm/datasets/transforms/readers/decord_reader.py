"""Decord."""

from collections.abc import Iterator, Sequence

import numpy as np

from clipbert_mm.datasets.transforms.readers.base import VideoReader
from clipbert_mm.datasets.transforms.readers.index import index_file


class DecordReader(VideoReader):
    """Frames of a video by decord, opened by its path: from bytes it ends the process on an AVI file that is cut short.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If it is a file of which decord takes other frames than it shows; see
            :meth:`~clipbert_mm.datasets.transforms.readers.index.FrameIndex.check_other`.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        import decord

        self.reader = decord.VideoReader(name, num_threads=num_threads)
        index = index_file(name)
        index.check_other("decord", len(self.reader))
        index.tell(self)

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames; see :meth:`VideoReader.read`."""
        yield from zip(frame_inds, self.reader.get_batch(frame_inds).asnumpy(), strict=True)
