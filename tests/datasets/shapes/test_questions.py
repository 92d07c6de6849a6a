"""Questions about the Shapes world agree with what is drawn."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipbert_mm.datasets.shapes.questions import ANSWERS, multiple_choice, open_ended, order
from clipbert_mm.datasets.shapes.scenes import random_story


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def named(scene: dict[str, Any]) -> list[str]:
    """The shapes of a scene of world.json, as captions name them."""
    article = {color: "an" if color == "orange" else "a" for color in ANSWERS}
    return [f"{article[item['color']]} {item['color']} {item['shape']}" for item in scene["objects"]]


@pytest.fixture(scope="module", params=["train", "test"])
def split(request: pytest.FixtureRequest, world: Path) -> tuple[str, dict[str, list[dict[str, Any]]]]:
    """A split and the scenes of its videos."""
    return request.param, json.loads((world / "world.json").read_text())["videos"][request.param]


def test_open_ended_questions_have_one_right_answer(world: Path, split: tuple):
    name, stories = split
    asked = read(world / f"qa_{name}.jsonl")
    assert {record["answer_type"] for record in asked} == {"color", "shape"}
    for record in asked:
        words = [(item["color"], item["shape"]) for scene in stories[record["video"]] for item in scene["objects"]]
        (what,) = [word for pair in words for word in pair if f" {word} " in f"{record['question']} "] or [None]
        fitting = [pair for pair in words if what in pair]
        assert len(fitting) == 1
        assert set(fitting[0]) == {what, record["answer"]}
        assert record["answer"] in ANSWERS


def test_choices_name_one_shape_of_the_video(world: Path, split: tuple):
    name, stories = split
    for record in read(world / f"choice_{name}.jsonl"):
        there = [phrase for scene in stories[record["video"]] for phrase in named(scene)]
        assert len(set(record["options"])) == 5
        assert [option in there for option in record["options"]].index(True) == record["answer"]
        assert sum(option in there for option in record["options"]) == 1


def test_what_comes_after_is_in_the_next_scene(world: Path, split: tuple):
    name, stories = split
    for record in read(world / f"order_{name}.jsonl"):
        scenes = [named(scene) for scene in stories[record["video"]]]
        one = record["question"].removeprefix("what follows ")
        right = record["options"][record["answer"]]
        assert any(one in scenes[i] and right in scenes[i + 1] for i in range(len(scenes) - 1))
        assert len(set(record["options"])) == 5
        assert one not in record["options"]


def test_counts_and_paragraphs_tell_every_shape(world: Path, split: tuple):
    name, stories = split
    for counted, told in zip(read(world / f"count_{name}.jsonl"), read(world / f"paragraph_{name}.jsonl"), strict=True):
        scenes = stories[counted["video"]]
        assert counted["count"] == sum(len(scene["objects"]) for scene in scenes)
        assert told["video"] == counted["video"]
        assert told["caption"].count(" on ") == len(scenes)
        assert all(item["shape"] in told["caption"] for scene in scenes for item in scene["objects"])


def test_image_questions_hold_a_tenth_of_the_images_out(world: Path):
    train, test = read(world / "image_qa_train.jsonl"), read(world / "image_qa_test.jsonl")
    captions: dict[str, str] = {}
    for record in read(world / "pretrain.jsonl"):
        captions[record["image"]] = record["caption"]
    assert {record["image"] for record in test} == set(list(captions)[36:])
    assert not {record["image"] for record in test} & {record["image"] for record in train}
    for record in train + test:
        assert record["labels"] == {record["answer"]: 1.0}
        assert record["answer"] in captions[record["image"]]
    assert json.loads((world / "answers.json").read_text()) == ANSWERS


def test_right_options_stand_anywhere():
    rng = np.random.default_rng(0)
    stories = [random_story(rng) for _ in range(300)]
    for kind in (multiple_choice, order):
        places = Counter(asked["answer"] for scenes in stories if (asked := kind(scenes, rng)) is not None)
        assert set(places) == set(range(5))
        assert max(places.values()) < 90, "a fifth of 300, and chance"
    assert max(Counter(q["answer"] for s in stories for q in open_ended(s, 4, rng)).values()) < 0.2 * 4 * 300


@pytest.mark.parametrize(("split", "captions"), [("train", "pretrain"), ("test", "pretrain_test")])
def test_object_labels_are_the_words_of_the_captions(world: Path, split: str, captions: str):
    labels = json.loads((world / f"objects_{split}.json").read_text())
    classes = labels["metainfo"]["classes"]
    assert {name: place for place, name in enumerate(classes)} == ANSWERS
    told = {
        record["image"]: set(record["caption"].split()) & set(ANSWERS) for record in read(world / f"{captions}.jsonl")
    }
    assert {item["img_path"]: {classes[label] for label in item["gt_label"]} for item in labels["data_list"]} == told
