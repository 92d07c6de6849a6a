"""What loading is compared with: a plain reader, and an imitation of how the paper's release reads. Not for use.

Both take every frame rate for constant.
"""

from io import BytesIO

import av
import cv2
import numpy as np
import torch
from torch.nn import functional as F

from clipbert_mm.datasets.transforms import SampleClips


def read_plainly(path: str, sampler: SampleClips, size: int, seed: int) -> np.ndarray:
    """Read all clips with decord in one pass and scale them with OpenCV, (K·T, size, size, 3) uint8."""
    import decord

    reader = decord.VideoReader(path, num_threads=1)
    inds = _sample(sampler, len(reader), reader.get_avg_fps(), seed)
    distinct, places = np.unique(inds, return_inverse=True)
    frames = reader.get_batch(distinct).asnumpy()
    height, width = frames.shape[1:3]
    scale = size / max(height, width)
    height, width = int(height * scale + 1e-6), int(width * scale + 1e-6)
    padded = np.zeros((len(inds), size, size, 3), np.uint8)
    for target, place in zip(padded, places, strict=True):
        target[:height, :width] = cv2.resize(frames[place], (width, height))
    return padded


def read_as_released(path: str, sampler: SampleClips, size: int, seed: int) -> torch.Tensor:
    """Read each clip by itself and scale it as float, (K·T, 3, size, size): what is known of the paper's release.

    It holds a file's bytes, opens them anew for each clip, seeks to the key frame before, converts every frame on the way, and
    scales and pads with torch.
    """
    with open(path, "rb") as file:
        data = file.read()
    with av.open(path) as container:
        stream = container.streams.video[0]
        inds = _sample(sampler, stream.frames, float(stream.average_rate or 25), seed)
    clips = []
    for wanted in inds.reshape(sampler.num_clips, sampler.num_frames):
        clips.append(F.pad(*_scale(_read_clip(data, wanted), size)))
    return torch.cat(clips)


def _read_clip(data: bytes, wanted: np.ndarray) -> np.ndarray:
    """Read the frames of one clip, (T, H, W, 3)."""
    with av.open(BytesIO(data), "r") as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        rate, tick = float(stream.average_rate or 25), float(stream.time_base or 1)
        container.seek(int(wanted[0] / rate / tick), stream=stream)
        found: dict[int, np.ndarray] = {}
        for frame in container.decode(stream):
            found[round((frame.pts or 0) * tick * rate)] = frame.to_ndarray(format="rgb24")
            if (frame.pts or 0) * tick * rate >= wanted[-1]:
                break
        places = np.array(sorted(found))
        return np.stack([found[int(places[np.abs(places - i).argmin()])] for i in wanted])


def _scale(frames: np.ndarray, size: int) -> tuple[torch.Tensor, tuple[int, ...]]:
    """Scale frames, (T, 3, h, w) float32, and say how they are to be padded."""
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2).float()
    scale = size / max(tensor.shape[2:])
    height, width = (int(side * scale + 1e-6) for side in tensor.shape[2:])
    scaled = F.interpolate(tensor, (height, width), mode="bilinear", align_corners=False)
    return scaled, (0, size - width, 0, size - height)


def _sample(sampler: SampleClips, total_frames: int, fps: float, seed: int) -> np.ndarray:
    results = dict(total_frames=total_frames, avg_fps=fps, rng=np.random.default_rng(seed))
    return sampler.transform(results)["frame_inds"]
