"""Converters of the data sets that peers carry, on small files in the publishers' formats."""

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from peer_files import PEERS

from clipbert_mm.errors import AnnotationError

TEXTS = [f"caption {number}" for number in range(24)]
Convert = Callable[..., Path]


def records(path: Path) -> list[dict]:
    """The records of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def change(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, once."""
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


@pytest.fixture
def convert(tool: Callable[[str], ModuleType], tmp_path: Path) -> Convert:
    """Write the files of a data set, change them, and convert them; returns the folder of the annotations."""

    def run(name: str, *options: str, edit: Callable[[Path], None] = lambda folder: None) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        command = PEERS[name].write(folder, TEXTS)
        edit(folder)
        tool(f"dataset_converters/{PEERS[name].converter}.py").main([*command, *options, str(tmp_path / "out")])
        return tmp_path / "out" / "annotations"

    return run


def captions(names: dict[int, str], media: str = "video", per_video: int = 2) -> list[dict]:
    """What should become of the texts of these items."""
    return [
        {media: name, "caption": TEXTS[2 * number - 2 + k]} for number, name in names.items() for k in range(per_video)
    ]


def test_msvd_has_english_captions_and_the_split_goes_by_number(convert: Convert, capsys: pytest.CaptureFixture):
    out = convert("msvd")
    for split, numbers in (("train", range(1, 7)), ("val", range(7, 10)), ("test", range(10, 13))):
        expected = captions({number: f"-a_b{number}_{number}_19.avi" for number in numbers})
        assert records(out / f"msvd_{split}.jsonl") == expected
    printed = capsys.readouterr().out
    assert "warning: msvd_test.jsonl: test videos: 3 (published: 670, so 667 are missing)" in printed
    assert "msvd_test.jsonl: captions: 6\n" in printed, "how many the corpus has of these videos is not published"


def test_msvd_takes_shared_captions_and_lists(
    convert: Convert, tool: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    expected = {path.name: path.read_text() for path in convert("msvd").iterdir()}
    lists = [str(tmp_path / "msvd" / f"{split}_list.txt") for split in ("train", "val", "test")]
    command = ["retrieval", str(tmp_path / "msvd" / "raw-captions.pkl"), "--lists", *lists, str(tmp_path / "shared")]
    tool("dataset_converters/msvd.py").main(command)
    assert {path.name: path.read_text() for path in (tmp_path / "shared" / "annotations").iterdir()} == expected
    assert "captions: 6 (published: 27,763" in capsys.readouterr().out


def test_a_pickle_that_runs_code_is_refused(convert: Convert, tool: Callable, tmp_path: Path):
    convert("msvd")
    path = tmp_path / "msvd" / "raw-captions.pkl"
    for content, message in (
        (pickle.dumps(Path), r"raw-captions\.pkl: expected a pickle of names of videos .*, got it has pathlib"),
        (pickle.dumps(["a"]), r"expected a pickle of names of videos .*, got \['a'\]"),
        (pickle.dumps({"a": ["b"]}), r"raw-captions\.pkl, 'a': expected a pickle .*, got 'b'"),
        (b"VideoID,Start", r"raw-captions\.pkl: expected a pickle of names of videos"),
    ):
        path.write_bytes(content)
        mapping = str(tmp_path / "msvd" / "youtube_mapping.txt")
        with pytest.raises(AnnotationError, match=message):
            tool("dataset_converters/msvd.py").main(
                ["retrieval", str(path), "--mapping", mapping, str(tmp_path / "new")]
            )
    assert not (tmp_path / "new").exists()


def test_msvd_qa_names_videos_by_the_mapping(convert: Convert, tool: Callable, tmp_path: Path):
    out = convert("msvd-qa", "--num-answers", "2")
    first, second = records(out / "msvd-qa_val.jsonl")[:2]
    assert first == {
        "video": "-a_b7_7_19.avi",
        "question": "caption 12 ?",
        "answer": "12",
        "answer_type": "other",
        "question_id": 70,
    }
    assert second["question"] == "caption 13 ?"
    assert json.loads((out / "msvd-qa_answers.json").read_text()) == {"0": 0, "1": 1}
    tool("dataset_converters/msvd.py").main(
        ["qa", str(tmp_path / "msvd-qa"), str(tmp_path / "numbers"), "--suffix", ".mp4"]
    )
    assert records(tmp_path / "numbers" / "annotations" / "msvd-qa_test.jsonl")[0]["video"] == "vid1310.mp4"


def test_lsmdc_has_a_line_per_sentence_in_a_folder_per_movie(convert: Convert):
    out = convert("lsmdc")
    name = "000{}_A_Movie/000{}_A_Movie_00.00.{:02d}.926-00.00.54.129.avi".format
    assert records(out / "val.jsonl") == captions({i: name(i % 2, i % 2, i) for i in (7, 8, 9)})
    assert records(out / "test.jsonl") == captions({i: name(i % 2, i % 2, i) for i in (10, 11, 12)}, per_video=1)
    assert (
        records(convert("lsmdc", "--flat") / "train.jsonl")[0]["video"] == "0001_A_Movie_00.00.01.926-00.00.54.129.avi"
    )


def test_vatex_halves_validation_by_lists(convert: Convert, tool: Callable, tmp_path: Path):
    out = convert("vatex")
    for split, numbers in (("train", range(1, 7)), ("val", range(7, 10)), ("test", range(10, 13))):
        expected = captions({number: f"-A_b{number}_000047_000057.mp4" for number in numbers})
        assert records(out / f"{split}.jsonl") == expected
    whole = ["--val", str(tmp_path / "vatex" / "vatex_validation_v1.0.json"), str(tmp_path / "whole")]
    tool("dataset_converters/vatex.py").main(whole)
    assert [path.name for path in (tmp_path / "whole" / "annotations").iterdir()] == ["val.jsonl"]
    assert len(records(tmp_path / "whole" / "annotations" / "val.jsonl")) == 12
    for wrong in (["--val-list", "a"], ["--val-list", "a", "--test-list", "b"]):
        with pytest.raises(SystemExit):
            tool("dataset_converters/vatex.py").main(["--train", "c", *wrong, str(tmp_path)])


def test_activitynet_qa_joins_answers_to_questions(convert: Convert, tmp_path: Path):
    out = convert("activitynet-qa")
    assert records(out / "qa_test.jsonl")[1] == {
        "video": "v_a-10.mp4",
        "question": "caption 19",
        "answer": "19",
        "answer_type": "temporal",
        "question_id": "v_a-10_2",
    }
    assert len(json.loads((out / "qa_answers.json").read_text())) == 12
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "v_a-10.mkv").touch()
    names = [
        record["video"]
        for record in records(convert("activitynet-qa", "--videos", str(tmp_path / "videos")) / "qa_test.jsonl")
    ]
    assert names[1:3] == ["v_a-10.mkv", "v_a-11.mp4"]


def test_nextqa_has_options_types_and_the_names_of_vidor(convert: Convert):
    first, second = records(convert("nextqa-mc") / "mc_val.jsonl")[1:3]
    assert first == {
        "video": "11/24007.mp4",
        "question": "caption 13",
        "answer_type": "CW",
        "question_id": "24007_1",
        "options": ["a star", "13", "two, or three", "a red ring", "blue"],
        "answer": 1,
    }
    assert second["answer_type"] == "CW"
    types = [record["answer_type"] for record in records(convert("nextqa-mc") / "mc_train.jsonl")]
    assert types[:4] == ["CH", "TN", "TN", "TN"], "TP, the fourth, counts as TN"


def test_open_ended_nextqa_has_second_answers(convert: Convert):
    out = convert("nextqa-oe", "--num-answers", "3")
    first, second = records(out / "oe_test.jsonl")[:2]
    assert (first["answer"], first["answer_type"], first["references"]) == ("18", "DC", ["a ring"])
    assert second["question_id"] == "24010_1"
    assert "references" not in second, "of the first question alone"
    assert not any("references" in record for record in records(out / "oe_train.jsonl"))
    assert len(json.loads((out / "oe_answers.json").read_text())) == 3


def test_ssv2_has_two_tasks_and_draws_or_reads_the_test(convert: Convert, tool: Callable, tmp_path: Path, capsys: Any):
    out = convert("ssv2-label")
    assert records(out / "label_train.jsonl") == captions({i: f"{i}.webm" for i in range(1, 7)}, per_video=1)
    assert not (out / "label_val.jsonl").read_text(), "all other videos are tested on"
    templates = [record["caption"] for record in records(out / "template_test.jsonl")]
    assert templates == ["Moving something near something", "Moving something to something"] * 3
    said = capsys.readouterr().out
    assert "the test videos are drawn with seed 42: not those of the paper, see --test-list" in said
    assert "warning: val videos: 0 (drawn here, not published; 522 wanted)" in said
    assert "warning: test videos: 6 (drawn here, not published; 2,088 wanted)" in said
    module = tool("dataset_converters/ssv2.py")
    lists = [
        json.dumps([{"caption": "a", "video": ["12.webm", "8.webm"]}, {"caption": "b", "video": "9.webm"}]),
        "12\n8\n9\n",
    ]
    for content in lists:
        (tmp_path / "list").write_text(content)
        module.main([str(tmp_path / "ssv2-label"), "--test-list", str(tmp_path / "list"), str(tmp_path / "out")])
        assert [record["video"] for record in records(out / "label_test.jsonl")] == ["8.webm", "9.webm", "12.webm"]
        said = capsys.readouterr().out
        assert "warning: test videos: 3 (published: 2,088, so 2,085 are missing)" in said
        assert "warning: val videos: 3 (drawn here, not published; 522 wanted)" in said
    (tmp_path / "list").write_text("1\n")
    with pytest.raises(
        AnnotationError, match=r"list, line 1: expected a video of the publisher's validation file, got '1'"
    ):
        module.main([str(tmp_path / "ssv2-label"), "--test-list", str(tmp_path / "list"), str(tmp_path / "out")])


def test_a_draw_has_as_many_videos_of_each_template(convert: Convert, tool: Callable, tmp_path: Path):
    convert("ssv2-label")
    module = tool("dataset_converters/ssv2.py")
    module.VIDEOS_A_TEMPLATE = {"val": 1, "test": 2}
    draws = set()
    for seed in range(6):
        module.main([str(tmp_path / "ssv2-label"), "--seed", str(seed), str(tmp_path / "out")])
        drawn = records(tmp_path / "out" / "annotations" / "template_test.jsonl")
        assert [sum("near" in record["caption"] for record in drawn), len(drawn)] == [2, 4]
        val = records(tmp_path / "out" / "annotations" / "template_val.jsonl")
        assert {record["caption"] for record in val} == {record["caption"] for record in drawn}
        assert [len(val), sum(record in drawn for record in val)] == [2, 0]
        draws.add(tuple(record["video"] for record in drawn))
    assert len(draws) > 2


@pytest.mark.parametrize(("name", "folder"), [("coco", "val2014/"), ("flickr30k", "")])
def test_karpathy_s_splits_become_image_retrieval(
    convert: Convert, name: str, folder: str, capsys: pytest.CaptureFixture
):
    out = convert(name)
    for split, numbers in (("train", range(1, 7)), ("val", range(7, 10)), ("test", range(10, 13))):
        expected = captions({number: f"{folder}{number}.jpg" for number in numbers}, "image")
        assert records(out / f"retrieval_{split}.jsonl") == expected
    published = {"coco": "5,000, so 4,997", "flickr30k": "1,000, so 997"}[name]
    assert f"retrieval_test.jsonl: images: 3 (published: {published} are missing)" in capsys.readouterr().out


@pytest.mark.parametrize("name", PEERS)
def test_other_counts_are_refused_if_strict_and_nothing_is_written(convert: Convert, name: str, tmp_path: Path):
    with pytest.raises(AnnotationError, match=r"are missing.* Nothing is written because of --strict\."):
        convert(name, "--strict")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "file", "old", "new", "message"),
    [
        (
            "msvd",
            "corpus.csv",
            "Language",
            "Tongue",
            r"corpus\.csv, line 1: expected the columns VideoID, Start, End, Language",
        ),
        (
            "msvd",
            "youtube_mapping.txt",
            " vid1\n",
            "\n",
            r"mapping\.txt, line 1: expected a line such as mv89psg6zh4_33_46 vid1",
        ),
        ("msvd", "youtube_mapping.txt", "vid2", "vid1", r"mapping\.txt, line 2: expected each number once"),
        ("msvd", "youtube_mapping.txt", "vid1310", "vid5", r"line 10: expected each number once"),
        (
            "msvd-qa",
            "val_qa.json",
            "1207",
            "7",
            r"val_qa\.json, entry 1: expected a video of MSVD's split val, vid1201 to vid13",
        ),
        (
            "msvd-qa",
            "youtube_mapping.txt",
            "vid1310",
            "vid1900",
            r"mapping\.txt: expected a line for vid1310, got 'none'",
        ),
        (
            "lsmdc",
            "LSMDC16_annos_val.csv",
            "\tcap",
            "\tcap\tpara",
            r"line 1: expected 6 cells between tabs .*, got 7\.",
        ),
        (
            "lsmdc",
            "LSMDC16_annos_val.csv",
            "_00.00.07.926",
            "",
            r"val\.csv, line 1: expected the id of a clip, a movie and",
        ),
        (
            "lsmdc",
            "LSMDC16_challenge_1000_publictect.csv",
            "12.926",
            "10.926",
            r"expected each clip of the test once, got",
        ),
        (
            "vatex",
            "vatex_training_v1.0.json",
            "enCap",
            "chCap",
            r'entry 1: expected a list of captions under the key "enCap"',
        ),
        ("vatex", "test.txt", "-A_b10", "-A_b1", r"test\.txt, line 1: expected a videoID of the file after --val, got"),
        ("vatex", "val.txt", "-A_b8", "-A_b7", r"val\.txt, line 2: expected each name once"),
        (
            "activitynet-qa",
            "val_q.json",
            "a-7_1",
            "a-7_9",
            r"val_q\.json, entry 1: expected a question_id that .*val_a\.json",
        ),
        ("activitynet-qa", "val_a.json", '"type": 7', '"type": 9', r"expected a type from 0 to 8, got 9"),
        ("nextqa-mc", "val.csv", ",a4", ",a5", r"val\.csv, line 1: expected the columns .*, a4, separated by"),
        ("nextqa-mc", "val.csv", "caption 12,1", "caption 12,5", r"line 2: expected an answer from 0 to 4, got '5'"),
        ("nextqa-mc", "val.csv", ",CW,", ",XY,", r"line 3: expected a type of CW, CH, .*, got 'XY'"),
        ("nextqa-mc", "map.json", "24007", "34007", r"val\.csv, line 2: expected a video of .*map\.json, got '24007'"),
        (
            "nextqa-oe",
            "val.csv",
            "type",
            "type,a0",
            r"line 1: expected no options: the files of NExT-OE, not of NExT-QA",
        ),
        ("nextqa-oe", "add_reference_answer_test.json", '"0"', "[0", r"add_reference_answer_test\.json: expected JSON"),
        (
            "ssv2-label",
            "something-something-v2-train.json",
            '"template"',
            '"t"',
            r'entry 1: expected text under the key "temp',
        ),
        (
            "coco",
            "dataset_coco.json",
            '"coco"',
            '"vqa"',
            r'dataset_coco\.json: expected an object whose "dataset" is "coco" or',
        ),
        (
            "coco",
            "dataset_coco.json",
            "restval",
            "rest",
            r"images, entry 1: expected a split of train, restval, val, test",
        ),
        (
            "flickr30k",
            "dataset_flickr30k.json",
            '"2.jpg"',
            '"1.jpg"',
            r"entry 2: expected each image once, got '1\.jpg'",
        ),
    ],
)
def test_bad_files_are_named(convert: Convert, tmp_path: Path, name: str, file: str, old: str, new: str, message: str):
    with pytest.raises(AnnotationError, match=message):
        convert(name, edit=lambda folder: change(folder / file, old, new))
    assert not (tmp_path / "out").exists()
