"""Annotation files: what they say, and an error that names the line where they cannot be used."""

from pathlib import Path

import pytest

from clipbert_mm.datasets.annotations import read_records
from clipbert_mm.datasets.media_dataset import check_files
from clipbert_mm.errors import AnnotationError

KEYS = {"caption": str}
EXAMPLE = '{"video": "a.mp4", "caption": "what happens in it"}'
GOOD = b'{"video": "a.mp4", "caption": "a cat"}\n'


def write(folder: Path, content: bytes) -> str:
    """Write an annotation file."""
    (folder / "a.jsonl").write_bytes(content)
    return str(folder / "a.jsonl")


def test_records_are_read_in_order_without_blank_lines(tmp_path: Path):
    content = GOOD + b"\n  \n" + '{"caption": "ein Kätzchen", "video": "b.mp4", "more": 1}'.encode() + b"\r\n"
    assert read_records(write(tmp_path, content), KEYS, EXAMPLE) == [
        {"caption": "a cat", "media": "a.mp4"},
        {"caption": "ein Kätzchen", "more": 1, "media": "b.mp4"},
    ]


@pytest.mark.parametrize(
    ("record", "media"),
    [
        ('{"clip_name": "video7", "caption": "a"}', "video7"),
        ('{"gif_name": "tumblr_x", "caption": "a"}', "tumblr_x"),
        ('{"image_id": 42, "caption": "a"}', "42"),
        ('{"vg_id": "498335", "caption": "a"}', "498335"),
        ('{"video_id": "b", "video": "a.mp4", "caption": "a"}', "a.mp4"),
    ],
)
def test_the_release_s_names_of_files_are_read_too(tmp_path: Path, record: str, media: str):
    (found,) = read_records(write(tmp_path, record.encode()), KEYS, EXAMPLE)
    assert found["media"] == media


@pytest.mark.parametrize(
    ("kind", "value", "message"),
    [
        (list, '"a"', r'expected a list under the key "x", got \'a\''),
        (int, "1.5", r'expected a whole number under the key "x", got 1.5'),
        (int, "true", r'expected a whole number under the key "x", got True'),
        ((int, float), '"2"', r'expected a number under the key "x", got \'2\''),
    ],
)
def test_a_value_of_another_type_is_refused(tmp_path: Path, kind: type, value: str, message: str):
    path = write(tmp_path, GOOD[:-2] + f', "x": {value}}}'.encode())
    with pytest.raises(AnnotationError, match=rf"a\.jsonl, line 1: {message}"):
        read_records(path, {"x": kind}, EXAMPLE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"a\.jsonl is empty\. It needs lines such as \{.*\"caption\": .*\}\."),
        (b"\n\n", r"a\.jsonl is empty"),
        (GOOD + b"\nvideo,caption\n", r"a\.jsonl, line 3: expected a JSON object such as .*, got 'video,caption'"),
        (GOOD + GOOD[:-3], r"line 2: expected a JSON object such as .*Unterminated string"),
        (b'["a.mp4", "a cat"]\n', r"line 1: expected a JSON object such as .*, got \['a\.mp4', 'a cat'\]"),
        (GOOD + b'{"video": "b.mp4"}\n', r"line 2: expected text under the key \"caption\", got the keys \['video'\]"),
        (GOOD + b'{"video": 7, "caption": "a"}\n', r"line 2: expected text under the key \"video\", got 7"),
        (b'{"video": "a.mp4", "caption": " "}\n', r"line 1: expected text under the key \"caption\", got ' '"),
        (GOOD + "{'video'".encode("utf-16"), r"line 2: expected UTF-8, got UTF-16\. Save the file as UTF-8"),
        (GOOD + '{"video": "é.mp4", "caption": "x"}'.encode("latin-1"), r"line 2: expected UTF-8, got .* byte 0xe9"),
    ],
    ids=["empty", "blank", "csv", "cut", "list", "lacks-key", "number", "spaces", "utf-16", "latin-1"],
)
def test_a_file_that_cannot_be_used_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str):
    with pytest.raises(AnnotationError, match=message):
        read_records(write(tmp_path, content), KEYS, EXAMPLE)


def test_a_missing_file_is_named_with_what_to_set(tmp_path: Path):
    with pytest.raises(
        AnnotationError, match=rf"no annotation file {tmp_path}/none\.jsonl\. Set data_root and ann_file"
    ):
        read_records(str(tmp_path / "none.jsonl"), KEYS, EXAMPLE)


def test_missing_videos_are_counted_and_the_first_is_named(tmp_path: Path):
    (tmp_path / "b.mp4").touch()
    (tmp_path / "frames").mkdir()  # of a video whose frames lie there
    paths = [str(tmp_path / name) for name in ("b.mp4", "a.mp4", "frames", "c.mp4")]
    with pytest.raises(
        AnnotationError, match=rf"2 of 4 files named in x\.jsonl are missing; the first is '{paths[1]}'"
    ):
        check_files(paths, "x.jsonl")
    assert check_files(paths[:1], "x.jsonl") is None
