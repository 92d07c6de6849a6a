"""SampleClips, which chooses the clips of a video and their frames, by arithmetic and without reading the file."""

from typing import Any

import numpy as np
from mmcv.transforms import BaseTransform

from clipbert_mm.datasets.transforms.decoding import expect_keys
from clipbert_mm.errors import OptionError
from clipbert_mm.registry import TRANSFORMS

MODES = ("random", "uniform", "middle", "segments")


@TRANSFORMS.register_module()
class SampleClips(BaseTransform):
    """Choose short clips of equal length and evenly spaced frames in each (Section 3 of the paper).

    A clip starts in [0, room], with room = video length - clip length: at independent random times (sparse random sampling,
    for training), at uniform steps from the first possible start to the last (dense uniform sampling: Table 4 in training,
    and testing), or in the middle (one clip; testing in Tables 1, 2, 5 and 6). A single uniform clip is the middle one. In a
    video shorter than a clip, each clip is the whole video. Segments are K equal parts of the video instead, and their frames
    are at the starts of T equal parts of each, as the uniform frames of BLIP's evaluation on videos are.

    Clips are measured in seconds: the frame at time t is the one shown at t, also where the frame rate varies. If
    ``frame_times`` is missing or None, the rate is constant, and frame i is shown from i / avg_fps on.

    Required Keys:
        total_frames, avg_fps, rng (for random clips)

    Optional Keys:
        frame_times (float64, (total_frames,)): seconds from the first frame to each; and duration, the seconds from the first
        frame to the end of the last

    Added Keys:
        frame_inds (int64, (K·T,)), num_clips, clip_len, clip_times (start and end in seconds, (K, 2))

    Args:
        num_clips: Clips K of a video: N_train or N_test of the paper.
        num_frames: Frames T of a clip.
        clip_seconds: Length of a clip in seconds; 1 in the paper, 2 for ActivityNet Captions. Not for segments.
        mode: "random", "uniform", "middle" or "segments".
        compat: None, or "official" for the frames of the paper's release: uniform clip i of K starts at room · i / K, so the
            end of the video is never seen; the middle clip starts at room / 3; and the frames of a clip run from its first
            to its last, truncated, where ours are the middles of T equal parts of the clip. It counts frames and assumes a
            constant rate for every video.

    Raises:
        OptionError: If an argument is out of range.
    """

    def __init__(
        self,
        *,
        num_clips: int,
        num_frames: int,
        clip_seconds: float = 1.0,
        mode: str = "random",
        compat: str | None = None,
    ) -> None:
        if num_clips < 1 or num_frames < 1 or clip_seconds <= 0 or mode not in MODES:
            raise OptionError(
                f"SampleClips expects num_clips >= 1, num_frames >= 1, clip_seconds > 0 and mode {', '.join(MODES)}, got "
                f"{num_clips}, {num_frames}, {clip_seconds} and {mode!r}."
            )
        if mode == "middle" and num_clips != 1:
            raise OptionError(f"SampleClips expects num_clips=1 in mode 'middle', got num_clips={num_clips}.")
        if mode == "segments" and compat is not None:
            raise OptionError(f"SampleClips has no compat in mode 'segments', got compat={compat!r}.")
        if compat not in (None, "official"):
            raise OptionError(f"SampleClips expects compat None or 'official', got {compat!r}.")
        self.num_clips = num_clips
        self.num_frames = num_frames
        self.clip_seconds = clip_seconds
        self.mode = mode
        self.compat = compat

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add the frame indices of the clips.

        Raises:
            OptionError: If no transform opened the file, or a random draw has no generator.
        """
        expect_keys(self, results, "total_frames", "avg_fps")
        total, fps = results["total_frames"], results["avg_fps"]
        times: Any = results.get("frame_times")
        by_time = times is not None and self.compat is None
        # From here on, the unit is seconds, or frames if the rate is constant.
        rate, end = (1.0, results["duration"]) if by_time else (fps, total)
        length = self.clip_seconds * rate
        if self.mode == "segments":
            length = end / self.num_clips
            # Segments of whole frames start where a frame does, and rounding must not lead to the frame before.
            offsets = np.arange(self.num_frames) * length / self.num_frames + 1e-6  # (T,)
        elif self.compat is None:
            length = min(length, end)
            # The middles of T equal parts of the clip; so T = 1 takes the middle frame.
            offsets = (np.arange(self.num_frames) + 0.5) * length / self.num_frames  # (T,)
        else:
            offsets = np.linspace(0, length - 1, self.num_frames)  # (T,)
        starts = self.clip_starts(max(end - length, 0.0), results.get("rng"))  # (K,)
        positions = starts[:, None] + offsets  # (K, T)
        inds = np.searchsorted(times, positions, side="right") - 1 if by_time else positions.astype(np.int64)
        spans = np.stack([starts, np.minimum(starts + length, end)], axis=1)  # (K, 2)
        results["frame_inds"] = np.clip(inds, 0, total - 1).reshape(-1)
        results["num_clips"], results["clip_len"] = self.num_clips, self.num_frames
        if times is not None and not by_time:  # frames were counted: convert to seconds
            results["clip_times"] = np.interp(spans, np.arange(total + 1), np.append(times, results["duration"]))
        else:
            results["clip_times"] = spans / rate
        return results

    def clip_starts(self, room: float, rng: np.random.Generator | None) -> np.ndarray:
        """Return the starts of the clips, (K,), within [0, room].

        >>> SampleClips(num_clips=3, num_frames=2, mode="uniform").clip_starts(9.0, None).tolist()
        [0.0, 4.5, 9.0]
        >>> SampleClips(num_clips=3, num_frames=2, mode="uniform", compat="official").clip_starts(9.0, None).tolist()
        [0.0, 3.0, 6.0]
        >>> SampleClips(num_clips=1, num_frames=2, mode="middle").clip_starts(9.0, None).tolist()
        [4.5]
        """
        if self.mode == "random":
            if rng is None:
                raise OptionError(
                    "SampleClips in mode 'random' expects the random generator of the item under the key `rng`, got none."
                )
            return np.sort(rng.uniform(0, room, self.num_clips))
        if self.compat:
            return np.array([room / 3]) if self.mode == "middle" else room * np.arange(self.num_clips) / self.num_clips
        return np.array([room / 2]) if self.num_clips == 1 else np.linspace(0, room, self.num_clips)
