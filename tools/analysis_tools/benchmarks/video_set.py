"""Videos to measure with where a dataset's own are not at hand: of the size, length and data rate of MSRVTT's."""

from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

WIDTH, HEIGHT = 320, 240
RATES = (Fraction(25), Fraction(30000, 1001), Fraction(24), Fraction(15))
"""Frames a second, in turn."""
SECONDS = (10, 20)
"""Length of the shortest and the longest."""
SHOT_SECONDS = 4.0


def write_videos(folder: Path, count: int, keyframes: int, bframes: int | None = None) -> list[Path]:
    """Write videos whose lengths go evenly from 10 to 20 seconds: H.264, 200 to 330 kbit/s, x264's usual settings.

    Pictures have the spectrum of photographs; a camera moves over them, things move in them, and there is a cut every four
    seconds. Files that are there already, from an earlier call, are kept.

    Args:
        folder: Where they go.
        count: Number of videos.
        keyframes: Frames from one key frame to the next, at most.
        bframes: Frames in a row that others are seldom made from; x264's own choice, up to 3, where it is None.

    Returns:
        Their paths.
    """
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for i in range(count):
        kind = "" if bframes is None else f"_bframes{bframes}"
        paths.append(folder / f"keyframes{keyframes}{kind}_{i:03d}.mp4")
        if not paths[-1].exists():
            seconds = SECONDS[0] + (SECONDS[1] - SECONDS[0]) * (i + 0.5) / count
            part = paths[-1].with_suffix(".part")
            _write(part, i, seconds, RATES[i % len(RATES)], keyframes, bframes)
            part.rename(paths[-1])
    return paths


def _write(path: Path, seed: int, seconds: float, rate: Fraction, keyframes: int, bframes: int | None) -> None:
    rng = np.random.default_rng(seed)
    options = {"threads": "1"} | ({} if bframes is None else {"bf": str(bframes)})
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=rate, options=options)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", keyframes
        for i in range(int(seconds * rate)):
            time = float(i / rate)
            if time % SHOT_SECONDS < float(1 / rate) or i == 0:
                shot = Shot(rng)
            pixels = shot.draw(time % SHOT_SECONDS, rng)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


class Shot:
    """A picture that a camera moves over, with two smaller ones that move in it.

    Args:
        rng: What to draw it by.
    """

    def __init__(self, rng: np.random.Generator) -> None:
        self.background = _picture(rng, 2 * HEIGHT, 2 * WIDTH)
        self.things = [_picture(rng, 72, 56) for _ in range(2)]
        self.pan = rng.uniform(-12, 12, 2)  # pixels a second
        self.paths = rng.uniform(0.2, 0.8, (2, 2)), rng.uniform(-0.12, 0.12, (2, 2))  # starts, shares a second

    def draw(self, seconds: float, rng: np.random.Generator) -> np.ndarray:
        """Draw it as it is some time after its start, with a camera's noise: (H, W, 3) uint8 RGB."""
        shift = self.pan * seconds
        move = np.array([[1, 0, -WIDTH / 2 + shift[0]], [0, 1, -HEIGHT / 2 + shift[1]]], np.float32)
        frame = cv2.warpAffine(self.background, move, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT)
        for thing, start, speed in zip(self.things, *self.paths, strict=True):
            height, width = thing.shape[:2]
            x, y = np.clip(start + speed * seconds, 0, 1) * (WIDTH - width, HEIGHT - height)
            frame[int(y) : int(y) + height, int(x) : int(x) + width] = thing
        return np.clip(frame + rng.normal(0, 1.0, frame.shape), 0, 255).astype(np.uint8)


def _picture(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """Draw noise whose amplitude falls with frequency as in photographs, (H, W, 3) uint8."""
    waves = np.fft.rfft2(rng.standard_normal((height, width, 3)), axes=(0, 1))
    frequency = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
    frequency[0, 0] = np.inf
    pixels = np.fft.irfft2(waves / frequency[..., None] ** 1.3, s=(height, width), axes=(0, 1))
    return np.clip(120 + 50 * pixels / pixels.std(axis=(0, 1)), 0, 255).astype(np.uint8)
