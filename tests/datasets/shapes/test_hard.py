"""The hard Shapes world: what its videos show is what captions and questions say, and one frame does not tell motion."""

import json
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import cv2
import numpy as np
import pytest

from clipbert_mm.datasets.shapes.hard import FRAME_SIZES, HARD_ANSWERS, HardShapesWorld, fast_scene
from clipbert_mm.datasets.shapes.scenes import BACKGROUNDS, COLORS, SHAPES, Scene, ShapeObject, draw_scene

WORDS = {"still": "standing still", "sideways": "moving sideways", "vertical": "moving up and down"}


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def hard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hard") / "world"
    HardShapesWorld(seed=5, images=30, test_images=6, train_videos=8, test_videos=12, test_captions=2).write(folder)
    return folder


@pytest.fixture(scope="module")
def stories(hard: Path) -> dict[str, list[dict[str, Any]]]:
    """The scenes of each video, with the motion of each shape as its velocity says."""
    videos = json.loads((hard / "world.json").read_text())["videos"]
    found = videos["train"] | videos["test"]
    for scene in (scene for scenes in found.values() for scene in scenes):
        for item in scene["objects"]:
            item["motion"] = "sideways" if item["velocity"][0] else "vertical" if item["velocity"][1] else "still"
    return found


def looks_like(patch: np.ndarray, color: str, background: str) -> str:
    """The kind of the shape in the middle of a patch: that of the nearest drawing."""
    height, width = patch.shape[:2]
    distances = {}
    for shape in SHAPES:
        item = ShapeObject(shape, color, "little", (0.5, 0.5), (0.0, 0.0))
        drawn = draw_scene(Scene((item,), background, 1.0), 0.0, 72, 72)
        top = 36 - height // 2
        part = drawn[top : top + height, top : top + width].astype(int)
        shifts = [np.roll(part, shift, (0, 1)) for shift in np.ndindex(5, 5)]
        distances[shape] = min(np.abs(np.roll(part, (-2, -2), (0, 1)) - patch).mean() for part in shifts)
    return min(distances, key=distances.get)


def test_frames_show_the_color_kind_and_motion_that_are_told(
    hard: Path, stories: dict[str, list[dict[str, Any]]], decode_with_pyav: Callable[[Path], np.ndarray]
):
    motions, kinds, seen = [], [], 0
    for name in sorted(stories)[:9]:
        frames = decode_with_pyav(hard / "videos" / name).astype(np.int16)
        assert frames.shape[1:3] in {(height, width) for width, height in FRAME_SIZES}
        # The cuts are where the frame rate, one of three, puts them.
        fps = next(
            rate
            for rate in (15, 16, 20)
            if sum(round(scene["seconds"] * rate) for scene in stories[name]) == len(frames)
        )
        end = 0
        for scene in stories[name]:
            start, end = end, end + round(scene["seconds"] * fps)
            if len(scene["objects"]) > 1:  # shapes may hide each other
                continue
            (item,) = scene["objects"]
            grays = ([gray] * 3 for gray in BACKGROUNDS.values())
            palette = np.array([*COLORS.values(), *grays], np.int16)
            nearest = np.abs(frames[start:end, ..., None, :] - palette).sum(axis=-1).argmin(axis=-1)
            masks = nearest == list(COLORS).index(item["color"])
            areas = masks.sum(axis=(1, 2))
            assert (areas > 60).all(), f"{item['color']} shows in each frame of {name}"
            centers = np.array([np.argwhere(mask).mean(axis=0) for mask in masks])  # (frames, 2), row and column
            rows, columns = np.ptp(centers, axis=0)
            looked = "sideways" if columns > 12 else "vertical" if rows > 12 else "still"
            assert min(rows, columns) < 6
            motions.append((looked, item["motion"]))
            row, column = np.clip(centers[0].round().astype(int), 14, np.array(frames.shape[1:3]) - 14)
            # Where a shape touches the edge, its drawing is compared only as far as the patch can be moved.
            if (np.abs(centers[0] - (row, column)) < 2).all():
                patch = frames[start, row - 14 : row + 14, column - 14 : column + 14]
                kinds.append((looks_like(patch, item["color"], scene["background"]), item["shape"]))
            seen += 1
    assert seen > 8
    assert all(looked == told for looked, told in motions)
    assert len(kinds) > 5
    assert all(looked == told for looked, told in kinds)


def test_one_frame_does_not_tell_how_a_shape_moves():
    rng = np.random.default_rng(0)
    places: dict[str, list[np.ndarray]] = {"still": [], "sideways": [], "vertical": []}
    while min(map(len, places.values())) < 700:
        scene = fast_scene(rng, (96, 72))
        if len(scene.objects) > 1:
            continue
        (item,) = scene.objects
        frame = draw_scene(scene, float(rng.uniform(0, scene.seconds)), 96, 72).astype(int)
        shown = np.argwhere(np.abs(frame - BACKGROUNDS[scene.background]).sum(axis=2) > 60)
        key = "sideways" if item.velocity[0] else "vertical" if item.velocity[1] else "still"
        places[key].append(shown.mean(axis=0))
    deciles = {key: np.quantile(found, np.arange(1, 10) / 10, axis=0) for key, found in places.items()}
    for key in ("sideways", "vertical"):
        # The largest of 18 differences; one has a standard error of about 1.2 columns.
        assert np.abs(deciles[key] - deciles["still"]).max() < 5


@pytest.mark.parametrize("split", ["train", "test"])
def test_captions_name_a_shape_of_every_scene_in_order(hard: Path, stories: dict, split: str):
    told = read(hard / f"{split}.jsonl")
    assert Counter(record["video"] for record in told) == {
        name: 3 if split == "train" else 2 for name in stories if name.startswith(split)
    }
    for record in told:
        scenes = stories[record["video"]]
        assert len(scenes) in (2, 3)
        phrases = record["caption"].removeprefix("the video shows ").removeprefix("first ").split(", then ")
        for phrase, scene in zip(phrases, scenes, strict=True):
            assert re.sub("^an? ", "", phrase) in {
                f"{item['color']} {item['shape']} {WORDS[item['motion']]}" for item in scene["objects"]
            }


@pytest.mark.parametrize("split", ["train", "test"])
def test_questions_have_one_right_answer(hard: Path, stories: dict, split: str):
    asked = read(hard / f"qa_{split}.jsonl")
    assert {record["answer_type"] for record in asked} == {"color", "kind", "motion"}
    assert json.loads((hard / "answers.json").read_text()) == HARD_ANSWERS
    parts = dict(color="color", kind="shape", motion="motion")
    for record in asked:
        items = [item for scene in stories[record["video"]] for item in scene["objects"]]
        named = set(record["question"].split()) & {*COLORS, *SHAPES}
        fitting = [item for item in items if named <= {item["color"], item["shape"]}]
        assert len(fitting) == 1
        assert fitting[0][parts[record["answer_type"]]] == record["answer"]
    assert Counter(record["video"] for record in asked).most_common(1)[0][1] <= 3


def test_a_choice_has_one_caption_of_the_video(hard: Path):
    own: dict[str, set[str]] = {}
    for record in read(hard / "test.jsonl"):
        own.setdefault(record["video"], set()).add(record["caption"])
    choices = read(hard / "choice_test.jsonl")
    assert [record["video"] for record in choices] == list(own)
    for record in choices:
        assert len(set(record["options"])) == 10
        assert [option in own[record["video"]] for option in record["options"]].index(True) == record["answer"]
        assert sum(option in own[record["video"]] for option in record["options"]) == 1
    assert len({record["answer"] for record in choices}) > 1


def test_what_is_held_out_is_not_trained_on(hard: Path, stories: dict, tmp_path: Path):
    train, test = (
        {json.dumps(scene) for name, scenes in stories.items() if name.startswith(split) for scene in scenes}
        for split in ("train", "test")
    )
    assert train
    assert test
    assert not train & test
    images = [path.read_bytes() for path in (hard / "images").glob("[0-9t]*.jpg")]
    assert len(set(images)) == len(images) == 36
    HardShapesWorld(seed=6, images=1, test_images=1, train_videos=1, test_videos=12).write(tmp_path / "other")
    other = json.loads((tmp_path / "other" / "world.json").read_text())["videos"]
    assert not test & {json.dumps(scene) for scenes in other["train"].values() for scene in scenes}


def test_text_alone_stands_beside_black_pictures(hard: Path):
    texts, captions = read(hard / "text.jsonl"), read(hard / "pretrain.jsonl")
    assert [record["caption"] for record in texts] == [record["caption"] for record in captions]
    for name in {record["image"] for record in texts}:
        assert not cv2.imread(str(hard / "images" / name)).any()


def test_the_tool_writes_it(tool: Callable[[str], ModuleType], tmp_path: Path, capsys: pytest.CaptureFixture):
    main = tool("dataset_converters/shapes.py").main
    sizes = ["--images", "2", "--test-images", "1", "--train-videos", "1", "--test-videos", "3", "--options", "2"]
    main([str(tmp_path / "a"), "--hard", *sizes])
    settings = json.loads((tmp_path / "a" / "world.json").read_text())["settings"]
    assert settings["most_scenes"] == 3
    assert settings["train_videos"] == 1
    main([str(tmp_path / "a"), "--hard", *sizes])
    assert "holds this very world already" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main([str(tmp_path / "b"), *sizes])
    assert "--options needs --hard" in capsys.readouterr().err
