"""Which clips of a video, and which frames of a clip: arithmetic in seconds, no file is touched."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm.registry import TRANSFORMS


@TRANSFORMS.register_module()
class SampleClips(BaseTransform):
    """Choose short clips of equal length and evenly spaced frames in each (Section 3 of the paper).

    A clip starts somewhere in [0, video length - clip length]: at random and each on its own in training (sparse
    sampling), evenly from the first possible start to the last in testing. One uniform clip is the middle one. In a video
    shorter than a clip, each clip is the whole video.

    Required Keys:
        total_frames, avg_fps, rng (for random clips)

    Added Keys:
        frame_inds (int64, (K·T,)), num_clips, clip_len, clip_times (start and end in seconds, (K, 2))

    Args:
        num_clips: Clips K of a video: N_train or N_test of the paper.
        num_frames: Frames T of a clip.
        clip_seconds: Length of a clip in seconds; 1 in the paper, 2 for ActivityNet Captions.
        mode: "random" or "uniform".

    Raises:
        ValueError: If an argument is out of range.
    """

    def __init__(self, *, num_clips: int, num_frames: int, clip_seconds: float = 1.0, mode: str = "random") -> None:
        if num_clips < 1 or num_frames < 1 or clip_seconds <= 0 or mode not in ("random", "uniform"):
            raise ValueError(
                "SampleClips expects num_clips >= 1, num_frames >= 1, clip_seconds > 0 and mode 'random' or 'uniform', got "
                f"{num_clips}, {num_frames}, {clip_seconds} and {mode!r}."
            )
        self.num_clips = num_clips
        self.num_frames = num_frames
        self.clip_seconds = clip_seconds
        self.mode = mode

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frame indices of the clips."""
        total, fps = results["total_frames"], results["avg_fps"]
        duration = total / fps
        length = min(self.clip_seconds, duration)
        starts = self.clip_starts(duration - length, results.get("rng"))  # (K,)
        # Each frame stands in the middle of its share of the clip; so T = 1 takes the clip's middle frame.
        offsets = (np.arange(self.num_frames) + 0.5) * length / self.num_frames  # (T,)
        times = starts[:, None] + offsets  # (K, T)
        results["frame_inds"] = np.clip((times * fps).astype(np.int64), 0, total - 1).reshape(-1)
        results["num_clips"], results["clip_len"] = self.num_clips, self.num_frames
        results["clip_times"] = np.stack([starts, starts + length], axis=1)
        return results

    def clip_starts(self, room: float, rng: np.random.Generator | None) -> np.ndarray:
        """Choose the starts of the clips in seconds, (K,), within [0, room].

        >>> SampleClips(num_clips=3, num_frames=2, mode="uniform").clip_starts(9.0, None).tolist()
        [0.0, 4.5, 9.0]
        >>> SampleClips(num_clips=1, num_frames=2, mode="uniform").clip_starts(9.0, None).tolist()
        [4.5]
        """
        if self.mode == "uniform":
            return np.array([room / 2]) if self.num_clips == 1 else np.linspace(0, room, self.num_clips)
        if rng is None:
            raise ValueError("SampleClips in mode 'random' needs the item's generator `rng`, got none.")
        return np.sort(rng.uniform(0, room, self.num_clips))
