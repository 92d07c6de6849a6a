"""MSRVTT-QA and MSRVTT's multiple choice, converted from small files in the publishers' formats."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from clipbert_mm.datasets import MultipleChoiceDataset, OpenEndedDataset
from clipbert_mm.errors import AnnotationError


def records(path: Path) -> list[dict]:
    """The records of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def msrvtt(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("dataset_converters/msrvtt.py")


def change(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, once."""
    text = path.read_bytes()
    assert old.encode() in text
    path.write_bytes(text.replace(old.encode(), new.encode("latin-1"), 1))


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with small files of MSRVTT as published."""
    for split, video, answers in (("train", 0, "aabbc"), ("val", 6513, "abd"), ("test", 7010, "ddea")):
        words = ("what is", "Who's", "whose", "is", "how many")
        entries = [
            {
                "answer": answer,
                "category_id": 1,
                "id": video + k,
                "question": f"{words[k]} it?",
                "video_id": video if k else f"video{video}",
            }
            for k, answer in enumerate(answers)
        ]
        (tmp_path / f"{split}_qa.json").write_text(json.dumps(entries))
    rows = ["key,vid_key,a1,a2,a3,a4,a5,answer", 'MC0,msr7010,"say ""a""",b,c,d,e,4', "MC1,msr9999,f,g,h,i,j,0"]
    (tmp_path / "choices.tsv").write_text("\n".join(rows).replace(",", "\t") + "\n")
    lines = [
        {"qid": k, "clip_name": f"video{i}", "options": list("abcde"), "answer": k} for k, i in enumerate((7010, 9999))
    ]
    (tmp_path / "choices.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def qa(folder: Path, *more: str) -> list[str]:
    """The command line of a conversion."""
    files = [part for split in ("train", "val", "test") for part in (f"--{split}", str(folder / f"{split}_qa.json"))]
    return ["qa", *files, *more, str(folder / "out")]


def test_msrvtt_questions_have_types_and_a_vocabulary(
    msrvtt: ModuleType, published: Path, capsys: pytest.CaptureFixture
):
    msrvtt.main(qa(published, "--num-answers", "2"))
    out = published / "out" / "annotations"
    train = records(out / "qa_train.jsonl")
    asked = {"video": "video0.mp4", "question": "what is it?", "answer": "a", "answer_type": "what", "question_id": 0}
    assert train[0] == asked
    assert [record["answer_type"] for record in train] == ["what", "who", "other", "other", "how"]
    assert [record["question_id"] for record in records(out / "qa_test.jsonl")] == [7010, 7011, 7012, 7013]
    assert json.loads((out / "qa_answers.json").read_text()) == {"a": 0, "b": 1}
    printed = capsys.readouterr().out.splitlines()
    assert "warning: qa_val.jsonl: val questions: 3 (published: 12,278, so 12,275 are missing)" in printed
    assert "qa_answers.json: answers: 2" in printed
    assert "train: 80.00% of the questions have an answer in the vocabulary" in printed
    assert "val: 66.67% of the questions have an answer in the vocabulary: no accuracy can be higher" in printed
    assert "test: 25.00% of the questions have an answer in the vocabulary: no accuracy can be higher" in printed


@pytest.mark.parametrize("separator", ["\t", ",", ";"])
def test_msrvtt_multiple_choice_is_read_as_a_table(msrvtt: ModuleType, published: Path, separator: str):
    table = published / "choices.tsv"
    text = table.read_text().replace("\t", separator)
    if separator == ";":
        text = text.replace("vid_key", "video_id").replace("msr", "video").replace("key;", "").replace("MC0;", "")
        text = text.replace("MC1;", "")
    table.write_text(text)
    msrvtt.main(["multiple-choice", str(table), str(published / "out")])
    assert records(published / "out" / "annotations" / "mc_test.jsonl") == [
        {"video": "video7010.mp4", "options": ['say "a"', "b", "c", "d", "e"], "answer": 4},
        {"video": "video9999.mp4", "options": ["f", "g", "h", "i", "j"], "answer": 0},
    ]


def test_msrvtt_multiple_choice_is_read_as_the_paper_has_it(
    msrvtt: ModuleType, published: Path, capsys: pytest.CaptureFixture
):
    msrvtt.main(["multiple-choice", str(published / "choices.jsonl"), str(published / "out"), "--suffix", ""])
    assert records(published / "out" / "annotations" / "mc_test.jsonl") == [
        {"video": "video7010", "options": list("abcde"), "answer": 0},
        {"video": "video9999", "options": list("abcde"), "answer": 1},
    ]
    assert "test questions: 2 (published: 2,990, so 2,988 are missing)" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "train_qa.json",
            '"answer": "b"',
            '"reply": "b"',
            r'train_qa\.json, entry 3: expected text under the key "answer"',
        ),
        (
            "val_qa.json",
            '"answer": "b"',
            '"answer": ["b"]',
            r"val_qa\.json, entry 2: expected text under the key \"answer\", g",
        ),
        (
            "val_qa.json",
            "what is it?",
            " ",
            r'val_qa\.json, entry 1: expected text under the key "question", got \' \'',
        ),
        (
            "val_qa.json",
            '"id": 6514',
            '"id": "6514"',
            r"entry 2: expected a whole number under the key .id., got '6514'",
        ),
        ("val_qa.json", '"id": 6514', '"id": 6513', r"entry 2: expected each id once, got 6513 again\."),
        (
            "val_qa.json",
            '"video6513"',
            '"6513"',
            r"entry 1: expected a video_id such as 6513 or video6513, got '6513'\.",
        ),
        (
            "test_qa.json",
            '"video7010"',
            '"video0"',
            r"test_qa\.json, entry 1: expected a video of MSRVTT's split test, video7010 to video9999 .*, got 'video0'",
        ),
        ("test_qa.json", "[{", '{"questions": [{', r"test_qa\.json: expected JSON, got"),
    ],
)
def test_bad_question_files_are_named(msrvtt: ModuleType, published: Path, name: str, old: str, new: str, message: str):
    change(published / name, old, new)
    with pytest.raises(AnnotationError, match=message):
        msrvtt.main(qa(published))
    assert not (published / "out").exists()


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        ("choices.tsv", "\t4\n", "\t5\n", r"choices\.tsv, line 2: expected an answer from 0 to 4, got 5\."),
        ("choices.tsv", "\t4\n", "\te\n", r"choices\.tsv, line 2: expected an answer from 0 to 4, got 'e'\."),
        ("choices.tsv", "\tb\t", "\t\t", r"choices\.tsv, line 2: expected 5 options, each with text, got"),
        ("choices.tsv", "MC1", "MC0", r"line 3: expected each id of a question once, got 'MC0' again\."),
        ("choices.tsv", "msr9999", "9999", r"line 3: expected the id of a video, such as video7010, got '9999'\."),
        (
            "choices.tsv",
            "answer",
            "label",
            r"line 1: expected the columns vid_key, a1, a2, a3, a4, a5, answer, separated by",
        ),
        (
            "choices.jsonl",
            '"answer": 1',
            '"answer": -1',
            r"choices\.jsonl, line 2: expected an answer from 0 to 4, got -1",
        ),
        ("choices.jsonl", '"answer": 1', '"answer": "b"', r"line 2: expected an answer from 0 to 4, got 'b'\."),
        ("choices.jsonl", '"answer": 1', '"label": 1', r"line 2: expected an answer from 0 to 4, got None\."),
        ("choices.jsonl", '["a", ', "[", r"line 1: expected 5 options, each with text, got"),
        ("choices.jsonl", '"clip_name"', '"name"', r'line 1: expected text under the key "clip_name", has'),
        ("choices.jsonl", '"qid"', '"id"', r'line 1: expected the key "qid", got'),
        ("choices.jsonl", '"qid": 1', '"qid": 0', r"line 2: expected each id of a question once, got '0' again\."),
    ],
)
def test_bad_choices_are_named(msrvtt: ModuleType, published: Path, name: str, old: str, new: str, message: str):
    change(published / name, old, new)
    with pytest.raises(AnnotationError, match=message):
        msrvtt.main(["multiple-choice", str(published / name), str(published / "out")])
    assert not (published / "out").exists()


def test_other_counts_are_refused_if_strict(
    msrvtt: ModuleType, published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    for command in (qa(published), ["multiple-choice", str(published / "choices.tsv"), "out"]):
        with pytest.raises(AnnotationError, match=r"are missing.* Nothing is written because of --strict\."):
            msrvtt.main([*command, "--strict"])
    assert not (published / "out").exists()
    monkeypatch.setattr(msrvtt, "CHOICE_QUESTIONS", 2)
    msrvtt.main(["multiple-choice", str(published / "choices.tsv"), str(published / "out"), "--strict"])
    assert "mc_test.jsonl: test questions: 2 (as published)" in capsys.readouterr().out


def test_the_datasets_read_what_was_written(msrvtt: ModuleType, published: Path):
    msrvtt.main(qa(published))
    msrvtt.main(["multiple-choice", str(published / "choices.tsv"), str(published / "out")])
    out = published / "out"
    (out / "videos").mkdir()
    for i in (0, 7010, 9999):
        (out / "videos" / f"video{i}.mp4").touch()
    options = dict(data_root=str(out), media_folder="videos", pipeline=[])
    answers = "annotations/qa_answers.json"
    assert len(OpenEndedDataset(ann_file="annotations/qa_train.jsonl", answer_file=answers, **options)) == 5
    choices = MultipleChoiceDataset(ann_file="annotations/mc_test.jsonl", test_mode=True, **options)
    assert [choices.prepare_test(i)["answer_labels"].tolist() for i in range(2)] == [[4], [0]]
