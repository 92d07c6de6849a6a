"""Questions: what an item holds, answers outside the vocabulary, and files that cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from clipbert_mm.datasets import OpenEndedDataset
from clipbert_mm.datasets.annotations import AnnotationError
from clipbert_mm.registry import DATASETS
from clipbert_mm.structures import IGNORED

ASKED = [
    ("train_00000.mp4", "how many shapes?", "two"),
    ("train_00001.mp4", "what is red?", "circle"),
    ("train_00000.mp4", "what is blue?", "zebra"),
    ("train_00000.mp4", "what is green?", "circle"),
]


@pytest.fixture
def folder(own_world: Path) -> Path:
    """The small world with four questions, of whose answers two are in the vocabulary."""
    lines = [json.dumps(dict(video=video, question=question, answer=answer)) for video, question, answer in ASKED]
    (own_world / "qa.jsonl").write_text("\n".join(lines))
    (own_world / "answers.json").write_text(json.dumps({"circle": 1, "two": 0}))
    return own_world


def questions(folder: Path, **options: Any) -> OpenEndedDataset:
    """The dataset of these questions."""
    named = dict(data_root=str(folder), ann_file="qa.jsonl", answer_file="answers.json", media_folder="videos")
    return OpenEndedDataset(**(named | dict(pipeline=[]) | options))


def test_training_has_a_question_an_item_and_leaves_out_what_cannot_be_learnt(folder: Path):
    dataset = questions(folder)
    items = [dataset.prepare(i, np.random.default_rng(0)) for i in range(len(dataset))]
    found = [(Path(item["path"]).name, *item["texts"], *item["answer_labels"]) for item in items]
    assert found == [
        ("train_00000.mp4", "how many shapes?", 0),
        ("train_00001.mp4", "what is red?", 1),
        ("train_00000.mp4", "what is green?", 1),
    ]


def test_testing_has_a_video_an_item_and_keeps_every_question(folder: Path):
    items = [questions(folder, test_mode=True).prepare_test(i) for i in range(2)]
    assert [item["texts"] for item in items] == [
        ["how many shapes?", "what is blue?", "what is green?"],
        ["what is red?"],
    ]
    assert [item["answer_labels"].tolist() for item in items] == [[0, IGNORED, 1], [1]]


def test_an_item_reaches_the_model_with_its_labels(folder: Path, tokenizer: str):
    pipeline = [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=2, num_frames=1, mode="random"),
        dict(type="DecodeClips"),
        dict(type="ResizePad", size=32),
        dict(type="Tokenize", tokenizer=tokenizer, max_length=40),
        dict(type="PackInputs"),
    ]
    item = questions(folder, pipeline=pipeline)[1]
    assert item["inputs"]["frames"].shape == (2, 1, 32, 32, 3)
    assert item["data_samples"].texts == ["what is red?"]
    np.testing.assert_array_equal(item["data_samples"].answer_labels, [1])


@pytest.mark.parametrize(
    ("vocabulary", "message"),
    [
        ("not json", r"answers\.json: expected a JSON object such as .*, got Expecting value"),
        ("[1, 2]", r"answers\.json: expected a JSON object such as .* each once"),
        ('{"circle": 1, "two": 2}', r"numbers are 0 to the number of answers - 1, each once"),
        ('{"circle": 0, "two": 0}', r"each once"),
        ('{"circle": "0", "two": 1}', r"each once"),
        ('{"zebroid": 0}', r"qa\.jsonl: no answer is in the vocabulary of 1, the first is 'two'\. Set answer_file"),
    ],
)
def test_a_vocabulary_that_cannot_be_used_is_named(folder: Path, vocabulary: str, message: str):
    (folder / "answers.json").write_text(vocabulary)
    with pytest.raises(AnnotationError, match=message):
        questions(folder)


def test_missing_files_are_named(folder: Path):
    with pytest.raises(AnnotationError, match=r"There is no answer vocabulary .*nowhere\.json\. Set answer_file"):
        questions(folder, answer_file="nowhere.json")
    (folder / "videos" / "train_00001.mp4").unlink()
    with pytest.raises(AnnotationError, match=r"1 of 2 files named in .*qa\.jsonl are missing"):
        questions(folder)


def test_a_misspelt_option_is_refused(folder: Path):
    config = dict(type="OpenEndedDataset", ann_file="qa.jsonl", answer_file="answers.json", data_root=str(folder))
    with pytest.raises(TypeError, match="unexpected keyword argument 'media_fold'"):
        DATASETS.build(config | dict(pipeline=[], media_fold="videos"))
