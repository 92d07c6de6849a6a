"""Decord."""

from collections.abc import Iterator, Sequence

import numpy as np

from clipbert_mm.media.readers.base import VideoReader
from clipbert_mm.media.readers.inspection import inspect, plain_error


class DecordReader(VideoReader):
    """Frames of a video by decord, opened by its path: from bytes it ends the process on an AVI file that is cut short.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If it is a file of which decord takes other frames than it shows; see
            :meth:`~clipbert_mm.media.readers.inspection.Inspection.check`.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        import decord

        found = inspect(name, look_at_keys=True)
        with found.source:
            found.check_stream("decord", found.videos == [found.stream])
            with plain_error("decord", "open"):
                self.reader = decord.VideoReader(found.source.path, num_threads=num_threads)
            found.check("decord", len(self.reader))
        found.index.tell(self)

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames; see :meth:`VideoReader.read`."""
        with plain_error("decord", "decode"):
            pictures = self.reader.get_batch(frame_inds).asnumpy()
        yield from zip(frame_inds, pictures, strict=True)
