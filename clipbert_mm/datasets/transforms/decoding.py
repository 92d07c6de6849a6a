"""Opening and decoding videos, animated GIFs and images."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm.errors import BrokenMediaError, OptionError
from clipbert_mm.media.frame_folders import open_frame_folder
from clipbert_mm.media.images import decode_image, describe_decode_error
from clipbert_mm.media.readers import VideoReader, check_backend, open_reader
from clipbert_mm.media.storage import as_file
from clipbert_mm.registry import TRANSFORMS

RULES = 2
"""Version of the rules by which frames, and when they are shown, are found. Records made by older ones are made again."""


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video or animated GIF without decoding it.

    Required Keys:
        path (see :mod:`~clipbert_mm.media.storage` for where it may lead)

    Added Keys:
        video_reader (see :class:`~clipbert_mm.media.readers.VideoReader`), and what it says of the video:
        total_frames, avg_fps, duration, frame_times

    Args:
        backend: The library that decodes: "pyav", which decodes least, "decord", "opencv" or "torchcodec".
        num_threads: Threads of the decoder; data loading has processes already.

    Raises:
        OptionError: If there is no such backend, or ``num_threads`` is below 1.
        BackendError: If the backend is not installed.
    """

    def __init__(self, *, backend: str = "pyav", num_threads: int = 1) -> None:
        if num_threads < 1:
            raise OptionError(f"OpenVideo expects num_threads >= 1, got {num_threads}.")
        check_backend(backend)
        self.backend = backend
        self.num_threads = num_threads

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the reader.

        Raises:
            BrokenMediaError: If the file is not there, empty, no video, cut short, or without a frame rate.
        """
        path = results["path"]
        with as_file(path) as name:
            try:
                reader = open_reader(name, self.backend, self.num_threads)
            except Exception as error:  # each reader has exceptions of its own, which share no base class
                raise BrokenMediaError(path, describe_decode_error(error)) from error
        if reader.total_frames < 1 or not reader.avg_fps > 0:
            reader.close()
            found = f"{reader.total_frames} frames at {reader.avg_fps} frames a second"
            raise BrokenMediaError(path, f"expected frames and a frame rate, got {found}")
        return results | dict(video_reader=reader) | reader.describe()


class UndecodedResults(dict):
    """Results of a pipeline that get their ``frames`` when a step first looks for them.

    To whatever uses it, it is a dict that has ``frames``, an array like any other.
    :class:`~clipbert_mm.datasets.transforms.ResizePad` alone takes the pictures one by one instead, so that a video in 4K never
    lies in memory at full size. What looks at the frames, or at the results as a whole, meets the error of a frame that cannot
    be decoded.
    """

    def __init__(self, results: dict[str, Any]) -> None:
        self._reader: VideoReader | None = results.pop("video_reader")
        super().__init__(results)

    @property
    def undecoded(self) -> bool:
        """Whether nothing has looked at the frames, or put others in their place."""
        return self._reader is not None and not dict.__contains__(self, "frames")

    def stream(self) -> Iterator[tuple[list[int], np.ndarray]]:
        """Decode the frames, each once, and close the reader.

        Yields:
            At which of the K·T places a picture is, and the picture, (H, W, 3) uint8 RGB, good until the next.

        Raises:
            BrokenMediaError: If a frame cannot be decoded, or has another size than the first.
        """
        reader, self._reader = self._reader, None
        assert reader is not None, "frames are decoded once"
        places: dict[int, list[int]] = {}
        for place, i in enumerate(np.asarray(self["frame_inds"]).tolist()):
            places.setdefault(i, []).append(place)
        first: tuple[int, ...] = ()
        try:
            for i, picture in reader.read(sorted(places)):
                first = first or picture.shape
                if picture.shape != first:
                    sizes = [f"{shape[1]} x {shape[0]}" for shape in (first, picture.shape)]
                    raise ValueError(f"expected pictures of one size, {sizes[0]} pixels, frame {i} has {sizes[1]}")
                yield places[i], picture
        except BrokenMediaError:
            raise  # it names the frame's own file
        except Exception as error:  # see OpenVideo
            raise BrokenMediaError(self["path"], describe_decode_error(error)) from error
        finally:
            reader.close()

    def __missing__(self, key: str) -> np.ndarray:
        """Return the frames; raises a KeyError for any other key that is not there."""
        if key == "frames" and self.undecoded:
            self._decode()
            return self[key]
        raise KeyError(key)

    def _decode(self) -> None:
        """Add the frames if they are not there yet, (K, T, H, W, 3)."""
        if not self.undecoded:
            return
        frames: np.ndarray | None = None
        for places, picture in self.stream():
            if frames is None:
                frames = np.empty((len(self["frame_inds"]), *picture.shape), np.uint8)
            frames[places] = picture
        assert frames is not None, "a reader raises if it finds nothing"
        self["frames"] = frames.reshape(self["num_clips"], self["clip_len"], *frames.shape[1:])


def _decoding_first(method: Callable) -> Callable:
    """Return a method of a dict that finds the frames decoded."""

    @functools.wraps(method, assigned=("__name__",))
    def decoded(self: UndecodedResults, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self._decode()
        return method(self, *args, **kwargs)

    return decoded


WHOLE = (
    *("__contains__", "__delitem__", "__eq__", "__ior__", "__iter__", "__len__", "__ne__", "__or__", "__reduce_ex__"),
    *("__repr__", "__reversed__", "__ror__", "clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault"),
    *("update", "values"),
)
"""Methods that look at a dict as a whole, or at keys that may not be there."""
for _name in WHOLE:
    setattr(UndecodedResults, _name, _decoding_first(getattr(dict, _name)))


@TRANSFORMS.register_module()
class DecodeClips(BaseTransform):
    """Decode the frames of all clips of a video in one pass, each frame once.

    They are decoded when the next step looks at them; see :class:`UndecodedResults`. Where that is
    :class:`~clipbert_mm.datasets.transforms.ResizePad`, it makes each small as it comes: memory goes with what it returns,
    K·T·size²·3 bytes, and one frame at full size.

    Required Keys:
        path, video_reader, frame_inds, num_clips, clip_len

    Added Keys:
        frames (uint8 RGB, (K, T, H, W, 3))
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frames. Looking at them closes the reader, and raises a BrokenMediaError if one cannot be decoded."""
        return UndecodedResults(results)


@TRANSFORMS.register_module()
class OpenFrames(BaseTransform):
    """Open a video that lies as a folder of its frames: ``000001.jpg``, ``000002.jpg``, ...

    The names are a number that counts up without a gap, from any start, perhaps behind the same word in all of them. The
    folder may hold a ``fps.txt`` with the frames a second, such as ``25`` or ``30000/1001``.

    Required Keys:
        path (of the folder; see :mod:`~clipbert_mm.media.storage` for where it may lead)

    Added Keys:
        video_reader, total_frames, avg_fps, duration, frame_times

    Args:
        fps: Frames a second in folders without a ``fps.txt``; None if all have one.

    Raises:
        OptionError: If ``fps`` is not above 0.
    """

    def __init__(self, *, fps: float | None = None) -> None:
        if fps is not None and not fps > 0:
            raise OptionError(f"OpenFrames expects fps > 0, got {fps}.")
        self.fps = fps

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the reader.

        Raises:
            BrokenMediaError: If there is no such folder, it has no frames or lacks some, or no frame rate is known.
        """
        reader = open_frame_folder(results["path"].rstrip("/"), self.fps)
        return results | dict(video_reader=reader) | reader.describe()


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read an image: a video of one clip of one frame.

    Required Keys:
        path (see :mod:`~clipbert_mm.media.storage` for where it may lead)

    Added Keys:
        frames (uint8 RGB, (1, 1, H, W, 3)), upright; see :func:`decode_image`
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the image as frames.

        Raises:
            BrokenMediaError: If the file is not there, empty or no image.
        """
        results["frames"] = decode_image(results["path"])[None, None]  # (1, 1, H, W, 3)
        return results
