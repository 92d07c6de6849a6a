"""HardShapesWorld: small shapes that move fast, in several scenes, for the twins of the paper's tables.

Kinds of shapes are a matter of pixels, motion of several frames, and most of a video is outside of any one clip. See
docs/shapes_twins.md.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clipbert_mm.datasets.shapes.questions import ANSWERS, write_object_labels
from clipbert_mm.datasets.shapes.scenes import (
    BACKGROUNDS,
    COLORS,
    SHAPES,
    VIDEO_TEMPLATES,
    Scene,
    ShapeObject,
    draw_scene,
    write_captions,
    write_videos,
)
from clipbert_mm.datasets.shapes.world import ShapesWorld
from clipbert_mm.json_text import write_records

FRAME_SIZES = ((96, 72), (72, 96))
"""(width, height) in pixels. A little shape is about 21 pixels wide in them, a tiny one 14."""
IMAGE_SIZES = ("little", "tiny")
"""Sizes of shapes in images; in videos all are little. At L = 64 they are as large as tiny ones are at the images' own size."""
FRAME_RATES = (15, 16, 20)
SECONDS = (1.5, 2.5)
"""Shortest and longest scene."""
SPEEDS = (48.0, 66.0)
"""Least and most speed of a shape that moves, in pixels per second; 24 to 33 pixels between the two frames of a clip."""
MOTIONS = {"standing still": "still", "moving sideways": "sideways", "moving up and down": "vertical"}
"""Answers to how a shape moves, by the words of captions."""
HARD_ANSWERS = ANSWERS | {answer: len(ANSWERS) + i for i, answer in enumerate(MOTIONS.values())}
"""Vocabulary of open-ended questions."""


@dataclass(frozen=True, kw_only=True)
class HardShapesWorld(ShapesWorld):
    """Settings of a hard Shapes world, and how to write it.

    The folder gets images and videos as :class:`~clipbert_mm.datasets.shapes.world.ShapesWorld` writes them; for each split
    of the videos captions, which name color, kind and motion of one shape of every scene, and open-ended questions for them;
    ``choice_test.jsonl``, captions to choose from for each held-out video; object labels of the images; and ``text.jsonl``,
    the captions of the images on two black pictures, to train on text alone.

    Args:
        fewest_scenes: Least scenes of a video.
        most_scenes: Most scenes of a video.
        options: Captions to choose from, one of the video and those of others.
        questions: Most questions for each video.
    """

    images: int = 3000
    test_images: int = 300
    train_videos: int = 300
    test_videos: int = 500
    partial_captions: bool = False
    fewest_scenes: int = 2
    most_scenes: int = 3
    options: int = 10
    questions: int = 3

    def _write_all(self, folder: Path, settings: dict[str, Any]) -> None:
        described = {}
        for split, prefix, count in (("train", "", self.images), ("test", "test_", self.test_images)):
            rng = np.random.default_rng((self.seed, 10, split == "test"))
            scenes = self._write_hard_images(folder, prefix, count, rng)
            write_object_labels(folder, split, scenes)
            captions = [
                dict(image=name, caption=text)
                for name, scene in scenes.items()
                for text in write_captions((scene,), self.image_captions, rng)
            ]
            write_records(captions, folder / ("pretrain.jsonl" if split == "train" else "pretrain_test.jsonl"))
            if split == "train":
                _write_text_alone(folder, [record["caption"] for record in captions])
        for split, count, captions_each in (
            ("train", self.train_videos, self.train_captions),
            ("test", self.test_videos, self.test_captions),
        ):
            rng = np.random.default_rng((self.seed, 11, split == "test"))
            stories = self._write_hard_videos(folder, split, count, rng)
            told = {name: moving_captions(scenes, captions_each, rng) for name, scenes in stories.items()}
            write_records(
                [dict(video=name, caption=text) for name, texts in told.items() for text in texts],
                folder / f"{split}.jsonl",
            )
            asked = [
                dict(video=name, **question)
                for name, scenes in stories.items()
                for question in questions_about(scenes, self.questions, rng)
            ]
            write_records(asked, folder / f"qa_{split}.jsonl")
            if split == "test":
                first = {name: texts[0] for name, texts in told.items()}
                write_records(choices_among(first, self.options, rng), folder / "choice_test.jsonl")
            described[split] = {name: [asdict(scene) for scene in scenes] for name, scenes in stories.items()}
        (folder / "answers.json").write_text(json.dumps(HARD_ANSWERS))
        (folder / "world.json").write_text(json.dumps({"settings": settings, "videos": described}))

    def _write_hard_images(self, folder: Path, prefix: str, count: int, rng: np.random.Generator) -> dict[str, Scene]:
        (folder / "images").mkdir(exist_ok=True)
        scenes = {}
        for i in range(count):
            size = FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
            scene = fast_scene(rng, size, IMAGE_SIZES)
            name = f"{prefix}{i:05d}.jpg"
            scenes[name] = scene
            frame = draw_scene(scene, 0.0, *size)
            cv2.imwrite(str(folder / "images" / name), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        return scenes

    def _write_hard_videos(
        self, folder: Path, split: str, count: int, rng: np.random.Generator
    ) -> dict[str, tuple[Scene, ...]]:
        videos = {}
        for i in range(count):
            size = FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
            number = int(rng.integers(self.fewest_scenes, self.most_scenes + 1))
            scenes = tuple(fast_scene(rng, size) for _ in range(number))
            videos[f"{split}_{i:05d}.mp4"] = scenes, size, float(rng.choice(FRAME_RATES))
        write_videos(folder / "videos", videos)
        return {name: scenes for name, (scenes, _, _) in videos.items()}


def fast_scene(rng: np.random.Generator, size: tuple[int, int], sizes: Sequence[str] = ("little",)) -> Scene:
    """Sample a scene of one or two small shapes, each still, moving sideways, or moving up and down.

    Where a shape is at any time has the same distribution whichever way it moves, so that one frame does not tell.

    Args:
        rng: Random generator.
        size: Width and height of the frame in pixels.
        sizes: Sizes that a shape may have.
    """
    count = int(rng.integers(1, 3))
    colors = rng.choice(list(COLORS), count, replace=False)
    shapes = rng.choice(SHAPES, count, replace=False)
    objects = []
    for color, shape in zip(colors, shapes, strict=True):
        way = int(rng.integers(3))
        speed = float(rng.uniform(*SPEEDS)) * (1 if rng.integers(2) else -1)
        velocity = (speed / size[0] if way == 1 else 0.0, speed / size[1] if way == 2 else 0.0)
        start = (float(rng.uniform()), float(rng.uniform()))
        objects.append(ShapeObject(str(shape), str(color), str(rng.choice(sizes)), start, velocity))
    return Scene(tuple(objects), str(rng.choice(list(BACKGROUNDS))), float(rng.uniform(*SECONDS)))


def moving_captions(scenes: Sequence[Scene], count: int, rng: np.random.Generator) -> list[str]:
    """Write captions that name one shape of every scene, with its motion; at most as many as there are templates."""
    texts = []
    for template in rng.permutation(VIDEO_TEMPLATES)[:count]:
        first, *rest = [scene.objects[rng.integers(len(scene.objects))].describe(motion=True) for scene in scenes]
        texts.append(str(template).format(first=first, rest=", then ".join(rest)))
    return texts


def questions_about(scenes: Sequence[Scene], count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Ask for color, kind and motion of shapes that what is said of them tells from all others; at most ``count`` questions.

    A type is drawn first and then a shape, so that there are about as many questions of each type.
    """
    items = [item for scene in scenes for item in scene.objects]
    colors, shapes = Counter(item.color for item in items), Counter(item.shape for item in items)
    pairs = Counter((item.color, item.shape) for item in items)
    kinds: list[list[dict[str, Any]]] = [
        [
            dict(question=f"what color is the {item.shape}", answer=item.color, answer_type="color")
            for item in items
            if shapes[item.shape] == 1
        ],
        [
            dict(question=f"which shape is {item.color}", answer=item.shape, answer_type="kind")
            for item in items
            if colors[item.color] == 1
        ],
        [
            dict(question=f"how does the {item.color} {item.shape} move", answer=motion_of(item), answer_type="motion")
            for item in items
            if pairs[item.color, item.shape] == 1
        ],
    ]
    asked: list[dict[str, Any]] = []
    for kind in (kinds[i] for i in rng.permutation(np.arange(count) % 3)):
        if kind:
            asked.append(kind.pop(int(rng.integers(len(kind)))))
    return asked


def motion_of(item: ShapeObject) -> str:
    """Return the answer to how a shape moves.

    >>> motion_of(ShapeObject("star", "red", "tiny", (0.5, 0.5), (0.6, 0.0)))
    'sideways'
    """
    words = item.describe(motion=True).removeprefix(item.describe()).strip()
    return MOTIONS[words]


def choices_among(captions: Mapping[str, str], count: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Make a choice of captions for each video: its own and those of ``count`` - 1 other videos, all different.

    Args:
        captions: One caption of each video.
        count: Options of a choice.
        rng: Random generator.
    """
    records = []
    for name, own in captions.items():
        others = [text for text in dict.fromkeys(captions.values()) if text != own]
        options = [others[i] for i in rng.choice(len(others), count - 1, replace=False)]
        place = int(rng.integers(count))
        records.append(dict(video=name, options=[*options[:place], own, *options[place:]], answer=place))
    return records


def _write_text_alone(folder: Path, texts: Sequence[str]) -> None:
    # Two pictures, because a caption that does not match is drawn from another file.
    for i in range(2):
        cv2.imwrite(str(folder / "images" / f"black_{i}.jpg"), np.zeros((72, 96, 3), np.uint8))
    write_records(
        [dict(image=f"black_{i % 2}.jpg", caption=text) for i, text in enumerate(texts)], folder / "text.jsonl"
    )
