"""DiDeMo and ActivityNet Captions, converted from small files in the publishers' formats: a paragraph a video."""

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from clipbert_mm.errors import AnnotationError


def records(path: Path) -> list[dict]:
    """The records of a JSON-lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def didemo(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("dataset_converters/didemo.py")


@pytest.fixture(scope="module")
def activitynet(tool: Callable[[str], ModuleType]) -> ModuleType:
    return tool("dataset_converters/activitynet_captions.py")


def change(path: Path, old: str, new: str) -> None:
    """Replace a text in a file, once."""
    text = path.read_bytes()
    assert old.encode() in text
    path.write_bytes(text.replace(old.encode(), new.encode("latin-1"), 1))


def didemo_entries(path: Path) -> list[dict]:
    """Write two videos as DiDeMo has them, and return their entries."""
    told = [
        (7, "b@N00_1.mov", "a dog runs."),
        (9, "a@N00_2.avi", " first time"),
        (3, "b@N00_1.mov", "é "),
        (1, "b@N00_1.mov", ""),
    ]
    entries = [
        {
            "annotation_id": number,
            "video": video,
            "description": text,
            "times": [[0, 0]],
            "num_segments": 6,
            "dl_link": "x",
        }
        for number, video, text in told
    ]
    path.write_text(json.dumps(entries))
    return entries


def test_didemo_has_a_paragraph_a_video(didemo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture):
    didemo_entries(tmp_path / "val_data.json")
    didemo.main(["--val", str(tmp_path / "val_data.json"), str(tmp_path)])
    assert records(tmp_path / "annotations" / "val.jsonl") == [
        {"video": "b@N00_1.mov", "caption": "a dog runs. é"},
        {"video": "a@N00_2.avi", "caption": "first time"},
    ]
    names = ["val.jsonl", "val_sentences.jsonl"]
    assert sorted(path.name for path in (tmp_path / "annotations").iterdir()) == names
    printed = capsys.readouterr().out.splitlines()
    assert "warning: val.jsonl: val videos: 2 (published: 1,065, so 1,063 are missing)" in printed
    assert "warning: val.jsonl: sentences: 4 (published: 4,180, so 4,176 are missing)" in printed


def test_didemo_has_a_line_a_sentence_with_the_times_that_three_annotators_chose(
    didemo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
):
    entries = didemo_entries(tmp_path / "val_data.json")
    times = [
        [[0, 0], [0, 1], [0, 0], [4, 5]],  # segment 0
        [[1, 2], [2, 3], [2, 2], [1, 3], [5, 5], [5, 5], [5, 5]],  # 2 and 5, of seven annotators
        [[0, 0], [1, 1], [2, 2], [2, 2]],  # none
        [[0, 5]] * 4,  # of a sentence without text
    ]
    for entry, own in zip(entries, times, strict=True):
        entry["times"] = own
    entries.append(entries[0] | dict(annotation_id=2, description="all", times=[[0, 5], [1, 4], [3, 5], [2, 4]]))
    (tmp_path / "val_data.json").write_text(json.dumps(entries))
    didemo.main(["--val", str(tmp_path / "val_data.json"), str(tmp_path)])
    assert records(tmp_path / "annotations" / "val_sentences.jsonl") == [
        {"video": "b@N00_1.mov", "caption": "a dog runs.", "spans": [[0, 5]]},
        {"video": "b@N00_1.mov", "caption": "é"},
        {"video": "b@N00_1.mov", "caption": "all", "spans": [[10, 25]]},
        {"video": "a@N00_2.avi", "caption": "first time", "spans": [[10, 15], [25, 30]]},
    ]
    assert "val_sentences.jsonl: 4 sentences, 1 of them without times" in capsys.readouterr().out


def test_didemo_takes_another_ending_and_warns_of_shared_videos(
    didemo: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
):
    entries = didemo_entries(tmp_path / "train.json")
    (tmp_path / "test.json").write_text(json.dumps(entries[1:2]))
    files = ["--train", str(tmp_path / "train.json"), "--test", str(tmp_path / "test.json")]
    didemo.main([*files, "--suffix", ".mp4", str(tmp_path)])
    names = [record["video"] for record in records(tmp_path / "annotations" / "train.jsonl")]
    assert names == ["b@N00_1.mp4", "a@N00_2.mp4"]
    printed = capsys.readouterr().out.splitlines()
    assert "warning: train.jsonl: train videos: 2 (published: 8,395, so 8,393 are missing)" in printed
    assert "warning: videos that both train and test have: 1, such as 'a@N00_2'" in printed
    with pytest.raises(AnnotationError, match=r"Nothing is written because of --strict\."):
        didemo.main([*files, str(tmp_path / "strict"), "--strict"])
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"video": "a@', '"clip": "a@', r'val\.json, entry 2: expected text under the key "video", has'),
        (
            '"description": "a dog runs."',
            '"description": 4',
            r'entry 1: expected text under the key "description", got 4',
        ),
        ('"annotation_id": 9', '"annotation_id": 7', r"entry 2: expected each annotation_id once, got 7 again\."),
        (
            '"annotation_id": 9',
            '"annotation_id": null',
            r'entry 2: expected a whole number under the key "annotation_id"',
        ),
        (" first time", " ", r"val\.json, 'a@N00_2\.avi': expected at least one sentence with text, got"),
        (" first time", "caf\xe9", r"val\.json, line 1: expected UTF-8, got"),
        ('"times": [[0, 0]]', '"times": []', r'entry 1: expected segments under the key "times", .* or more, got \[\]'),
        ('"times": [[0, 0]]', '"time": [[0, 0]]', r'entry 1: expected segments under the key "times", .*, got None\.'),
        (
            "[[0, 0]]",
            "[[0, 6]]",
            r'entry 1: expected segments under the key "times", \[first, last\] from 0 to 5, .*6\]',
        ),
        ("[[0, 0]]", "[[2, 1]]", r'expected segments under the key "times", .*, got \[2, 1\]\.'),
        ("[[0, 0]]", "[[0, 0.5]]", r'expected segments under the key "times", .*, got \[0, 0\.5\]\.'),
        ("[[0, 0]]", "[0, 0]", r'expected segments under the key "times", .*, got 0\.'),
    ],
)
def test_bad_didemo_files_are_named(didemo: ModuleType, tmp_path: Path, old: str, new: str, message: str):
    didemo_entries(tmp_path / "val.json")
    change(tmp_path / "val.json", old, new)
    with pytest.raises(AnnotationError, match=message):
        didemo.main(["--val", str(tmp_path / "val.json"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def write_activitynet(path: Path, *videos: str) -> None:
    """Write videos as ActivityNet Captions has them."""
    entry = {
        "duration": 82.73,
        "timestamps": [[30.5, 60], [0.83, 19.86], [0.83, 12], [70, 82.7]],
        "sentences": [" Then he falls. ", "A man climbs.", "There is a wall.", " "],
    }
    path.write_text(json.dumps(dict.fromkeys(videos, entry)))


def test_activitynet_has_a_paragraph_a_video_in_the_order_of_time(
    activitynet: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
):
    write_activitynet(tmp_path / "train.json", "v_a", "v_b")
    write_activitynet(tmp_path / "val_1.json", "v_c")
    files = ["--train", str(tmp_path / "train.json"), "--val", str(tmp_path / "val_1.json")]
    activitynet.main([*files, str(tmp_path)])
    paragraph = "There is a wall. A man climbs. Then he falls."
    assert records(tmp_path / "annotations" / "train.jsonl") == [
        {"video": "v_a.mp4", "caption": paragraph},
        {"video": "v_b.mp4", "caption": paragraph},
    ]
    assert records(tmp_path / "annotations" / "val1.jsonl") == [{"video": "v_c.mp4", "caption": paragraph}]
    printed = capsys.readouterr().out.splitlines()
    assert "warning: train.jsonl: train videos: 2 (published: 10,009, so 10,007 are missing)" in printed
    assert "warning: val1.jsonl: val1 videos: 1 (published: 4,917, so 4,916 are missing)" in printed
    with pytest.raises(AnnotationError, match=r"Nothing is written because of --strict\."):
        activitynet.main([*files, str(tmp_path / "strict"), "--strict"])


def test_activitynet_finds_the_ending_of_each_video(
    activitynet: ModuleType, tmp_path: Path, capsys: pytest.CaptureFixture
):
    write_activitynet(tmp_path / "train.json", "v_a", "v_b", "v_c.d", "v_e")
    (tmp_path / "videos").mkdir()
    for name in ("v_a.webm", "v_b.webm", "v_b.mkv", "v_c.d.mp4", "v_e.txt", "v_f.mp4"):
        (tmp_path / "videos" / name).touch()
    command = ["--train", str(tmp_path / "train.json"), "--suffix", ".avi", str(tmp_path), "--videos"]
    activitynet.main([*command, str(tmp_path / "videos")])
    names = [record["video"] for record in records(tmp_path / "annotations" / "train.jsonl")]
    assert names == ["v_a.webm", "v_b.mkv", "v_c.d.mp4", "v_e.avi"]
    assert "warning: train.jsonl: 1 of 4 videos are not in " in capsys.readouterr().out
    with pytest.raises(
        AnnotationError, match=r"There is no folder .*nowhere\. --videos takes the folder of the videos\."
    ):
        activitynet.main([*command, str(tmp_path / "nowhere")])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            '"timestamps"',
            '"times"',
            r'v_a.: expected a list under the key "timestamps", got \'the keys duration, times, sent',
        ),
        (
            '"sentences": [',
            '"sentences": ["one more", ',
            r"v_a': expected a timestamp for each of 5 sentences, got 4\.",
        ),
        ("[0.83, 12]", "[0.83]", r"v_a': expected timestamps of two numbers, in seconds, got \[0\.83\]\."),
        ("[0.83, 12]", '["0", "12"]', r"v_a': expected timestamps of two numbers, in seconds"),
        ('"A man climbs."', "3", r"v_a': expected sentences of text, got 3\."),
        ('"v_b"', '"v_a"', r"train\.json: expected each key of an object once, got 'v_a' again\."),
        ("A man", "caf\xe9", r"train\.json, line 1: expected UTF-8, got"),
    ],
)
def test_bad_activitynet_files_are_named(activitynet: ModuleType, tmp_path: Path, old: str, new: str, message: str):
    write_activitynet(tmp_path / "train.json", "v_a", "v_b")
    change(tmp_path / "train.json", old, new)
    with pytest.raises(AnnotationError, match=message):
        activitynet.main(["--train", str(tmp_path / "train.json"), str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["didemo", "activitynet"])
def test_a_command_line_without_files_is_refused(
    name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture
):
    with pytest.raises(SystemExit):
        request.getfixturevalue(name).main(["out"])
    assert "name a file: --train, --val" in capsys.readouterr().err
