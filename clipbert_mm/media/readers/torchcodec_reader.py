"""Torchcodec."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from clipbert_mm.media.readers.base import VideoReader
from clipbert_mm.media.readers.inspection import inspect, plain_error


class TorchCodecReader(VideoReader):
    """Frames of a video by torchcodec in its exact mode, which passes over the packets of the file once.

    Args:
        name: The file.
        num_threads: Threads of the decoder.

    Raises:
        ValueError: If it is a file of which torchcodec takes other frames than it shows; see
            :meth:`~clipbert_mm.media.readers.inspection.Inspection.check`.
    """

    def __init__(self, name: str, num_threads: int = 1) -> None:
        from torchcodec.decoders import VideoDecoder

        found = inspect(name, look_at_keys=True)
        with found.source:
            options: dict[str, Any] = dict(stream_index=found.stream, num_ffmpeg_threads=num_threads, seek_mode="exact")
            with plain_error("torchcodec", "open"):
                self.reader = VideoDecoder(found.source.path, dimension_order="NHWC", **options)
            found.check("torchcodec", len(self.reader))
        found.index.tell(self)

    def read(self, frame_inds: Sequence[int]) -> Iterator[tuple[int, np.ndarray]]:
        """Decode frames; see :meth:`VideoReader.read`."""
        with plain_error("torchcodec", "decode"):
            pictures = self.reader.get_frames_at(list(frame_inds)).data.numpy()
        yield from zip(frame_inds, pictures, strict=True)
