"""Scenes of the Shapes world: H.264 videos of colored shapes, drawn from a seed, and their captions.

A video is a sequence of scenes. A scene is one or two moving shapes on a plain background, so it matters which clip of a video
is sampled. Captions are derived from the description of the scenes that are drawn.
"""

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from clipbert_mm.log import logger

COLORS = {
    "red": (225, 30, 35),
    "green": (30, 160, 60),
    "blue": (40, 80, 230),
    "yellow": (245, 220, 40),
    "cyan": (60, 215, 225),
    "pink": (245, 125, 190),
    "orange": (245, 135, 25),
    "purple": (125, 45, 175),
}
BACKGROUNDS = {"black": 8, "gray": 112, "white": 245}
"""Gray levels."""
SHAPES = ("circle", "square", "triangle", "star", "cross", "ring")
SIZES = {"small": 0.2, "large": 0.3, "little": 0.15, "tiny": 0.1}
"""Radius of a shape as a fraction of the frame's shorter side."""
FRAME_SIZES = ((160, 120), (176, 144), (144, 144), (120, 160), (192, 108))
"""(width, height) in pixels."""
FRAME_RATES = (8, 10, 12.5, 15)
VIDEO_TEMPLATES = ("{first}, then {rest}", "first {first}, then {rest}", "the video shows {first}, then {rest}")
IMAGE_TEMPLATES = ("{first}", "there is {first}", "a picture of {first}")
DETAILED = 0.3
"""Probability that a partial caption names sizes, that it names motion, and that it names the background."""
SCENES = (2, 3)
"""Possible numbers of scenes of a video."""


@dataclass(frozen=True)
class ShapeObject:
    """A moving shape. Positions are fractions of the frame's (width, height), velocities are fractions per second."""

    shape: str
    color: str
    size: str
    start: tuple[float, float]
    velocity: tuple[float, float]

    def describe(self, *, size: bool = False, motion: bool = False) -> str:
        """Return the noun phrase of this shape, with its size and with its motion if asked for.

        >>> item = ShapeObject("star", "red", "large", (0.5, 0.5), (0.0, -0.1))
        >>> item.describe(), item.describe(size=True, motion=True)
        ('a red star', 'a large red star moving up and down')
        """
        words = [self.size] * size + [self.color, self.shape]
        if motion:
            # A shape bounces off the edges, so that the sign of its velocity is not what is seen.
            sideways, up = (part != 0 for part in self.velocity)
            words.append("moving sideways" if sideways else "moving up and down" if up else "standing still")
        return f"{'an' if words[0][0] in 'aeiou' else 'a'} {' '.join(words)}"


@dataclass(frozen=True)
class Scene:
    """One or two shapes on a background, shown for some seconds."""

    objects: tuple[ShapeObject, ...]
    background: str
    seconds: float

    def describe(self, order: Sequence[int]) -> str:
        """Return a phrase that names all shapes of this scene in the given order."""
        return " and ".join(self.objects[i].describe() for i in order)


def draw_scene(scene: Scene, seconds: float, width: int, height: int) -> np.ndarray:
    """Draw a frame of a scene.

    Args:
        scene: The scene.
        seconds: Time since the scene began.
        width: Width of the frame in pixels.
        height: Height of the frame in pixels.

    Returns:
        The frame, (H, W, 3) uint8 RGB.
    """
    frame = np.full((height, width, 3), BACKGROUNDS[scene.background], np.uint8)
    side = min(width, height)
    for item in scene.objects:
        radius = SIZES[item.size] * side
        center = []
        for start, velocity, extent in zip(item.start, item.velocity, (width, height), strict=True):
            low, high = radius, extent - radius
            # A shape bounces off the edges: its path is folded into [low, high].
            path = (low + start * (high - low) + velocity * seconds * extent - low) % (2 * (high - low))
            center.append(low + min(path, 2 * (high - low) - path))
        _draw_shape(frame, item.shape, COLORS[item.color], np.array(center), radius)
    return frame


def _draw_shape(frame: np.ndarray, shape: str, color: tuple, center: np.ndarray, radius: float) -> None:
    """Draw one shape of the given radius in pixels onto a frame, in place."""
    fixed = 4  # cv2 takes positions in 1/16 pixel
    if shape in ("circle", "ring"):
        thick = -1 if shape == "circle" else max(2, round(radius * 0.35))
        r = radius if shape == "circle" else radius - thick / 2
        x, y = (round(v * 2**fixed) for v in center)
        cv2.circle(frame, (x, y), round(r * 2**fixed), color, thick, cv2.LINE_AA, fixed)
        return
    if shape == "square":
        points = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * 0.88
    elif shape == "triangle":
        points = np.array([(0, -1), (0.95, 0.8), (-0.95, 0.8)])
    elif shape == "star":
        angles = np.arange(10) * np.pi / 5 - np.pi / 2
        points = np.stack([np.cos(angles), np.sin(angles)], 1) * np.where(np.arange(10) % 2, 0.42, 1.0)[:, None]
    else:
        a = 0.33
        points = np.array(
            [(-a, -1), (a, -1), (a, -a), (1, -a), (1, a), (a, a), (a, 1), (-a, 1), (-a, a), (-1, a), (-1, -a), (-a, -a)]
        )
    pixels = np.round((center + points * radius) * 2**fixed).astype(np.int32)
    cv2.fillPoly(frame, [pixels], color, cv2.LINE_AA, fixed)


def random_scene(rng: np.random.Generator) -> Scene:
    """Sample the description of a scene: one or two shapes of different colors and kinds."""
    count = int(rng.integers(1, 3))
    colors = rng.choice(list(COLORS), count, replace=False)
    shapes = rng.choice(SHAPES, count, replace=False)
    objects = []
    for i in range(count):
        # Of two shapes in a frame, both are small, and each starts and stays in its own half.
        x = rng.uniform(0, 1) if count == 1 else rng.uniform(0, 0.15) + 0.85 * i
        speed = rng.uniform(0.02, 0.25)
        velocity = [(0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)][rng.integers(5 if count == 1 else 3)]
        objects.append(
            ShapeObject(
                shape=str(shapes[i]),
                color=str(colors[i]),
                size="small" if count > 1 else str(rng.choice(("small", "large"))),
                start=(float(x), float(rng.uniform(0, 1))),
                velocity=(velocity[0] * float(speed), velocity[1] * float(speed)),
            )
        )
    return Scene(tuple(objects), str(rng.choice(list(BACKGROUNDS))), float(rng.uniform(1.5, 3.0)))


def write_captions(scenes: Sequence[Scene], count: int, rng: np.random.Generator) -> list[str]:
    """Write distinct captions that describe all scenes in order; at most as many as there are templates.

    Args:
        scenes: The scenes of a video, or the one of an image.
        count: Number of captions.
        rng: Random generator for the wording and for the order of the shapes within a scene.
    """
    texts = []
    for template in rng.permutation(VIDEO_TEMPLATES if len(scenes) > 1 else IMAGE_TEMPLATES)[:count]:
        first, *rest = [scene.describe(rng.permutation(len(scene.objects)).tolist()) for scene in scenes]
        texts.append(str(template).format(first=first, rest=", then ".join(rest)))
    return texts


def write_partial_captions(scenes: Sequence[Scene], rng: np.random.Generator, *, motion: bool) -> list[str]:
    """Write captions as people search: one for each object, and for each scene one of a part of it in more detail.

    Args:
        scenes: The scenes of a video, or the one of an image.
        rng: Random generator for what the detailed captions tell.
        motion: Whether motion can be seen.

    Returns:
        The captions, of which some may be equal.
    """
    texts = [item.describe() for scene in scenes for item in scene.objects]
    for scene in scenes:
        size, moving, background = (rng.random(3) < DETAILED).tolist()
        order = rng.permutation(len(scene.objects))[: rng.integers(1, len(scene.objects) + 1)]
        parts = [scene.objects[i].describe(size=size, motion=moving and motion) for i in order]
        texts.append(" and ".join(parts) + f" on {scene.background}" * background)
    return texts


def random_story(rng: np.random.Generator) -> tuple[Scene, ...]:
    """Sample the description of a video: two or three scenes, no two with the same shapes."""
    scenes: dict[frozenset[str], Scene] = {}
    count = int(rng.choice(SCENES))
    while len(scenes) < count:
        scene = random_scene(rng)
        scenes.setdefault(frozenset(item.describe() for item in scene.objects), scene)
    return tuple(scenes.values())


def write_videos(folder: Path, videos: Mapping[str, tuple[tuple[Scene, ...], tuple[int, int], float]]) -> None:
    """Write videos of scenes, as many at a time as there are processors; the files are those of :func:`write_video`.

    Args:
        folder: The folder to write, which is made if it does not exist.
        videos: By name the scenes, the width and height in pixels, and the frames per second.
    """
    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        written = pool.map(lambda name: write_video(folder / name, *videos[name]), videos)
        for number, _ in enumerate(written, start=1):
            if number % 100 == 0:
                logger.info(f"{folder}: {number}/{len(videos)} videos")


def write_video(path: str | os.PathLike, scenes: tuple[Scene, ...], size: tuple[int, int], fps: float) -> None:
    """Write an H.264 video of scenes, one after another.

    Args:
        path: The file to write.
        scenes: The scenes.
        size: Width and height in pixels, both even.
        fps: Frames per second.
    """
    with av.open(str(path), "w") as container:
        # Without threads and macroblock trees, x264 writes the same frames as the same bytes.
        options = {"crf": "23", "preset": "veryfast", "threads": "1", "mbtree": "0"}
        stream = container.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001), options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = 30  # as is common in web video
        for scene in scenes:
            for i in range(round(scene.seconds * fps)):
                frame = av.VideoFrame.from_ndarray(draw_scene(scene, i / fps, *size), format="rgb24")
                container.mux(stream.encode(frame))
        container.mux(stream.encode())
