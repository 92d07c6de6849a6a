"""Opening and decoding videos, animated GIFs and images."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm.datasets.transforms.images import decode_image, name_trouble
from clipbert_mm.datasets.transforms.readers import VideoReader, check_backend, open_reader
from clipbert_mm.datasets.transforms.storage import as_file
from clipbert_mm.errors import BrokenMediaError, OptionError
from clipbert_mm.registry import TRANSFORMS

RULES = 2
"""Version of the rules by which frames, and when they are shown, are found. Records made by older ones are made again."""


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video or animated GIF without decoding it.

    Required Keys:
        path (see :mod:`~clipbert_mm.datasets.transforms.storage` for where it may lead)

    Added Keys:
        video_reader (see :class:`~clipbert_mm.datasets.transforms.readers.VideoReader`), and what it says of the video:
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
                raise BrokenMediaError(path, name_trouble(error)) from error
        if reader.total_frames < 1 or not reader.avg_fps > 0:
            reader.close()
            found = f"{reader.total_frames} frames at {reader.avg_fps} frames a second"
            raise BrokenMediaError(path, f"expected frames and a frame rate, got {found}")
        return results | dict(video_reader=reader) | reader.describe()


@TRANSFORMS.register_module()
class DecodeClips(BaseTransform):
    """Decode the frames of all clips of a video in one pass, each frame once.

    Required Keys:
        path, video_reader, frame_inds, num_clips, clip_len

    Added Keys:
        frames (uint8 RGB, (K, T, H, W, 3))
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frames, and close the reader.

        Raises:
            BrokenMediaError: If a frame cannot be decoded.
        """
        reader = results.pop("video_reader")
        try:
            frames = _read_all(reader, results["frame_inds"])
        except BrokenMediaError:
            raise  # it names the frame's own file
        except Exception as error:  # see OpenVideo
            raise BrokenMediaError(results["path"], name_trouble(error)) from error
        finally:
            reader.close()
        results["frames"] = frames.reshape(results["num_clips"], results["clip_len"], *frames.shape[1:])
        return results


def _read_all(reader: VideoReader, frame_inds: np.ndarray) -> np.ndarray:
    """Read frames, (K·T, H, W, 3), some of which may be the same."""
    frames: np.ndarray | None = None
    for i, picture in reader.read(np.unique(frame_inds).tolist()):
        if frames is None:
            frames = np.empty((len(frame_inds), *picture.shape), np.uint8)
        if picture.shape != frames.shape[1:]:
            sizes = [f"{shape[1]} x {shape[0]}" for shape in (frames.shape[1:], picture.shape)]
            raise ValueError(f"expected pictures of one size, {sizes[0]} pixels, frame {i} has {sizes[1]}")
        frames[frame_inds == i] = picture
    assert frames is not None, "a reader raises if it finds nothing"
    return frames


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read an image: a video of one clip of one frame.

    Required Keys:
        path (see :mod:`~clipbert_mm.datasets.transforms.storage` for where it may lead)

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
