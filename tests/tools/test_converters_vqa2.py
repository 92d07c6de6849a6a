"""The converter of VQA 2.0, with Visual Genome's questions: tiny files in the publishers' formats, and files that are wrong."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipbert_mm.errors import AnnotationError

Convert = Callable[..., None]


def read_lines(out: Path, name: str) -> list[dict[str, Any]]:
    """The records of a file that a converter wrote."""
    return [json.loads(line) for line in (out / "annotations" / name).read_text(encoding="utf-8").splitlines()]


def change(path: Path, edit: Callable[[Any], Any]) -> None:
    """Edit a JSON file; an edit that returns something replaces its content."""
    content = json.loads(path.read_text())
    path.write_text(json.dumps(edit(content) or content))


def set_in(*keys: str | int, to: Any) -> Callable[[Any], None]:
    """An edit that sets one value."""

    def edit(content: Any) -> None:
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = to

    return edit


SAID = {
    7000: ["yes"] * 7 + ["No."] * 2 + ["maybe so"],
    7001: ["Two"] * 3 + ["2"] * 3 + ["none"] * 4,
    8000: ["yes"] * 10,
    9000: ["the"] * 6 + ["zebra"] * 4,
}
COMMON = {7000: "yes", 7001: "Two", 8000: "yes", 9000: "the"}
KINDS = {7000: "yes/no", 7001: "number", 8000: "yes/no", 9000: "other"}


@pytest.fixture
def vqa(tmp_path: Path) -> Path:
    """VQA 2.0 of six questions."""
    folder = tmp_path / "vqa"
    folder.mkdir()
    asked = {"train2014": (7000, 7001, 8000), "val2014": (9000,), "test2015": (11000, 12000), "test-dev2015": (12000,)}
    for subset, ids in asked.items():
        shared = dict(info={}, license={}, data_type="mscoco", data_subtype=subset)
        questions = [dict(image_id=i // 1000, question=f"What is {i}?", question_id=i) for i in ids]
        path = folder / f"v2_OpenEnded_mscoco_{subset}_questions.json"
        path.write_text(json.dumps(dict(shared, task_type="Open-Ended", questions=questions)))
        if ids[0] in SAID:
            annotations = [
                dict(
                    question_type="what is",
                    multiple_choice_answer=COMMON[i],
                    answers=[
                        dict(answer=said, answer_confidence="yes", answer_id=j + 1) for j, said in enumerate(SAID[i])
                    ],
                    image_id=i // 1000,
                    answer_type=KINDS[i],
                    question_id=i,
                )
                for i in ids
            ]
            path = folder / f"v2_mscoco_{subset}_annotations.json"
            path.write_text(json.dumps(dict(shared, annotations=annotations)))
    return folder


@pytest.fixture
def genome(tmp_path: Path) -> Path:
    """Visual Genome: images outside COCO, in COCO's images 7 and 9, and in its test image 11."""
    folder = tmp_path / "vg"
    folder.mkdir()
    coco = {1: None, 2: 7, 3: 9, 4: 11}
    url = "https://cs.stanford.edu/people/rak248/VG_100K{}/{}.jpg"
    images = [
        dict(
            image_id=i, url=url.format("_2" if i == 2 else "", i), coco_id=coco_id, flickr_id=400 + i, width=8, height=6
        )
        for i, coco_id in coco.items()
    ]
    (folder / "image_data.json").write_text(json.dumps(images))
    said = {1: ("Yes.", "zebra"), 2: ("Two.",), 3: ("yes",), 4: ("yes",)}
    asked = [
        dict(
            id=i,
            qas=[dict(qa_id=10 * i + j, image_id=i, question=f"Q{j}?", answer=text) for j, text in enumerate(texts)],
        )
        for i, texts in said.items()
    ]
    (folder / "question_answers.json").write_text(json.dumps(asked))
    return folder


@pytest.fixture
def convert_vqa(tool: Callable, vqa: Path, tmp_path: Path) -> Convert:
    main = tool("dataset_converters/vqa2.py").main
    return lambda *options: main([str(vqa), str(tmp_path / "out"), *options])


def test_vqa_is_converted(convert_vqa: Convert, tmp_path: Path, capsys: pytest.CaptureFixture):
    convert_vqa("--min-count", "1")
    out = tmp_path / "out"
    assert json.loads((out / "annotations" / "vqa_answers.json").read_text()) == {"yes": 0, "": 1, "2": 2}
    train = read_lines(out, "vqa_train.jsonl")
    assert train[0] == dict(
        image="train2014/COCO_train2014_000000000007.jpg",
        question="What is 7000?",
        question_id=7000,
        labels={"yes": 1.0},
        answer_type="yes/no",
    )
    assert [(record["labels"], record["answer_type"]) for record in train[1:]] == [
        ({"2": 1.0}, "number"),
        ({"yes": 1.0}, "yes/no"),
    ]
    assert read_lines(out, "vqa_val.jsonl")[0]["labels"] == {"": 1.0}
    image = "test2015/COCO_test2015_000000000012.jpg"
    assert read_lines(out, "vqa_test-dev.jsonl") == [dict(image=image, question="What is 12000?", question_id=12000)]
    assert [record["question_id"] for record in read_lines(out, "vqa_test.jsonl")] == [11000, 12000]
    said = capsys.readouterr().out
    assert "vqa_train.jsonl: train questions: 3 (published: 443,757, so 443,754 are missing)" in said
    assert "vqa_answers.json: answers: 3\n" in said
    assert "val: the best answers of the vocabulary score 100.00%" in said


def test_vqa_scores_and_vocabulary(convert_vqa: Convert, vqa: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    path = vqa / "v2_mscoco_train2014_annotations.json"
    change(path, set_in("annotations", 2, "multiple_choice_answer", to="no"))
    convert_vqa("--no-test", "--min-count", "1")
    labels = [record["labels"] for record in read_lines(tmp_path / "out", "vqa_train.jsonl")]
    assert labels == [{"yes": 1.0, "no": 0.6}, {"2": 1.0}, {"yes": 1.0}]
    convert_vqa("--no-test", "--min-count", "1")  # over what is there
    assert sorted(os.listdir(tmp_path / "out" / "annotations")) == [
        "vqa_answers.json",
        "vqa_train.jsonl",
        "vqa_val.jsonl",
    ]
    # The published limit: an answer of 9 questions is in, of 8 is not.
    counts = {"red": 9, "Blue.": 8}
    words = [word for word, count in counts.items() for _ in range(count)]

    def repeat(key: str) -> Callable[[Any], None]:
        def edit(content: Any) -> None:
            content[key] = [
                content[key][0] | dict(question_id=i, multiple_choice_answer=word) for i, word in enumerate(words)
            ]

        return edit

    change(path, repeat("annotations"))
    change(vqa / "v2_OpenEnded_mscoco_train2014_questions.json", repeat("questions"))
    convert_vqa("--no-test")
    assert json.loads((tmp_path / "out" / "annotations" / "vqa_answers.json").read_text()) == {"red": 0}
    assert all(record["labels"] == {} for record in read_lines(tmp_path / "out", "vqa_train.jsonl"))
    assert "warning: vqa_answers.json: answers: 1 (published: 3,129" in capsys.readouterr().out


def test_vqa_with_visual_genome(convert_vqa: Convert, genome: Path, tmp_path: Path, capsys: pytest.CaptureFixture):
    convert_vqa("--min-count", "1", "--genome", str(genome))
    assert read_lines(tmp_path / "out", "vqa_train.jsonl")[3:] == [
        dict(image="VG_100K/1.jpg", question="Q0?", question_id="vg10", labels={"yes": 1.0}),
        dict(image="VG_100K_2/2.jpg", question="Q0?", question_id="vg20", labels={"2": 1.0}),
    ]
    said = capsys.readouterr().out
    assert "2 of 5 questions are added to vqa_train.jsonl" in said
    assert "2 are left out as VQA validates or tests on their images, 1 for their answers" in said


VQA_TRAIN, GENOME = "v2_mscoco_train2014_annotations.json", "question_answers.json"


@pytest.mark.parametrize(
    ("name", "edit", "message"),
    [
        (
            VQA_TRAIN,
            set_in("data_subtype", to="val2014"),
            r'json: expected the data_subtype "train2014", got \'val2014\'',
        ),
        (
            VQA_TRAIN,
            lambda content: {"questions": []},
            r'a JSON object with "annotations" and "data_subtype", got \[\'questions',
        ),
        (
            VQA_TRAIN,
            lambda content: [1],
            r'expected a JSON object with "annotations" and "data_subtype", got \[1\]',
        ),
        (
            VQA_TRAIN,
            set_in("annotations", 1, "question_id", to=7000),
            r"entry 2: expected each question_id once, got 7000",
        ),
        (
            VQA_TRAIN,
            set_in("annotations", 1, "question_id", to=5),
            r"entry 2: expected a question_id of .*questions\.json, got",
        ),
        (
            VQA_TRAIN,
            set_in("annotations", 1, "question_id", to="7"),
            r'entry 2: expected a whole number under the key "quest',
        ),
        (
            VQA_TRAIN,
            set_in("annotations", 1, "image_id", to=8),
            r"entry 2: expected the image_id of question 7001 in .*, 7, got",
        ),
        (
            VQA_TRAIN,
            set_in("annotations", 0, "answers", to=[{"answer": "a"}] * 9),
            r'entry 1: expected 10 objects with "answer"',
        ),
        (
            VQA_TRAIN,
            set_in("annotations", 0, "answers", 3, to={"said": "a"}),
            r'entry 1: expected 10 objects with "answer"',
        ),
        (
            VQA_TRAIN,
            set_in("annotations", 0, "answer_type", to="what"),
            r"expected an answer_type of yes/no, number, other",
        ),
        (
            VQA_TRAIN,
            lambda content: content["annotations"].pop() and None,
            r"each question of .*, got 'none for question 8000'",
        ),
        (
            "v2_OpenEnded_mscoco_val2014_questions.json",
            set_in("questions", 0, "question", to=" "),
            r"entry 1: expected text under",
        ),
        (
            "v2_OpenEnded_mscoco_test2015_questions.json",
            set_in("questions", 1, "question_id", to=11000),
            r"entry 2: expected each q",
        ),
        (
            GENOME,
            set_in(1, "qas", 0, "qa_id", to=10),
            r"question_answers\.json, entry 2, qas, entry 1: expected each qa_id once",
        ),
        (GENOME, set_in(1, "id", to=77), r"entry 2: expected the id of an image in image_data\.json, got 77"),
        (GENOME, set_in(1, "qas", to=None), r'entry 2: expected a list under the key "qas", got None'),
        (
            GENOME,
            set_in(1, "qas", 0, "answer", to=3),
            r'entry 2, qas, entry 1: expected text under the key "answer", got 3',
        ),
        (
            "image_data.json",
            set_in(1, "url", to="http://a/b.jpg"),
            r"entry 2: expected a url that ends as in VG_100K/1\.jpg",
        ),
        ("image_data.json", set_in(1, "image_id", to=1), r"entry 2: expected each image_id once, got 1 again"),
        (
            "image_data.json",
            lambda content: content[1].pop("coco_id") and None,
            r'entry 2: expected the key "coco_id", got',
        ),
    ],
)
def test_vqa_files_that_are_wrong_are_named(
    convert_vqa: Convert, vqa: Path, genome: Path, tmp_path: Path, name: str, edit: Callable, message: str
):
    folder = vqa if name.startswith("v2") else genome
    change(folder / name, edit)
    with pytest.raises(AnnotationError, match=message):
        convert_vqa("--min-count", "1", "--genome", str(genome))
    assert not (tmp_path / "out").exists()


def test_vqa_files_that_are_no_json_and_options_that_are_wrong(convert_vqa: Convert, vqa: Path, tmp_path: Path):
    with pytest.raises(
        AnnotationError, match=r"--min-count: expected a number that at least one answer reaches, got 9"
    ):
        convert_vqa()
    with pytest.raises(AnnotationError, match="Nothing is written because of --strict"):
        convert_vqa("--strict", "--min-count", "1")
    with pytest.raises(SystemExit):
        convert_vqa("--no-test", "--genome", str(tmp_path))
    path = vqa / VQA_TRAIN
    for content, message in (
        (b'{"a":\n1', "line 2: expected JSON"),
        (b'{\n"a": "\xe9"}', "line 2: expected UTF-8, got"),
    ):
        path.write_bytes(content)
        with pytest.raises(AnnotationError, match=rf"v2_mscoco_train2014_annotations\.json, {message}"):
            convert_vqa()
    path.unlink()
    with pytest.raises(AnnotationError, match=r"There is no file .*v2_mscoco_train2014_annotations\.json"):
        convert_vqa()
    assert not (tmp_path / "out").exists()
