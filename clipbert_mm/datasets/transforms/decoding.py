"""Transforms that open and decode videos, animated GIFs, folders of frames and images."""

import functools
from collections.abc import Callable, Generator
from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm.errors import BrokenMediaError, OptionError
from clipbert_mm.media.frame_folders import open_frame_folder
from clipbert_mm.media.images import decode_image, describe_decode_error
from clipbert_mm.media.readers import VideoReader, check_backend, open_reader
from clipbert_mm.media.storage import as_file
from clipbert_mm.registry import TRANSFORMS


def named_file(results: dict[str, Any]) -> dict[str, Any]:
    """Add ``path`` to results that name their file as MMAction2 (``filename``) or MMPretrain (``img_path``) do; return them.

    Raises:
        OptionError: If they name no file.
    """
    for key in ("path", "filename", "img_path"):
        if key in results:
            results["path"] = results[key]
            return results
    raise OptionError(
        f"A pipeline needs the path of a file as 'path', 'filename' or 'img_path', got {', '.join(results)}."
    )


ADDED_BY = {
    "total_frames": "OpenVideo or OpenFrames",
    "avg_fps": "OpenVideo or OpenFrames",
    "video_reader": "OpenVideo or OpenFrames",
    "frame_inds": "SampleClips",
    "num_clips": "SampleClips",
    "clip_len": "SampleClips",
    "frames": "DecodeClips or LoadImage, or one of MMAction2's that decode, such as DecordDecode,",
}
"""What adds the keys that the transforms of a video need."""


def expect_keys(transform: BaseTransform, results: dict[str, Any], *keys: str) -> None:
    """Check that results have the keys that a transform needs.

    Raises:
        OptionError: If one is missing; it names the transforms that add it.
    """
    for key in keys:
        if key not in results:
            raise OptionError(
                f"{type(transform).__name__} needs the key '{key}', which the results do not have; they have "
                f"{', '.join(sorted(map(str, results)))}. Put {ADDED_BY[key]} before it in the pipeline."
            )


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video or animated GIF without decoding it.

    Required Keys:
        path, or as the other libraries name it filename or img_path (see :mod:`~clipbert_mm.media.storage` for its forms)

    Added Keys:
        video_reader (see :class:`~clipbert_mm.media.readers.VideoReader`) and its attributes total_frames, avg_fps, duration,
        frame_times

    Args:
        backend: The library that decodes: "pyav", which decodes the fewest frames, "decord", "opencv" or "torchcodec".
        num_threads: Threads of the decoder; data loading runs in several processes already.

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
            BrokenMediaError: If the file does not exist, is empty, is not a video, is truncated or has no frame rate.
        """
        path = named_file(results)["path"]
        with as_file(path) as name:
            try:
                reader = open_reader(name, self.backend, self.num_threads)
            except Exception as error:  # each library has exceptions of its own, without a common base class
                raise BrokenMediaError(path, describe_decode_error(error)) from error
        if reader.total_frames < 1 or not reader.avg_fps > 0:
            reader.close()
            got = f"{reader.total_frames} frames at {reader.avg_fps} frames per second"
            raise BrokenMediaError(path, f"expected frames and a frame rate, got {got}")
        return results | dict(video_reader=reader) | reader.describe()


class UndecodedResults(dict):
    """Results of a pipeline whose ``frames`` are decoded when a step first uses them.

    To other code it is a dict with an ordinary array under ``frames``. Only
    :class:`~clipbert_mm.datasets.transforms.ResizeFrames` (ResizePad, ResizeTo) takes the frames one by one instead, so that a
    4K video is never in memory at full size. The error of a frame that cannot be decoded is raised by the code that first uses
    the frames, or the dict as a whole.
    """

    def __init__(self, results: dict[str, Any]) -> None:
        self._reader: VideoReader | None = results.pop("video_reader")
        super().__init__(results)

    @property
    def undecoded(self) -> bool:
        """Whether the frames have neither been decoded nor replaced."""
        return self._reader is not None and not dict.__contains__(self, "frames")

    def stream(self) -> Generator[tuple[list[int], np.ndarray], None, None]:
        """Decode the frames, each once, and close the reader.

        Yields:
            The positions of a frame among the K·T sampled ones, and the frame, (H, W, 3) uint8 RGB, valid until the next one.

        Raises:
            BrokenMediaError: If a frame cannot be decoded, or differs in size from the first.
        """
        reader, self._reader = self._reader, None
        assert reader is not None, "frames are decoded once"
        positions: dict[int, list[int]] = {}
        for position, i in enumerate(np.asarray(self["frame_inds"]).tolist()):
            positions.setdefault(i, []).append(position)
        first: tuple[int, ...] = ()
        try:
            for i, frame in reader.read(sorted(positions)):
                first = first or frame.shape
                if frame.shape != first:
                    sizes = [f"{shape[1]} x {shape[0]}" for shape in (first, frame.shape)]
                    raise ValueError(f"expected frames of one size, {sizes[0]} pixels, frame {i} has {sizes[1]}")
                yield positions[i], frame
        except BrokenMediaError:
            raise  # it names the file of the frame
        except Exception as error:  # see OpenVideo
            raise BrokenMediaError(self["path"], describe_decode_error(error)) from error
        finally:
            reader.close()

    def __missing__(self, key: str) -> np.ndarray:
        """Decode and return the frames; for any other missing key, raise a KeyError."""
        if key == "frames" and self.undecoded:
            self._decode()
            return self[key]
        raise KeyError(key)

    def _decode(self) -> None:
        """Add the frames, (K, T, H, W, 3), unless they are decoded already."""
        if not self.undecoded:
            return
        frames: np.ndarray | None = None
        for positions, frame in self.stream():
            if frames is None:
                frames = np.empty((len(self["frame_inds"]), *frame.shape), np.uint8)
            frames[positions] = frame
        assert frames is not None, "a reader raises if it finds no frame"
        self["frames"] = frames.reshape(self["num_clips"], self["clip_len"], *frames.shape[1:])


def _decoding_first(method: Callable) -> Callable:
    """Wrap a method of dict so that the frames are decoded before it runs."""

    @functools.wraps(method, assigned=("__name__",))
    def decoded(self: UndecodedResults, *args: Any, **kwargs: Any) -> Any:  # noqa: ANN401
        self._decode()
        return method(self, *args, **kwargs)

    return decoded


DECODING_METHODS = (
    *("__contains__", "__delitem__", "__eq__", "__ior__", "__iter__", "__len__", "__ne__", "__or__", "__reduce_ex__"),
    *("__repr__", "__reversed__", "__ror__", "clear", "copy", "get", "items", "keys", "pop", "popitem", "setdefault"),
    *("update", "values"),
)
"""Methods of dict that use it as a whole, or keys that may be missing."""
for _name in DECODING_METHODS:
    setattr(UndecodedResults, _name, _decoding_first(getattr(dict, _name)))


@TRANSFORMS.register_module()
class DecodeClips(BaseTransform):
    """Decode the frames of all clips of a video in one pass, each frame once.

    The frames are decoded when the next step uses them; see :class:`UndecodedResults`. If that is
    :class:`~clipbert_mm.datasets.transforms.ResizePad` or :class:`~clipbert_mm.datasets.transforms.ResizeTo`, it resizes each
    frame as it is decoded: memory holds its result, K·T·H·W·3 bytes, and one frame at full size.

    Required Keys:
        path, video_reader, frame_inds, num_clips, clip_len

    Added Keys:
        frames (uint8 RGB, (K, T, H, W, 3))
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frames. Using them closes the reader, and raises a BrokenMediaError if one cannot be decoded.

        Raises:
            OptionError: If no transform opened the file and chose the frames, or one of another library opened it.
        """
        expect_keys(self, results, "video_reader", "frame_inds", "num_clips", "clip_len")
        reader = results["video_reader"]
        if not (hasattr(reader, "read") and hasattr(reader, "close")):
            raise OptionError(
                f"DecodeClips reads what OpenVideo or OpenFrames opened, got a {type(reader).__name__} of "
                f"{type(reader).__module__.partition('.')[0]}. Decode by the transform that belongs to it (DecordDecode)."
            )
        return UndecodedResults(results)


@TRANSFORMS.register_module()
class OpenFrames(BaseTransform):
    """Open a video that is stored as a folder of its frames: ``000001.jpg``, ``000002.jpg``, ...

    The names are consecutive numbers, from any start, optionally with a common prefix. The folder may have a ``fps.txt`` with
    the frames per second, such as ``25`` or ``30000/1001``.

    Required Keys:
        path (of the folder; see :mod:`~clipbert_mm.media.storage` for its forms)

    Added Keys:
        video_reader, total_frames, avg_fps, duration, frame_times

    Args:
        fps: Frames per second of folders without a ``fps.txt``; None if all have one.

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
            BrokenMediaError: If there is no such folder, frames are missing, or the frame rate is not known.
        """
        reader = open_frame_folder(named_file(results)["path"].rstrip("/"), self.fps)
        return results | dict(video_reader=reader) | reader.describe()


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read an image as a video of one clip of one frame.

    Required Keys:
        path, or as the other libraries name it filename or img_path (see :mod:`~clipbert_mm.media.storage` for its forms)

    Added Keys:
        frames (uint8 RGB, (1, 1, H, W, 3)), upright; see :func:`decode_image`
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the image as frames.

        Raises:
            BrokenMediaError: If the file does not exist, is empty or is not an image.
        """
        results["frames"] = decode_image(named_file(results)["path"])[None, None]  # (1, 1, H, W, 3)
        return results
