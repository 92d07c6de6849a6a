"""The reader that decodes by torchcodec."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from clipbert_mm.media.readers.base import VideoReader
from clipbert_mm.media.readers.inspection import convert_errors, inspect


class TorchCodecReader(VideoReader):
    """Read a video by torchcodec in its exact mode, which reads the packets of the file once.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If torchcodec would return other frames than the file shows; see
            :meth:`~clipbert_mm.media.readers.inspection.Inspection.check`.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        from torchcodec.decoders import VideoDecoder

        inspection = inspect(name, check_keys=True)
        with inspection.source:
            options: dict[str, Any] = dict(
                stream_index=inspection.stream, num_ffmpeg_threads=num_threads, seek_mode="exact"
            )
            with convert_errors("torchcodec", "open"):
                self.reader = VideoDecoder(inspection.source.path, dimension_order="NHWC", **options)
            inspection.check("torchcodec", len(self.reader))
        inspection.index.describe_to(self)

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames; see :meth:`VideoReader.read`."""
        with convert_errors("torchcodec", "decode"):
            frames = self.reader.get_frames_at(list(frame_inds)).data.numpy()
        yield from zip(frame_inds, frames, strict=True)
