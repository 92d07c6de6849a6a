"""What a library that finds frames in its own way has to know of a file, and which files it would take wrong frames of."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from clipbert_mm.media.readers.frame_index import HEAD, FrameIndex
from clipbert_mm.media.readers.hidden_frames import is_whole_picture
from clipbert_mm.media.readers.orientation import Matrix, is_plain
from clipbert_mm.media.readers.pyav_reader import PyAVReader
from clipbert_mm.media.readers.video_source import COVERS, Source


@dataclass(frozen=True, eq=False)
class Inspection:
    """A video file that PyAV has opened, indexed, and decoded the first frame of.

    Args:
        reader: PyAV's reader, done with; whoever asked for the inspection closes the file by its ``source``.
        matrix: Display matrix of the first frame.
        stream: Number of the video's stream among all streams.
        videos: Numbers of the file's video streams, without covers.
        first: Whether the video is the first of all video streams, covers too.
        leading: Whether frames are shown before the key frame that they follow in the file.
        partial: Whether some frames that are called key frames need others.
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
        """Its frames."""
        return self.reader.index

    def check(self, backend: str, counted: int) -> None:
        """See that a library that finds frames by their time takes the ones that the file shows.

        Args:
            backend: Its name.
            counted: Frames that it counts.

        Raises:
            ValueError: If it does not, because the file misleads it.
        """
        if counted != self.index.total_frames:
            trouble = f"counts {counted} frames, the file shows {self.index.total_frames}"
        elif self.index.odd:
            trouble = f"takes wrong frames of such a file ({self.index.odd})"
        elif not is_plain(self.matrix):
            trouble = "does not turn frames upright as this file asks for"
        elif self.partial:
            trouble = "takes wrong frames of such a file (intra refresh, whose key frames need those before them)"
        elif self.leading and backend == "decord":
            trouble = "takes wrong frames of such a file (frames that are shown before the key frame that they follow)"
        else:
            return
        raise ValueError(f"{backend} {trouble}; use OpenVideo(backend='pyav') or 'opencv'")

    def check_stream(self, backend: str, right: bool) -> None:
        """See that a library that cannot be told which stream to decode takes the one that is the video.

        Raises:
            ValueError: If it does not.
        """
        if not right:
            raise ValueError(
                f"{backend} cannot be told which of several video streams to decode; use OpenVideo(backend='pyav')"
            )


def _look_at_keys(reader: PyAVReader) -> tuple[bool, bool]:
    """Pass over the packets; whether frames are shown before their key frame, and whether key frames need others."""
    reader.go_to_start()
    codec, extradata = reader.decoder.name, reader.decoder.extradata
    key, leading, partial = None, False, False
    for packet in reader.packets:
        if packet.is_keyframe:
            key = packet.pts
            partial = partial or not is_whole_picture(codec, extradata, bytes(memoryview(packet)[:HEAD]))
        elif key is not None and packet.pts is not None and packet.pts < key:
            leading = True
    return leading, partial


def inspect(name: str, *, look_at_keys: bool = False) -> Inspection:
    """Open, index and try a file.

    Args:
        name: The file.
        look_at_keys: Whether to pass over the packets for key frames that mislead a library that begins at them.

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
        leading, partial = _look_at_keys(reader) if look_at_keys else (False, False)
        return Inspection(reader, matrix, reader.stream.index, videos, first, leading, partial)
    except BaseException:
        reader.source.close()
        raise
    finally:
        reader.container.close()


@contextmanager
def plain_error(backend: str, doing: str) -> Iterator[None]:
    """Say in plain words that a library cannot open or decode a file; each has exceptions and words of its own."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"{backend} cannot {doing} it; use OpenVideo(backend='pyav') or 'opencv'") from error
