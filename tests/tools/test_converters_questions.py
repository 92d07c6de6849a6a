"""The converter of TGIF-QA: tiny tables in the publisher's format, and tables that are wrong."""

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


OPTIONS = "sit\trun\tjump\tsleep\twave"
TGIF = {
    "Train_action": [
        "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id\tkey",
        f"cat\tWhat 2 times ?\t{OPTIONS}\t4\tACTION1\t26",
    ],
    "Test_action": [
        "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id\tkey",
        f"dog\tWhat 3 times ?\t{OPTIONS}\t0\tACTION4\t52",
        'ox\t"A ""mad"" ox ?"\tsit\t"big" run\tc\td\te\t1\tACTION9\t53',
    ],
    "Train_transition": [
        "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id\tkey",
        f"cat\tWhat after ?\t{OPTIONS}\t1\tTRANS1\t2",
    ],
    "Test_transition": [
        "gif_name\tquestion\ta1\ta2\ta3\ta4\ta5\tanswer\tvid_id\tkey",
        f"dog\tBefore ?\t{OPTIONS}\t2\tTRANS2\t2",
    ],
    "Train_frameqa": [
        "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription",
        "cat\twhat is it ?\tcafé\t0\tFRAMEQA1\t1\ta cat",
        "cow\thow many ?\ttwo\t1\tFRAMEQA2\t2\ttwo",
        "fox\twhat is it ?\tcafé\t0\tFRAMEQA3\t3\tred",
    ],
    "Test_frameqa": [
        "gif_name\tquestion\tanswer\ttype\tvid_id\tkey\tdescription",
        "dog\twhat color ?\tred\t2\tFRAMEQA4\t4\tred",
        "dog\twhere ?\tcafé\t3\tFRAMEQA5\t4\tcafé",
    ],
    "Train_count": ["gif_name\tquestion\tanswer\tvid_id\tkey", "cat\tHow many times ?\t10\tCOUNT1\t5"],
    "Test_count": ["gif_name\tquestion\tanswer\tvid_id\tkey", "dog\tHow many times ?\t3\tCOUNT2\t5"],
}


@pytest.fixture
def tgif(tmp_path: Path) -> Path:
    """TGIF-QA of eleven questions."""
    (tmp_path / "tgif").mkdir()
    for name, lines in TGIF.items():
        (tmp_path / "tgif" / f"{name}_question.csv").write_bytes(("\r\n".join(lines) + "\r\n").encode())
    return tmp_path / "tgif"


@pytest.fixture
def convert_tgif(tool: Callable, tgif: Path, tmp_path: Path) -> Convert:
    main = tool("dataset_converters/tgif_qa.py").main
    return lambda *options: main([str(tgif), str(tmp_path / "out"), *options])


def test_tgif_qa_is_converted(convert_tgif: Convert, tmp_path: Path, capsys: pytest.CaptureFixture):
    convert_tgif()
    out = tmp_path / "out"
    options = ["sit", "run", "jump", "sleep", "wave"]
    assert read_lines(out, "action_train.jsonl") == [
        dict(video="cat.gif", question="What 2 times ?", options=options, answer=4, question_id="ACTION1")
    ]
    quoted = read_lines(out, "action_test.jsonl")[1]
    assert (quoted["question"], quoted["options"][1], quoted["answer"]) == ('A "mad" ox ?', '"big" run', 1)
    assert read_lines(out, "transition_test.jsonl")[0]["answer"] == 2
    assert [(record["answer"], record["answer_type"]) for record in read_lines(out, "frameqa_train.jsonl")] == [
        ("café", "object"),
        ("two", "number"),
        ("café", "object"),
    ]
    assert [record["answer_type"] for record in read_lines(out, "frameqa_test.jsonl")] == ["color", "location"]
    assert read_lines(out, "count_train.jsonl") == [
        dict(video="cat.gif", question="How many times ?", count=10, question_id="COUNT1")
    ]
    assert json.loads((out / "annotations" / "frameqa_answers.json").read_text()) == {"café": 0, "two": 1}
    said = capsys.readouterr().out
    assert "test questions of frameqa: 2 (published: 13,691, so 13,689 are missing)" in said
    assert "frameqa_answers.json: 2 answers; set num_answers of the head to 2" in said
    assert "test: 50.00% of frameQA has an answer in the vocabulary" in said
    assert len(os.listdir(out / "annotations")) == 9


def test_tgif_qa_options(convert_tgif: Convert, tmp_path: Path):
    convert_tgif("--tasks", "frameqa", "--suffix", ".mp4", "--min-count", "2")
    out = tmp_path / "out"
    assert sorted(os.listdir(out / "annotations")) == [
        "frameqa_answers.json",
        "frameqa_test.jsonl",
        "frameqa_train.jsonl",
    ]
    assert read_lines(out, "frameqa_train.jsonl")[1]["video"] == "cow.mp4"
    assert json.loads((out / "annotations" / "frameqa_answers.json").read_text()) == {"café": 0}


def test_tgif_qa_validation_is_by_video_and_the_same_in_all_tasks(tool: Callable, tgif: Path, tmp_path: Path):
    for task, prefix, cells in (("count", "COUNT", "{answer}"), ("frameqa", "FRAMEQA", "w{i}\t0")):
        header = TGIF[f"Train_{task}"][0].split("\t")
        rows = [f"v{i // 2}\tq\t{cells.format(answer=3, i=i)}\t{prefix}{100 + i}\t1\td".split("\t") for i in range(400)]
        text = "\n".join("\t".join(row[: len(header)]) for row in [header, *rows])
        (tgif / f"Train_{task}_question.csv").write_text(text)

    def split(suffix: str, seed: int) -> dict[str, set[str]]:
        out = tmp_path / f"out{suffix}{seed}"
        options = ["--tasks", "count", "frameqa", "--val-share", "0.25", "--seed", str(seed), "--suffix", suffix]
        tool("dataset_converters/tgif_qa.py").main([str(tgif), str(out), *options])
        names = ("count_train", "count_val", "frameqa_train", "frameqa_val")
        found = {name: [Path(record["video"]).stem for record in read_lines(out, f"{name}.jsonl")] for name in names}
        assert len(found["count_train"]) + len(found["count_val"]) == 400
        assert len(json.loads((out / "annotations" / "frameqa_answers.json").read_text())) == len(
            found["frameqa_train"]
        )
        return {name: set(videos) for name, videos in found.items()}

    first = split(".gif", 1)
    assert first["count_val"] == first["frameqa_val"]
    assert not first["count_val"] & first["count_train"]
    assert 30 < len(first["count_val"]) < 70  # 50 of 200 expected
    assert split(".mp4", 1) == first != split(".gif", 2)


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "Train_action",
            "\ta5\t",
            "\ta6\t",
            r"Train_action_question\.csv, line 1: expected the columns gif_name, .*a5, answer",
        ),
        ("Train_action", "\t", ",", r"line 1: expected the columns .*, separated by '\\t', got 'gif_name,question"),
        ("Train_action", "\t4\t", "\t5\t", r"line 2: expected a whole number in the column answer, 0 to 4, got '5'"),
        (
            "Train_action",
            "\t4\t",
            "\twave\t",
            r"line 2: expected a whole number in the column answer, 0 to 4, got 'wave'",
        ),
        ("Train_action", "\tjump\t", "\t\t", r"line 2: expected text in each of the columns a1, a2, a3, a4, a5"),
        ("Train_action", "\tkey", "", r"line 2: expected 9 cells between '\\t', got 10"),
        (
            "Train_action",
            "ACTION1",
            "TRANS1",
            r"line 2: expected a vid_id of the task action, such as ACTION7, got 'TRANS1'",
        ),
        ("Test_action", "ACTION9", "ACTION4", r"Test_action.*, line 3: expected each vid_id once, got 'ACTION4' again"),
        ("Test_action", "dog\t", "\t", r"line 2: expected text in the column gif_name, got ''"),
        (
            "Train_frameqa",
            "\t1\tFRAME",
            "\t4\tFRAME",
            r"line 3: expected a whole number in the column type, 0 to 3, got '4'",
        ),
        ("Train_frameqa", "\ttwo\t1", "\t\t1", r"line 3: expected text in the column answer, got ''"),
        ("Train_frameqa", "café", "caf\udce9", r"Train_frameqa_question\.csv, line 2: expected UTF-8, got"),
        (
            "Train_count",
            "\t10\t",
            "\tten\t",
            r"line 2: expected a whole number in the column answer, 0 or more, got 'ten'",
        ),
        (
            "Test_count",
            "dog\tHow many times ?\t3\tCOUNT2\t5",
            "",
            r"Test_count.* expected a row for each question, got 'the header",
        ),
    ],
)
def test_tgif_qa_files_that_are_wrong_are_named(
    convert_tgif: Convert, tgif: Path, tmp_path: Path, name: str, old: str, new: str, message: str
):
    path = tgif / f"{name}_question.csv"
    path.write_bytes(path.read_bytes().decode().replace(old, new).encode(errors="surrogateescape"))
    with pytest.raises(AnnotationError, match=message):
        convert_tgif()
    assert not (tmp_path / "out").exists()


def test_tgif_qa_options_that_are_wrong_are_named(convert_tgif: Convert, tgif: Path, tmp_path: Path):
    for options, message in (
        (
            ("--strict",),
            r"train questions of action: 1 \(published: 20,475 or 20,471, .* Nothing is written because of --strict",
        ),
        (("--val-share", "1"), "--val-share: expected a share from 0 to below 1, got 1.0"),
        (("--val-share", "0.000001"), "--val-share: expected a share that leaves training and validation of action"),
        (("--min-count", "3"), "--min-count: expected a number that at least one answer reaches, got 3"),
    ):
        with pytest.raises(AnnotationError, match=message):
            convert_tgif(*options)
    (tgif / "Test_count_question.csv").unlink()
    with pytest.raises(AnnotationError, match=r"There is no file .*Test_count_question\.csv"):
        convert_tgif()
    assert not (tmp_path / "out").exists()
