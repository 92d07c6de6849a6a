"""Tables of one's own captions and questions: what spreadsheets save, and what is wrong in it."""

import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from clipbert_mm.datasets import MultipleChoiceDataset, OpenEndedDataset, PretrainingDataset, RetrievalDataset
from clipbert_mm.errors import AnnotationError

VIDEOS = [f"{name}.mp4" for name in "abcdefghij"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder of ten videos, one of them in a sub-folder, and four images."""
    for name in [
        *(f"videos/{name}" for name in VIDEOS[:9]),
        "videos/deep/j.mp4",
        *(f"images/{i}.jpg" for i in range(4)),
    ]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.fixture
def convert(tool: Callable, folder: Path, capsys: pytest.CaptureFixture) -> Callable[..., str]:
    """Convert tables, given as text or bytes, into the folder; returns what is printed."""

    def run(*tables: str | bytes, options: tuple[str, ...] = ()) -> str:
        paths = []
        for i, content in enumerate(tables):
            paths.append(str(folder / f"table{i}.csv"))
            Path(paths[-1]).write_bytes(content if isinstance(content, bytes) else content.encode())
        tool("dataset_converters/own_csv.py").main([*paths, str(folder), *options])
        return capsys.readouterr().out

    return run


def lines_of(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def rows(columns: str, values: Callable[[str], str]) -> str:
    names = [*VIDEOS[:9], "deep/j.mp4"]
    return "\n".join([columns, *(values(name) for name in names)]) + "\n"


def test_what_a_spreadsheet_saves_is_read(convert: Callable, folder: Path):
    table = rows("Video ;CAPTION;Notes", lambda name: f'{name};"a ""café""; then\n the sea";')
    convert(b"\xef\xbb\xbf" + table.replace("\n", "\r\n").encode())
    records = [record for name in ("train", "test") for record in lines_of(folder, name)]
    assert {record["video"] for record in records} == {*VIDEOS[:9], "deep/j.mp4"}
    assert {record["caption"] for record in records} == {'a "café"; then the sea'}
    assert [len(lines_of(folder, name)) for name in ("train", "test")] == [8, 2]
    assert not (folder / "val.jsonl").exists(), "one video tells too little"


def test_a_tenth_of_many_videos_validates(tool: Callable):
    split = tool("dataset_converters/own_csv.py").split_media
    names = {f"{i}.mp4" for i in range(100)}
    splits = split(names, None, 0.2, seed=42)
    assert [sum(value == name for value in splits.values()) for name in ("train", "val", "test")] == [70, 10, 20]
    assert set(split(names - {"0.mp4"}, None, 0.2, seed=42).values()) == {"train", "test"}
    assert splits != split(names, None, 0.2, seed=43)


def test_all_tables_are_split_alike_and_the_datasets_read_them(convert: Callable, folder: Path):
    captions = rows("video,caption", lambda name: f"{name},caption of {name}\n{name},another of {name}")
    questions = rows("video,question,answer,answer_type", lambda name: f"{name},what is it?, {name[0].upper()}  b,what")
    choice = rows("video\toption1\toption2\toption3\tanswer", lambda name: f"{name}\tjump\tsit\t\tsit")
    other = rows("answer,video,question,options", lambda name: f"run,{name},what next?,walk | run")
    images = "image,caption\n" + "".join(f"{i}.jpg,image {i}\n" for i in range(4))
    said = convert(captions, questions, choice, other, images, options=("--seed", "7", "--val-share", "0.1"))
    splits = {}
    for name in ("train", "val", "test"):
        splits[name] = {record["video"] for record in lines_of(folder, name)}
        for kind in ("qa", "choice"):
            assert {record["video"] for record in lines_of(folder, f"{kind}_{name}")} == splits[name]
    assert len(set.union(*splits.values())) == sum(map(len, splits.values())) == 10
    assert {record["answer"] for record in lines_of(folder, "qa_train")} == {
        f"{Path(name).name[0] if name[0] != 'd' or '/' not in name else 'd'} b" for name in splits["train"]
    }
    first, second = lines_of(folder, "choice_train")[0], lines_of(folder, "choice_train")[-1]
    assert (first["options"], first["answer"], "question" in first) == (["jump", "sit"], 1, False)
    assert (second["options"], second["answer"], second["question"]) == (["walk", "run"], 1, "what next?")
    options = dict(data_root=str(folder), pipeline=[], media_folder="videos")
    assert len(RetrievalDataset(ann_file="train.jsonl", **options)) == 14
    assert len(OpenEndedDataset(ann_file="qa_train.jsonl", answer_file="answers.json", **options)) == 7
    assert len(MultipleChoiceDataset(ann_file="choice_test.jsonl", **options)) == 4
    assert len(PretrainingDataset(ann_file="pretrain.jsonl", **options | dict(media_folder="images"))) == 2
    assert "7 answers\ntrain: 100.0 % of 7 questions have an answer of the vocabulary\n" in said
    assert "val: 0.0 % of 1 questions have an answer of the vocabulary; not " in said
    convert(captions, options=("--seed", "7"))
    assert not (folder / "val.jsonl").exists(), "what an earlier conversion wrote"


def test_copies_of_a_video_are_in_one_split_and_unused_files_are_counted(convert: Callable, folder: Path):
    for name in VIDEOS[:3]:
        (folder / "videos" / name).write_text("the same")
    said = convert(rows("video,caption", lambda name: f"{name},x").replace("i.mp4,x\n", ""))
    splits = [{record["video"] for record in lines_of(folder, name)} for name in ("train", "test")]
    assert sum(set(VIDEOS[:3]) <= split for split in splits) == 1
    assert "warning: 1 files in " in said
    assert "are in no table, such as 'videos/i.mp4'" in said
    assert "warning: 2 files are copies of others, such as 'videos/b.mp4' of 'videos/a.mp4'" in said


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("", r"table0\.csv: expected a header and one row or more, got nothing\.$"),
        ("video,caption\n", r"expected a header and one row or more, got 'video,caption'"),
        ("video,video,caption\na.mp4,a.mp4,x\n", r"line 1: expected each column once, got 'video' twice"),
        ("film,text\na.mp4,x\n", r"line 1: expected the columns video and caption; .*, got \['film', 'text'\]"),
        ("video,answer\na.mp4,x\n", r"expected the columns"),
        (
            'video,caption\na.mp4,"x\nb.mp4,y\n',
            r"line 2: expected a row of cells, got unexpected end of data\. Check its quo",
        ),
        ("video,caption\na.mp4,x\nb.mp4,\n", r"^\S+, line 3: expected text in the column caption, got nothing\.$"),
        ("video,caption\na.mp4,x,y\n", r"line 2: expected 2 cells, got 3"),
        ("video,caption\na.mp,x\n", r"line 2: there is no video 'a\.mp' in \S+ \(the nearest name is 'a\.mp4'\)"),
        ("video,question,answer\na.mp4,x\n", r"line 2: expected text in the column answer"),
        ("video,answer,option1,option2\na.mp4,x,x,\n", r"two or more different options, got \['x'\]"),
        (
            "video,answer,options\na.mp4,x,x|y\na.mp4,x,x|y|z\n",
            r"line 3: expected 2 options, as in the other questions of 'a\.mp4', got 3",
        ),
        (
            "video,answer,option1,option2\na.mp4,z,x,y\n",
            r"expected one of the options \['x', 'y'\] as the answer, got 'z'",
        ),
        (
            "video,caption\na.mp4,x\nb.mp4,y\n",
            r"^2 videos or images leave 1 to train on, with 0 for validation and 1 ",
        ),
        (
            "video,caption\n" + "zz.mp4,x\n" * 22,
            r"^22 bad lines, nothing is written:\n(\S+, line \d+: .*\n){20}and 2 more$",
        ),
        (
            "video,caption\na.mp4,caf\u00e9\n".encode("latin-1"),
            r"line 2: expected UTF-8, got .*\. Save the file as UTF-8",
        ),
        ("video,caption\na.mp4,x\n".encode("utf-16"), r"line 1: expected UTF-8, got UTF-16\. Save the file as UTF-8"),
    ],
)
def test_what_is_wrong_is_named_and_nothing_is_written(convert: Callable, folder: Path, table: Any, expected: str):
    with pytest.raises(AnnotationError, match=expected):
        convert(table)
    assert not list(folder.glob("*.jsonl"))


def test_names_without_their_ending_are_found_and_only_shown_lines_are_compared_with_all_files(
    tool: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    own_csv = tool("dataset_converters/own_csv.py")
    compared: list[str] = []
    monkeypatch.setattr(own_csv.difflib, "get_close_matches", lambda name, *_, **__: compared.append(name) or [])
    lines = ["a", "deep/j", "b.avi", *(f"zz{i}.mp4" for i in range(40))]
    for i, part in enumerate((lines[:30], lines[30:])):
        (folder / f"{i}.csv").write_text("\n".join(["video,caption", *(f"{name},x" for name in part)]))
    with pytest.raises(AnnotationError) as caught:
        own_csv.main([str(folder / "0.csv"), str(folder / "1.csv"), str(folder)])
    shown = str(caught.value).splitlines()
    assert [line.partition("nearest name is ")[2] for line in shown[1:5]] == [
        "'a.mp4').",
        "'deep/j.mp4').",
        "'b.mp4').",
        "",
    ]
    assert compared == lines[3 : own_csv.SHOWN]
    assert shown[-1] == "and 23 more"


def test_files_of_one_size_are_compared_in_parts(tool: Callable, tmp_path: Path):
    size = 16 * 2**20
    for name, last in (("a", b"x"), ("b", b"y"), ("c", b"x")):
        with (tmp_path / name).open("wb") as file:
            file.seek(size)
            file.write(last)
    own_csv = tool("dataset_converters/own_csv.py")
    tracemalloc.start()
    first = own_csv.group_equal(tmp_path, {"a", "b", "c"})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert first == {"a": "a", "b": "b", "c": "a"}
    assert peak < size / 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--test-share", "nan"), "expected shares from 0 to below 1, together below 1, got 0 and nan"),
        (("--val-share", "nan"), "got nan and 0.2"),
        (("--val-share", "-0.1"), "got -0.1 and 0.2"),
        (("--val-share", "0.5", "--test-share", "0.5"), "together below 1, got 0.5 and 0.5"),
        (("--num-answers", "0"), "argument --num-answers: expected a whole number, 1 or more, got '0'"),
        (("--num-answers", "-1"), "expected a whole number, 1 or more, got '-1'"),
    ],
)
def test_options_out_of_their_range_are_refused(
    convert: Callable, folder: Path, capsys: pytest.CaptureFixture, options: tuple[str, ...], message: str
):
    with pytest.raises(SystemExit):
        convert(rows("video,question,answer", lambda name: f"{name},what?,{name}"), options=options)
    assert message in capsys.readouterr().err
    assert not list(folder.glob("*.json*"))


def test_questions_about_videos_to_test_on_alone_are_refused(convert: Callable, folder: Path):
    captions = rows("video,caption", lambda name: f"{name},x")
    convert(captions)
    (tested, *_) = [record["video"] for record in lines_of(folder, "test")]
    with pytest.raises(
        AnnotationError, match=r"^None of the 1 questions is about a video to train on, .* another --seed"
    ):
        convert(captions, f"video,question,answer\n{tested},what?,y\n")
    assert not (folder / "answers.json").exists()


def test_a_folder_without_videos_is_refused(tool: Callable, tmp_path: Path):
    (tmp_path / "a.csv").write_text("video,caption\na.mp4,x\n")
    with pytest.raises(
        AnnotationError, match=r"^There are no files in \S+/videos, which \S+ is about\. Put the videos there"
    ):
        tool("dataset_converters/own_csv.py").main([str(tmp_path / "a.csv"), str(tmp_path)])


def test_a_vocabulary_has_the_most_frequent_answers(tool: Callable, tmp_path: Path, capsys: pytest.CaptureFixture):
    for name, answers in (("train", "b b b a a c"), ("test", "b d")):
        lines = (json.dumps(dict(video="v.mp4", question="q", answer=answer)) + "\n" for answer in answers.split())
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    main, out = tool("dataset_converters/answer_vocabulary.py").main, tmp_path / "answers.json"
    files = [str(tmp_path / "train.jsonl"), "--out", str(out), "--check", str(tmp_path / "test.jsonl")]
    main([*files, "--min-count", "2"])
    assert json.loads(out.read_text()) == {"b": 0, "a": 1}
    assert capsys.readouterr().out.splitlines()[:3] == [
        "2 answers",
        f"{tmp_path}/train.jsonl: 83.3 % of 6 questions have an answer of the vocabulary; not 'c'",
        f"{tmp_path}/test.jsonl: 50.0 % of 2 questions have an answer of the vocabulary; not 'd'",
    ]
    main([*files, "--num-answers", "1"])
    assert json.loads(out.read_text()) == {"b": 0}
    with pytest.raises(
        AnnotationError, match=r"--num-answers, --min-count: expected numbers that leave an answer, got \(1500"
    ):
        main([*files, "--min-count", "4"])


@pytest.mark.parametrize(
    "command",
    [
        ("answer_vocabulary.py",),
        ("activitynet_qa.py",),
        ("msrvtt.py", "qa"),
        ("msvd.py", "qa"),
        ("nextqa.py", "open-ended"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("number", ["0", "-1"])
def test_a_vocabulary_without_answers_is_refused(
    tool: Callable, tmp_path: Path, capsys: pytest.CaptureFixture, command: tuple[str, ...], number: str
):
    script, *task = command
    with pytest.raises(SystemExit):
        tool(f"dataset_converters/{script}").main([*task, str(tmp_path), "--num-answers", number])
    assert f"argument --num-answers: expected a whole number, 1 or more, got '{number}'" in capsys.readouterr().err
