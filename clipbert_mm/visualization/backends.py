"""Videos for MMEngine's visualizer backends, which know images and numbers only."""

import os
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from mmengine.visualization import Visualizer
from mmengine.visualization.vis_backend import BaseVisBackend, LocalVisBackend, TensorboardVisBackend, WandbVisBackend

from clipbert_mm.datasets.transforms import DecodeClips, OpenVideo
from clipbert_mm.media.encoding import encode_gif

GIF_WIDTH, GIF_FPS, GIF_FRAMES = 320, 6, 120
"""Width in pixels, frames per second and frames in all of the animation that TensorBoard gets, which shows no video."""


def add_video(visualizer: Visualizer, name: str, path: str | os.PathLike, step: int = 0) -> None:
    """Give a video, or an image, to all backends of a visualizer.

    A LocalVisBackend copies the file to ``vis_data/vis_video``. Weights & Biases gets the video, TensorBoard an animated GIF; a
    backend of another library that has ``add_video`` gets frames, as from MMAction2's visualizer; any other the frame in the
    middle. Of an image all get the image.

    Args:
        visualizer: Any visualizer of MMEngine or of its libraries.
        name: Name in the backends.
        path: The MP4 or PNG file.
        step: Step in the backends.
    """
    for backend in visualizer._vis_backends.values():
        if Path(path).suffix == ".png":
            backend.add_image(name, np.asarray(cv2.imread(os.fspath(path)))[..., ::-1], step)
        else:
            _add_video(backend, name, path, step)


def _add_video(backend: BaseVisBackend, name: str, path: str | os.PathLike, step: int) -> None:
    if isinstance(backend, LocalVisBackend):
        target = Path(backend._save_dir, "vis_video", f"{name}_{step}.mp4")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    elif isinstance(backend, WandbVisBackend):
        run: Any = backend.experiment
        run.log({name: run.Video(os.fspath(path), format="mp4")})
    elif isinstance(backend, TensorboardVisBackend):
        from tensorboard.compat.proto.summary_pb2 import Summary

        frames, fps = read_frames(path, GIF_FPS, GIF_FRAMES)
        small = [cv2.resize(frame, _small(frame), interpolation=cv2.INTER_AREA) for frame in frames]
        height, width = small[0].shape[:2]
        picture = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=encode_gif(small, fps))
        writer: Any = backend.experiment
        writer._get_file_writer().add_summary(Summary(value=[Summary.Value(tag=name, image=picture)]), step)
    elif hasattr(backend, "add_video"):
        frames, fps = read_frames(path, GIF_FPS, GIF_FRAMES)
        backend.add_video(name, frames, step=step, fps=round(fps))
    else:
        frames, _ = read_frames(path, GIF_FPS, GIF_FRAMES)
        backend.add_image(name, frames[len(frames) // 2], step)


def read_frames(path: str | os.PathLike, fps: float, limit: int) -> tuple[np.ndarray, float]:
    """Read a video at fewer frames per second.

    Args:
        path: The file.
        fps: Frames per second, at most.
        limit: Frames, at most.

    Returns:
        Frames, uint8 RGB (N, H, W, 3), and how many are shown per second.
    """
    results = OpenVideo().transform(dict(path=os.fspath(path)))
    count = min(max(1, int(results["duration"] * min(fps, results["avg_fps"]))), limit)
    inds = (np.arange(count) + 0.5) * results["total_frames"] / count
    decoded = DecodeClips().transform(results | dict(frame_inds=inds.astype(np.int64), num_clips=1, clip_len=count))
    return decoded["frames"][0], count / results["duration"]


def _small(frame: np.ndarray) -> tuple[int, int]:
    height, width = frame.shape[:2]
    return min(width, GIF_WIDTH), round(height * min(1.0, GIF_WIDTH / width))
