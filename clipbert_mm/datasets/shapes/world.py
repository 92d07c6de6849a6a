"""ShapesWorld, which writes the folder of the Shapes world: images, videos, captions, questions and object labels."""

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from clipbert_mm.datasets.shapes.queries import write_queries
from clipbert_mm.datasets.shapes.questions import write_image_questions, write_object_labels, write_video_questions
from clipbert_mm.datasets.shapes.scenes import (
    FRAME_RATES,
    FRAME_SIZES,
    Scene,
    draw_scene,
    random_scene,
    random_story,
    write_captions,
    write_partial_captions,
    write_videos,
)
from clipbert_mm.fileio import atomic_path
from clipbert_mm.log import logger

VERSION = 7
"""Version of the generator; it is raised whenever the same seed gives other files."""


@dataclass(frozen=True, kw_only=True)
class ShapesWorld:
    """Settings of a Shapes world, and how to write it.

    Args:
        seed: The same seed and sizes give the same files, byte for byte.
        images: Images for pre-training.
        test_images: Held-out images.
        train_videos: Videos for training.
        test_videos: Held-out videos.
        image_captions: Captions per image that tell all of it.
        train_captions: Captions per training video that tell all of it.
        test_captions: Captions per held-out video, each of which tells all of it.
        partial_captions: Whether images and training videos have captions of their single objects and scenes too, as people
            search; see :func:`~clipbert_mm.datasets.shapes.scenes.write_partial_captions`.
    """

    seed: int = 0
    images: int = 4000
    test_images: int = 200
    train_videos: int = 400
    test_videos: int = 100
    image_captions: int = 2
    train_captions: int = 3
    test_captions: int = 1
    partial_captions: bool = True

    def write(self, folder: str | os.PathLike) -> bool:
        """Write the world, completely or not at all. A folder that already has a world of these settings is kept.

        The folder gets ``images/``, ``videos/``, the captions ``pretrain.jsonl``, ``pretrain_test.jsonl``, ``train.jsonl`` and
        ``test.jsonl``, the short queries for the held-out videos ``queries.jsonl``, the questions and object labels of
        :mod:`~clipbert_mm.datasets.shapes.questions`, and ``world.json`` with these settings and the description of every
        video's scenes.

        Args:
            folder: The folder to write.

        Returns:
            Whether anything was written.

        Raises:
            FileExistsError: If the folder exists and has other content.
        """
        folder = Path(folder)
        settings = asdict(self) | {"version": VERSION}
        if folder.exists():
            manifest = folder / "world.json"
            if manifest.is_file() and json.loads(manifest.read_text())["settings"] == settings:
                return False
            raise FileExistsError(
                f"{folder} exists and is not the Shapes world {settings}. Move it away or choose another folder."
            )
        with atomic_path(folder, folder=True) as part:
            self._write_all(part, settings)
        logger.info(
            f"Wrote {self.images + self.test_images} images and {self.train_videos + self.test_videos} videos to {folder}."
        )
        return True

    def _write_all(self, folder: Path, settings: dict[str, Any]) -> None:
        # Questions and partial captions have random generators of their own, so that what is shown does not depend on them.
        images = self._write_images(folder, "pretrain", self.images, "", 0)
        write_image_questions(folder, images, np.random.default_rng((self.seed, 3)))
        held_out = self._write_images(folder, "pretrain_test", self.test_images, "test_", 6)
        for split, scenes in (("train", images), ("test", held_out)):
            write_object_labels(folder, split, scenes)
        described = {}
        for number, split in enumerate(("train", "test"), start=4):
            count, captions = getattr(self, f"{split}_videos"), getattr(self, f"{split}_captions")
            stories, rates = self._write_videos(folder, split, count, captions)
            if split == "test":
                write_queries(folder, stories, rates)
            write_video_questions(folder, split, stories, np.random.default_rng((self.seed, number)))
            described[split] = {name: [asdict(scene) for scene in scenes] for name, scenes in stories.items()}
        (folder / "world.json").write_text(json.dumps({"settings": settings, "videos": described}))

    def _write_images(self, folder: Path, split: str, count: int, prefix: str, stream: int) -> dict[str, Scene]:
        (folder / "images").mkdir(exist_ok=True)
        rng, partial_rng = (np.random.default_rng((self.seed, each)) for each in (stream, stream + 7))
        scenes = {}
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as lines:
            for i in range(count):
                scene, size = random_scene(rng), FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
                frame = draw_scene(scene, rng.uniform(0, scene.seconds), *size)
                name = f"{prefix}{i:05d}.jpg"
                scenes[name] = scene
                cv2.imwrite(str(folder / "images" / name), frame[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
                texts = write_captions((scene,), self.image_captions, rng)
                if self.partial_captions:
                    texts = _with_partial_captions(texts, (scene,), partial_rng)
                for text in texts:
                    lines.write(json.dumps({"image": name, "caption": text}) + "\n")
        return scenes

    def _write_videos(
        self, folder: Path, split: str, count: int, captions: int
    ) -> tuple[dict[str, tuple[Scene, ...]], dict[str, float]]:
        """Write videos and their captions; returns the scenes and the frame rate of each video."""
        rng = np.random.default_rng((self.seed, 1 if split == "train" else 2))
        partial_rng = np.random.default_rng((self.seed, 8))
        videos = {}
        with open(folder / f"{split}.jsonl", "w", encoding="utf-8") as lines:
            for i in range(count):
                scenes, size = random_story(rng), FRAME_SIZES[rng.integers(len(FRAME_SIZES))]
                name = f"{split}_{i:05d}.mp4"
                videos[name] = scenes, size, float(rng.choice(FRAME_RATES))
                texts = write_captions(scenes, captions, rng)
                if self.partial_captions and split == "train":
                    texts = _with_partial_captions(texts, scenes, partial_rng)
                for text in texts:
                    lines.write(json.dumps({"video": name, "caption": text}) + "\n")
        write_videos(folder / "videos", videos)
        return {name: scenes for name, (scenes, _, _) in videos.items()}, {
            name: fps for name, (_, _, fps) in videos.items()
        }


def _with_partial_captions(texts: list[str], scenes: tuple[Scene, ...], rng: np.random.Generator) -> list[str]:
    """Add partial captions of the scenes of a video or an image, in random order: captions of one item see the same clips."""
    texts = list(dict.fromkeys(texts + write_partial_captions(scenes, rng, motion=len(scenes) > 1)))
    return [texts[i] for i in rng.permutation(len(texts))]
