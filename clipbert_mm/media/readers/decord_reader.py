"""The reader that decodes by Decord."""

from collections.abc import Iterator, Sequence

import numpy as np

from clipbert_mm.media.readers.base import VideoReader
from clipbert_mm.media.readers.inspection import convert_errors, inspect


class DecordReader(VideoReader):
    """Read a video by Decord, opened by path: from bytes Decord crashes the process on a truncated AVI file.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If Decord would return other frames than the file shows; see
            :meth:`~clipbert_mm.media.readers.inspection.Inspection.check`.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        import decord

        inspection = inspect(name, check_keys=True)
        with inspection.source:
            inspection.check_stream("decord", inspection.videos == [inspection.stream])
            with convert_errors("decord", "open"):
                self.reader = decord.VideoReader(inspection.source.path, num_threads=num_threads)
            inspection.check("decord", len(self.reader))
        inspection.index.describe_to(self)

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames; see :meth:`VideoReader.read`."""
        with convert_errors("decord", "decode"):
            frames = self.reader.get_batch(frame_inds).asnumpy()
        yield from zip(frame_inds, frames, strict=True)
