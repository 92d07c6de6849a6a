"""Videos with what a model answered drawn below them: text, scores, and the clips over time with the best one marked."""

import math
import os
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from clipbert_mm.datasets.transforms import DecodeClips, OpenFrames, OpenVideo
from clipbert_mm.datasets.transforms.decoding import UndecodedResults
from clipbert_mm.media.encoding import write_video
from clipbert_mm.media.images import decode_image
from clipbert_mm.visualization.figures import CORRECT, WRONG

WIDTH, MAX_HEIGHT = 480, 480
"""Width of a drawn frame, and its largest height, in pixels."""
MAX_FPS, MAX_FRAMES = 12.0, 600
"""Frames per second, and in all; a longer video has fewer per second, at the same speed."""
CLIP, BEST = "#4878a8", "#1a9641"
INSIDE = (26, 150, 65)
"""Color of the frame's edge while the best clip is on screen."""
TIME = (209, 73, 91)
"""Color of the line at the time of the frame."""


@dataclass(frozen=True)
class Drawing:
    """What is drawn below a video or an image.

    Args:
        name: Name of the file that is written, without its ending.
        path: The video or image.
        lines: Lines of text: what was asked, then what was answered.
        is_right: Whether the answer is right, for its color.
        spans: Start and end in seconds and score of each clip; none for an image.
    """

    name: str
    path: str
    lines: tuple[str, ...]
    is_right: bool
    spans: tuple[tuple[float, float, float], ...]

    @property
    def best(self) -> tuple[float, float, float] | None:
        """The clip with the highest score; None for an image."""
        return max(self.spans, key=lambda span: span[2], default=None)


def draw_answer(drawing: Drawing, folder: str | os.PathLike, opener: Any = None) -> Path:  # noqa: ANN401
    """Write a video as MP4, or an image as PNG, with an answer drawn below it.

    Args:
        drawing: What to draw.
        folder: Folder of the file.
        opener: Transform that opens the video: OpenVideo or OpenFrames; None for OpenVideo.

    Returns:
        The file.

    Raises:
        BrokenMediaError: If the video or image cannot be read.
    """
    if not drawing.spans:
        target = Path(folder, f"{drawing.name}.png")
        target.parent.mkdir(parents=True, exist_ok=True)
        frame = _scale(decode_image(drawing.path))
        panel, _ = draw_panel(drawing, 0.0, frame.shape[1])
        cv2.imwrite(str(target), np.concatenate([frame, panel])[..., ::-1])
        return target
    results = (opener or OpenVideo()).transform(dict(path=drawing.path))
    times = frame_times(results)
    fps = len(times) / results["duration"]
    target = Path(folder, f"{drawing.name}.mp4")
    write_video(target, draw_frames(drawing, results, times), fps)
    return target


def frame_times(results: dict[str, Any]) -> np.ndarray:
    """Return the times of the frames to draw, evenly spaced, in seconds."""
    rate = MAX_FPS if results["frame_times"] is not None else min(results["avg_fps"], MAX_FPS)
    count = math.ceil(results["duration"] * rate - 1e-6)
    count = min(max(count, 1), MAX_FRAMES)
    return (np.arange(count) + 0.5) * results["duration"] / count


def draw_frames(drawing: Drawing, results: dict[str, Any], times: np.ndarray) -> Iterator[np.ndarray]:
    """Draw the frames at some times of an open video.

    Yields:
        uint8 RGB frames, (H, W, 3): the frame of the video, and the panel below it with the time.
    """
    known = results["frame_times"]
    inds = times * results["avg_fps"] if known is None else np.searchsorted(known, times, side="right") - 1
    inds = np.clip(inds.astype(np.int64), 0, results["total_frames"] - 1)
    panel: np.ndarray | None = None
    for time, scaled in zip(times, _read(results, inds), strict=True):
        if panel is None:
            panel, (top, left, right) = draw_panel(drawing, results["duration"], scaled.shape[1])
        if drawing.best is not None and drawing.best[0] <= time < drawing.best[1]:
            cv2.rectangle(scaled, (0, 0), (scaled.shape[1] - 1, scaled.shape[0] - 1), INSIDE, 5)
        below = panel.copy()
        column = round(left + (right - left) * time / results["duration"])
        cv2.line(below, (column, top), (column, panel.shape[0] - 1), TIME, 2)
        yield np.concatenate([scaled, below])


def _read(results: dict[str, Any], inds: np.ndarray) -> Iterator[np.ndarray]:
    """Decode frames, and scale them; yields them in ascending order, each as often as it is shown."""
    decoded = DecodeClips().transform(results | dict(frame_inds=inds, num_clips=1, clip_len=len(inds)))
    assert isinstance(decoded, UndecodedResults), "frames are decoded on access"
    waiting: dict[int, np.ndarray] = {}
    following = 0
    for positions, frame in decoded.stream():
        scaled = _scale(frame)
        waiting.update({position: scaled.copy() for position in positions})
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _scale(frame: np.ndarray) -> np.ndarray:
    """Scale a frame to the width of the panel, or to the largest height on black; (H, WIDTH, 3) with an even H."""
    height, width = frame.shape[:2]
    scale = min(WIDTH / width, MAX_HEIGHT / height)
    size = max(2, round(width * scale)), max(2, round(height * scale))
    scaled = np.zeros((size[1] + size[1] % 2, WIDTH, 3), np.uint8)
    left = (WIDTH - size[0]) // 2
    scaled[: size[1], left : left + size[0]] = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return scaled


def draw_panel(drawing: Drawing, seconds: float, width: int) -> tuple[np.ndarray, tuple[int, float, float]]:
    """Draw the text of an answer and, for a video, the scores of its clips over time.

    Args:
        drawing: The answer.
        seconds: Duration of the video.
        width: Width of the panel in pixels.

    Returns:
        The panel, uint8 RGB (H, width, 3) with an even H; the row below the text; and the columns of the start and the end of
        the video.
    """
    asked, *answered = (textwrap.wrap(line, 72, max_lines=3) for line in drawing.lines)
    colors = ["black"] * len(asked) + [CORRECT if drawing.is_right else "#444444"] * sum(map(len, answered))
    lines = [*asked, *(line for each in answered for line in each)]
    if drawing.best is not None:
        lines.append("score of each clip over seconds; the best is {:.1f} to {:.1f} s".format(*drawing.best[:2]))
        colors.append(BEST)
    text = 8 + 15 * len(lines)
    height = text + 80 * bool(drawing.spans)
    height += height % 2
    figure = Figure(figsize=(width / 100, height / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    for i, (line, color) in enumerate(zip(lines, colors, strict=True)):
        figure.text(0.015, 1 - (4 + 15 * i) / height, line, va="top", fontsize=8, color=color, parse_math=False)
    if not drawing.spans:
        return _pixels(canvas), (text, 0.0, 0.0)
    axes = figure.add_axes((0.1, 20 / height, 0.87, 54 / height))
    for span in drawing.spans:
        start, end, score = span
        color = BEST if span == drawing.best else CLIP
        axes.plot([start, end], [score, score], color=color, linewidth=4, solid_capstyle="butt")
    axes.set_xlim(0, seconds)
    axes.margins(y=0.25)
    axes.tick_params(labelsize=6, length=2, pad=1)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(WRONG)
    left, right = (float(axes.transData.transform((time, 0))[0]) for time in (0.0, seconds))
    return _pixels(canvas), (text, left, right)


def _pixels(canvas: FigureCanvasAgg) -> np.ndarray:
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def opener_of(steps: Sequence[Any]) -> Any:  # noqa: ANN401
    """Return the transform of a pipeline that opens videos, to read them for drawing; None if it is another library's."""
    return next((step for step in steps if isinstance(step, (OpenVideo, OpenFrames))), None)
