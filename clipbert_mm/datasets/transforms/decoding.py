"""Opening and decoding: mmaction2's Decord transforms for video, mmcv's reader for images."""

import os
from typing import Any

import mmcv
import numpy as np
from mmcv.transforms import BaseTransform
from mmengine.fileio import get

from clipbert_mm import compat
from clipbert_mm.registry import TRANSFORMS


class BrokenMediaError(RuntimeError):
    """A video or image that is there and cannot be read.

    Args:
        path: The file.
        reason: What is wrong with it; empty where torch passes on a worker's error, whose whole text it gives as ``path``.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        """Name the file and what is wrong with it."""
        return f"cannot read {self.path}: {self.reason}" if self.reason else self.path


def _check_size(path: str) -> None:
    """Name an empty file as such; decoders say something less clear of it."""
    if os.path.isfile(path) and os.path.getsize(path) == 0:
        raise BrokenMediaError(path, "the file is empty (0 bytes)")


@TRANSFORMS.register_module()
class OpenVideo(BaseTransform):
    """Open a video without decoding it.

    Required Keys:
        path

    Added Keys:
        video_reader, total_frames, avg_fps

    Args:
        num_threads: Threads of the decoder; data loading has processes already.
    """

    def __init__(self, *, num_threads: int = 1) -> None:
        self.init = compat.build_decord_init(num_threads)

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the reader.

        Raises:
            BrokenMediaError: If the file is empty, no video, cut short, or without a frame rate.
        """
        path = results["path"]
        _check_size(path)
        results["filename"] = path
        try:
            results = self.init.transform(results)
        except Exception as error:  # each reader has exceptions of its own, which share no base class
            raise BrokenMediaError(path, compat.decoder_reason(error)) from error
        if results["total_frames"] < 1 or not results["avg_fps"] > 0:
            found = f"{results['total_frames']} frames at {results['avg_fps']} frames a second"
            raise BrokenMediaError(path, f"expected frames and a frame rate, got {found}")
        return results


@TRANSFORMS.register_module()
class DecodeClips(BaseTransform):
    """Decode the frames of all clips of a video in one pass, each frame once.

    Required Keys:
        path, video_reader, frame_inds, num_clips, clip_len

    Added Keys:
        frames (uint8 RGB, (K, T, H, W, 3))
    """

    def __init__(self) -> None:
        from mmaction.datasets.transforms import DecordDecode

        self.decode = DecordDecode(mode="accurate")

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frames and let go of the reader.

        Raises:
            BrokenMediaError: If a frame cannot be decoded.
        """
        wanted = results["frame_inds"]
        distinct, places = np.unique(wanted, return_inverse=True)
        try:
            decoded = self.decode.transform(dict(video_reader=results.pop("video_reader"), frame_inds=distinct))
        except Exception as error:  # see OpenVideo
            raise BrokenMediaError(results["path"], compat.decoder_reason(error)) from error
        frames = np.stack(decoded["imgs"])[places]  # (K·T, H, W, 3)
        results["frames"] = frames.reshape(results["num_clips"], results["clip_len"], *frames.shape[1:])
        return results


@TRANSFORMS.register_module()
class LoadImage(BaseTransform):
    """Read an image: a video of one clip of one frame.

    Required Keys:
        path

    Added Keys:
        frames (uint8 RGB, (1, 1, H, W, 3))
    """

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the image as frames.

        Raises:
            BrokenMediaError: If the file is empty or no image.
        """
        path = results["path"]
        _check_size(path)
        image = mmcv.imfrombytes(get(path))  # BGR, since mmcv's own way to RGB fails where there is no image
        if image is None:
            raise BrokenMediaError(path, "not an image that OpenCV can decode")
        results["frames"] = np.ascontiguousarray(image[None, None, ..., ::-1])  # (1, 1, H, W, 3)
        return results
