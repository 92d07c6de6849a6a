"""Inspection of a file for libraries that find frames by themselves: whether they would return wrong frames."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clipbert_mm.media.readers.frame_index import FrameIndex
from clipbert_mm.media.readers.orientation import Matrix, is_plain
from clipbert_mm.media.readers.packet_content import is_intra_only
from clipbert_mm.media.readers.packets import HEAD
from clipbert_mm.media.readers.pyav_reader import PyAVReader
from clipbert_mm.media.readers.video_source import COVERS, Source


@dataclass(frozen=True, eq=False)
class Inspection:
    """A video file that PyAV has opened and indexed, and of which it has decoded the first frame.

    Args:
        reader: PyAV's reader; its container is closed, the caller closes its ``source``.
        matrix: Display matrix of the first frame.
        stream: Index of the video's stream among all streams.
        videos: Indices of the video streams of the file, without covers.
        first: Whether the video is the first of all video streams, including covers.
        leading: Whether frames are shown before the key frame that they follow in the file.
        partial: Whether some frames that are marked as key frames depend on others.
    """

    reader: PyAVReader
    matrix: Matrix | None
    stream: int
    videos: list[int]
    first: bool
    leading: bool
    partial: bool

    @property
    def source(self) -> Source:
        """The file."""
        return self.reader.source

    @property
    def index(self) -> FrameIndex:
        """The index of its frames."""
        return self.reader.index

    def check(self, backend: str, counted: int) -> None:
        """Check that a library that finds frames by their time returns the frames that the file shows.

        Args:
            backend: Name of the library.
            counted: Number of frames that it counts.

        Raises:
            ValueError: If it would return other frames.
        """
        if counted != self.index.total_frames:
            problem = f"counts {counted} frames, the file shows {self.index.total_frames}"
        elif self.index.oddity:
            problem = f"takes wrong frames of such a file ({self.index.oddity})"
        elif not is_plain(self.matrix):
            problem = "does not turn frames upright as this file asks for"
        elif self.partial:
            problem = "takes wrong frames of such a file (intra refresh, whose key frames need those before them)"
        elif self.leading and backend == "decord":
            problem = "takes wrong frames of such a file (frames that are shown before the key frame that they follow)"
        else:
            return
        raise ValueError(f"{backend} {problem}; use OpenVideo(backend='pyav') or 'opencv'")

    def check_stream(self, backend: str, is_video: bool) -> None:
        """Check that a library that cannot select a stream decodes the one that is the video.

        Raises:
            ValueError: If it does not.
        """
        if not is_video:
            raise ValueError(f"{backend} cannot select one of several video streams; use OpenVideo(backend='pyav')")


def _check_key_frames(reader: PyAVReader) -> tuple[bool, bool]:
    """Read all packets; return whether frames are shown before their key frame, and whether key frames depend on others."""
    reader.go_to_start()
    codec, extradata = reader.decoder.name, reader.decoder.extradata
    key, leading, partial = None, False, False
    for packet in reader.packets:
        if packet.is_keyframe:
            key = packet.pts
            partial = partial or not is_intra_only(codec, extradata, bytes(memoryview(packet)[:HEAD]))
        elif key is not None and packet.pts is not None and packet.pts < key:
            leading = True
    return leading, partial


def inspect(name: str, *, check_keys: bool = False) -> Inspection:
    """Open and index a file, and decode its first frame.

    Args:
        name: The file.
        check_keys: Whether to look for key frames at which decoding cannot begin, by reading all packets.

    Raises:
        ValueError: As for :class:`PyAVReader`, or if its first frame cannot be decoded.
    """
    reader = PyAVReader(name)
    try:
        next(reader.read([0]))
        streams = reader.container.streams.video
        videos = [stream.index for stream in streams if not stream.disposition & COVERS]
        first = streams[0].index == reader.stream.index
        matrix = reader.matrix
        leading, partial = _check_key_frames(reader) if check_keys else (False, False)
        return Inspection(reader, matrix, reader.stream.index, videos, first, leading, partial)
    except BaseException:
        reader.source.close()
        raise
    finally:
        reader.container.close()


@contextmanager
def convert_errors(backend: str, action: str) -> Iterator[None]:
    """Raise a ValueError with a clear message if a library cannot open or decode a file; each has exceptions of its own."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{backend} cannot {action} it; use OpenVideo(backend='pyav') or 'opencv'") from error
