"""MSRVTT's captions, converted from small files in the publisher's format: which videos are in which split."""

import json
import runpy
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from clipbert_mm.datasets import RetrievalDataset
from clipbert_mm.errors import AnnotationError

NUMBERS = (0, 6512, 6513, 7009, 7010, 7011, 7012, 7013, 9999)
TESTED = (9999, 7011)
# By hand: sha256sum of "42 video7012" and so on, then of "42 caption 0 of 7012" and so on; the smallest are drawn.
FIRST_DRAW = [("video7012.mp4", "caption 1 of 7012"), ("video7013.mp4", "caption 0 of 7013")]


def records(path: Path) -> list[dict]:
    """The records of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def captions_of(*numbers: int) -> list[dict]:
    """The records that the small MSRVTT should give for these videos."""
    return [{"video": f"video{i}.mp4", "caption": f"caption {k} of {i}"} for i in numbers for k in range(2)]


@pytest.fixture(scope="module")
def msrvtt(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("dataset_converters/msrvtt.py")


def video_info(*numbers: int) -> dict:
    """The publisher's file of MSRVTT with these videos, two captions each; the sentences lie crosswise."""
    videos = [{"video_id": f"video{i}", "category": 9, "split": "test", "id": i, "start time": 1.5} for i in numbers]
    sentences = [
        {"video_id": f"video{i}", "sen_id": 7 * i + k, "caption": f" caption {k} of {i}"}
        for k in range(2)
        for i in numbers
    ]
    sentences.append({"video_id": f"video{numbers[0]}", "sen_id": 5, "caption": " "})
    return {"info": {"year": "2016"}, "videos": videos, "sentences": sentences}


def write_test_csv(path: Path, separator: str = ",", numbers: tuple[int, ...] = TESTED) -> None:
    """JSFusion's test."""
    rows = ["key,vid_key,video_id,sentence", *(f"ret{k},msr{i},video{i},query of {i}" for k, i in enumerate(numbers))]
    path.write_text("\n".join(rows).replace(",", separator) + "\n")


@pytest.fixture
def published(tmp_path: Path) -> Path:
    """A folder with small files of MSRVTT as published."""
    (tmp_path / "train_val.json").write_text(json.dumps(video_info(*NUMBERS[:4])))
    (tmp_path / "test.json").write_text(json.dumps(video_info(*NUMBERS[4:])))
    (tmp_path / "all.json").write_text(json.dumps(video_info(*NUMBERS)))
    write_test_csv(tmp_path / "test.csv")
    return tmp_path


def retrieval(folder: Path, *more: str, annotations: tuple[str, ...] = ("all.json",), out: str = "out") -> list[str]:
    """The command line of a conversion."""
    paths = [str(folder / name) for name in annotations]
    return ["retrieval", "--annotations", *paths, "--test-csv", str(folder / "test.csv"), *more, str(folder / out)]


@pytest.mark.parametrize("separator", [",", ";"])
@pytest.mark.parametrize("annotations", [("all.json",), ("test.json", "train_val.json")])
def test_msrvtt_retrieval_has_a_record_a_caption(
    msrvtt: ModuleType, published: Path, separator: str, annotations: tuple, capsys: pytest.CaptureFixture
):
    write_test_csv(published / "test.csv", separator)
    msrvtt.main(retrieval(published, annotations=annotations))
    out = published / "out" / "annotations"
    assert records(out / "retrieval_train-7k.jsonl") == captions_of(0, 6512, 6513, 7009)
    assert records(out / "retrieval_test-1ka.jsonl") == [
        {"video": "video9999.mp4", "caption": "query of 9999"},
        {"video": "video7011.mp4", "caption": "query of 7011"},
    ]
    local = records(out / "retrieval_val-local.jsonl")
    assert [record["video"] for record in local] == ["video7010.mp4", "video7012.mp4", "video7013.mp4"]
    assert all(record in captions_of(7010, 7012, 7013) for record in local)
    printed = capsys.readouterr().out.splitlines()
    assert "warning: retrieval_train-7k.jsonl: training videos: 4 (published: 7,010, so 7,006 are missing)" in printed
    assert (
        "warning: retrieval_test-1ka.jsonl: JSFusion 1K-A test pairs: 2 (published: 1,000, so 998 are missing)"
        in printed
    )
    drawn = "local validation pairs: 3 (drawn here, not published; 1,000 wanted)"
    assert f"warning: retrieval_val-local.jsonl: {drawn}" in printed
    assert not any("choose no checkpoint" in line for line in printed)


def test_msrvtt_9k_trains_on_all_but_the_test_videos(
    msrvtt: ModuleType, published: Path, capsys: pytest.CaptureFixture
):
    msrvtt.main(retrieval(published, "--train", "9k", "--suffix", ".avi"))
    train = records(published / "out" / "annotations" / "retrieval_train-9k.jsonl")
    expected = captions_of(*(i for i in NUMBERS if i not in TESTED))
    assert train == [record | {"video": record["video"].replace("mp4", "avi")} for record in expected]
    warning = "retrieval_train-9k.jsonl has 3 of the local validation videos: choose no checkpoint by them"
    assert warning in capsys.readouterr().out


def test_msrvtt_trains_on_a_list_of_videos(msrvtt: ModuleType, published: Path):
    (published / "list.csv").write_text("video_id\nvideo7012\nvideo0\n")
    msrvtt.main(retrieval(published, "--train", "9k", "--train-list", str(published / "list.csv")))
    assert records(published / "out" / "annotations" / "retrieval_train-9k.jsonl") == captions_of(7012, 0)


def test_msrvtt_trains_on_a_list_without_a_header(msrvtt: ModuleType, published: Path):
    (published / "list.txt").write_text("video7012\n\nvideo0\n")
    msrvtt.main(retrieval(published, "--train", "9k", "--train-list", str(published / "list.txt")))
    assert records(published / "out" / "annotations" / "retrieval_train-9k.jsonl") == captions_of(7012, 0)


def test_msrvtt_in_coco_s_layout_and_as_lists_of_captions_is_the_same(msrvtt: ModuleType, published: Path):
    sentences = video_info(*NUMBERS)["sentences"]
    annotations = [{"image_id": s["video_id"], "caption": s["caption"], "id": i} for i, s in enumerate(sentences)]
    (published / "coco.json").write_text(json.dumps({"info": {}, "images": [], "annotations": annotations}))
    lists = [{"video_id": f"video{i}", "caption": [f"caption {k} of {i}" for k in range(2)]} for i in NUMBERS[:4]]
    lists += [{"video": f"video{i}.mp4", "caption": f"caption {k} of {i}"} for k in range(2) for i in NUMBERS[4:]]
    (published / "train_9k.json").write_text(json.dumps(lists[:4]))
    (published / "test_1k.json").write_text(json.dumps(lists[4:]))
    written = []
    for annotations in (("all.json",), ("coco.json",), ("train_9k.json", "test_1k.json")):
        msrvtt.main(retrieval(published, annotations=annotations))
        written.append([records(path) for path in sorted((published / "out" / "annotations").iterdir())])
    assert written[0] == written[1] == written[2]
    assert len(written[0]) == 3


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([{"video": "clip0.mp4", "caption": "a"}], r"other\.json, entry 1: expected the id of a video, such as"),
        ([{"video": "video0.mp4", "caption": [3]}], r'entry 1: expected captions of text under the key "caption", got'),
        ([{"video": "video0.mp4"}], r'entry 1: expected text under the key "caption", has'),
        ([], r"other\.json: expected a JSON list of objects, got \[\]"),
        ({"annotations": [{"image_id": 3}]}, r'annotations, entry 1: expected text under the key "image_id", got 3'),
    ],
)
def test_bad_files_in_other_layouts_are_named(msrvtt: ModuleType, published: Path, content: list, message: str):
    (published / "other.json").write_text(json.dumps(content))
    with pytest.raises(AnnotationError, match=message):
        msrvtt.main(retrieval(published, annotations=("other.json",)))


def test_the_seed_says_the_local_validation_split(msrvtt: ModuleType, published: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(msrvtt, "TEST_PAIRS", 2)

    def drawn(annotations: tuple[str, ...], *options: str) -> list[tuple[str, str]]:
        msrvtt.main(retrieval(published, *options, annotations=annotations))
        local = records(published / "out" / "annotations" / "retrieval_val-local.jsonl")
        return [(record["video"], record["caption"]) for record in local]

    # A draw that changes makes other people's validation sets another one.
    assert drawn(("all.json",)) == FIRST_DRAW
    assert drawn(("test.json", "train_val.json"), "--seed", "42") == FIRST_DRAW
    draws = {tuple(drawn(("all.json",), "--seed", str(seed))) for seed in range(8)}
    assert len(draws) > 3
    assert {video for draw in draws for video, _ in draw} == {"video7010.mp4", "video7012.mp4", "video7013.mp4"}


def test_the_dataset_reads_what_was_written(msrvtt: ModuleType, published: Path):
    msrvtt.main(retrieval(published))
    out = published / "out"
    (out / "videos").mkdir()
    for i in NUMBERS:
        (out / "videos" / f"video{i}.mp4").touch()
    options = dict(data_root=str(out), media_folder="videos", pipeline=[])
    dataset = RetrievalDataset(ann_file="annotations/retrieval_train-7k.jsonl", **options)
    assert [dataset.get_data_info(i)["captions"] for i in (0, 7)] == [["caption 0 of 0"], ["caption 1 of 7009"]]


def change(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, once."""
    text = path.read_bytes()
    assert old.encode() in text
    path.write_bytes(text.replace(old.encode(), new.encode("latin-1"), 1))


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        (
            "all.json",
            '"videos"',
            '"clips"',
            r'all\.json: expected a JSON object with "videos" and "sentences", got \[.clips',
        ),
        (
            "all.json",
            '"video_id": "video0"',
            '"id_": 3',
            r'videos, entry 1: expected text under the key "video_id", has \[',
        ),
        (
            "all.json",
            '"video6512"',
            '"clip6512"',
            r"videos, entry 2: expected the id of a video, such as video7010, got 'cli",
        ),
        ("all.json", '"video6512"', '"video0"', r"videos, entry 2: expected each video_id once, got 'video0' again\."),
        (
            "all.json",
            '"caption": " caption 0 of 0"',
            '"caption": 5',
            r"sentences, entry 1: expected text under the key \"cap",
        ),
        ("all.json", '"sen_id": 1,', '"sen_id": 0,', r"sentences, entry 10: expected each sen_id of a video once"),
        (
            "all.json",
            '"video0", "sen',
            '"video5", "sen',
            r"sentences, entry 1: expected a video_id that \"videos\" has, got 'v",
        ),
        ("all.json", '{"info"', '{"info', r"all\.json: expected JSON, got"),
        (
            "test.csv",
            "sentence",
            "caption",
            r"test\.csv, line 1: expected the columns video_id, sentence, separated by ',' or",
        ),
        (
            "test.csv",
            "key,vid_key,video_id,sentence",
            "key|vid_key|video_id|sentence",
            r"line 1: .* got 'key\|vid_key\|",
        ),
        ("test.csv", "query of 7011", "query, of 7011", r"line 3: expected 4 cells between ',', got 5\."),
        ("test.csv", "query of 7011", "", r"line 3: expected a sentence, got ''\."),
        ("test.csv", "query of 7011", "caf\xe9", r"test\.csv, line 3: expected UTF-8, got"),
        (
            "test.csv",
            "video7011",
            "video7777",
            r"line 3: expected a video of the files after --annotations, got 'video7777'",
        ),
        (
            "test.csv",
            "video7011",
            "video7009",
            r"line 3: expected a video of the publisher's test split \(video7010 on\), got",
        ),
        ("test.csv", "video7011", "video9999", r"line 3: expected each video_id once, got 'video9999' again\."),
    ],
)
def test_bad_retrieval_files_are_named(
    msrvtt: ModuleType, published: Path, name: str, old: str, new: str, message: str
):
    change(published / name, old, new)
    with pytest.raises(AnnotationError, match=message):
        msrvtt.main(retrieval(published))
    assert not (published / "out").exists()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("video_id\nvideo0\nvideo0\n", r"list\.csv, line 3: expected each video_id once, got 'video0' again\."),
        ("video_id\nvideo1\n", r"line 2: expected a video of the files after --annotations, got 'video1'\."),
        ("video_id\nvideo9999\n", r"line 2: expected a video that the test pairs do not have, got 'video9999'\."),
        ("clip0\n", r"line 1: expected the columns video_id, separated by"),
        ("video0\nclip0\n", r"list\.csv, line 2: expected a video of the files after --annotations, got 'clip0'"),
        ("video0\nvideo0\n", r"list\.csv, line 2: expected each name once, got 'video0' again\."),
        ("video_id\n", r"all\.json: expected captions of training videos \(7k\), got 'none'\."),
    ],
)
def test_bad_lists_of_videos_are_named(msrvtt: ModuleType, published: Path, rows: str, message: str):
    (published / "list.csv").write_text(rows)
    with pytest.raises(AnnotationError, match=message):
        msrvtt.main(retrieval(published, "--train-list", str(published / "list.csv")))


def test_test_pairs_without_their_captions_are_refused(msrvtt: ModuleType, published: Path):
    with pytest.raises(AnnotationError, match=r"test\.csv, line 2: expected a video of the files after --annotations"):
        msrvtt.main(retrieval(published, annotations=("train_val.json",)))
    with pytest.raises(
        AnnotationError,
        match=r"all\.json, videos, entry 5: expected each video in one of the files after --annotations, got 'video7010'",
    ):
        msrvtt.main(retrieval(published, annotations=("test.json", "all.json")))
    write_test_csv(published / "test.csv", numbers=())
    with pytest.raises(
        AnnotationError, match=r"test\.csv: expected a row for each test pair, got 'the header alone'\."
    ):
        msrvtt.main(retrieval(published))


def test_other_counts_are_refused_if_strict(
    msrvtt: ModuleType, published: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    with pytest.raises(AnnotationError, match=r"are missing.* Nothing is written because of --strict\."):
        msrvtt.main(retrieval(published, "--strict"))
    assert not (published / "out").exists()
    monkeypatch.setattr(msrvtt, "TEST_PAIRS", 2)
    monkeypatch.setattr(msrvtt, "TRAINING_VIDEOS", {"7k": 4})
    monkeypatch.setattr(msrvtt, "CAPTIONS_A_VIDEO", 2)
    msrvtt.main(retrieval(published, "--strict"))
    printed = capsys.readouterr().out
    assert "retrieval_train-7k.jsonl: captions: 8 (as published)" in printed
    assert "warning" not in printed


def test_errors_end_the_tool_in_one_line(root: Path, published: Path, monkeypatch: pytest.MonkeyPatch):
    script = str(root / "tools" / "dataset_converters" / "msrvtt.py")
    (published / "test.csv").write_text("video|sentence")
    monkeypatch.setattr(sys, "argv", [script, *retrieval(published)])
    with pytest.raises(
        SystemExit, match=r"^error: .*test\.csv, line 1: expected the columns video_id, sentence, [^\n]*$"
    ):
        runpy.run_path(script, run_name="__main__")


def test_a_suffix_without_a_dot_is_refused(msrvtt: ModuleType, published: Path):
    with pytest.raises(AnnotationError, match=r"--suffix: expected a file ending such as \.mp4, got 'mp4'"):
        msrvtt.main(retrieval(published, "--suffix", "mp4"))
