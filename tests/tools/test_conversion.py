"""What converters share: files are read strictly, with the place of what is wrong, and written whole or not at all."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import conversion
import pytest

from clipbert_mm import json_text
from clipbert_mm.errors import AnnotationError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file to be written to."""
    return tmp_path / "file.txt"


@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table_is_read_with_either_separator(file: Path, separator: str):
    rows = ["key|video_id|sentence", "r0|video1|a man", "", 'r1|video2|"a dog, or; a ""cat"""']
    file.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(rows).replace("|", separator).encode())
    assert list(conversion.read_table(file, ("video_id", "sentence"), ",;")) == [
        (2, {"key": "r0", "video_id": "video1", "sentence": "a man"}),
        (4, {"key": "r1", "video_id": "video2", "sentence": 'a dog, or; a "cat"'}),
    ]


@pytest.mark.parametrize("separator", ",;")
def test_a_header_may_stand_in_quotation_marks(file: Path, separator: str):
    file.write_text('"key"|"a"\n"k0"|"x"\n'.replace("|", separator))
    assert list(conversion.read_table(file, ("a",), ",;")) == [(2, {"key": "k0", "a": "x"})]


def test_between_tabs_quotation_marks_are_characters_save_around_a_cell(file: Path):
    file.write_text('"a"\tb\n"5 inches\tsix"\n"say ""no"""\t"\n')
    assert list(conversion.read_table(file, ("a", "b"), "\t")) == [
        (2, {"a": '"5 inches', "b": 'six"'}),
        (3, {"a": 'say "no"', "b": '"'}),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a|b\n1|2\n", r"file\.txt, line 1: expected the columns a, b, separated by ',' or ';', got 'a\|b'\."),
        (b"a,c\n1,2\n", r"line 1: expected the columns a, b, separated by ',' or ';', got 'a,c'\."),
        (b"", r"line 1: expected the columns a, b"),
        (b"a,b\n1,2\n\n1,2,3\n", r"line 4: expected 2 cells between ',', got 3\."),
        (b'a,b\n1,2\n3,"4\n5,6\n', r"line 3: expected a row, got a quotation mark that nothing closes\."),
        (b'a,b\n1,"' + b"2" * 140_000, r"line 2: expected a row, got field larger than field limit"),
        (b"a,b\n1,\xff\n", r"line 2: expected UTF-8, got 'utf-8' codec can't decode byte 0xff"),
    ],
)
def test_a_table_that_cannot_be_read_is_named_with_the_line(file: Path, content: bytes, message: str):
    file.write_bytes(content)
    with pytest.raises(AnnotationError, match=message):
        list(conversion.read_table(file, ("a", "b"), ",;"))


def test_objects_are_read_with_their_places(file: Path):
    file.write_text('[{"a": 1}, {"a": 2}]')
    assert list(conversion.read_entries(file)) == [(f"{file}, entry 1", {"a": 1}), (f"{file}, entry 2", {"a": 2})]
    file.write_text('{"a": 1}\n\n{"a": 2}\n')
    assert list(conversion.read_json_lines(file)) == [(f"{file}, line 1", {"a": 1}), (f"{file}, line 3", {"a": 2})]
    file.write_text('{"v_a": {"b": 1}, "v_c": {"b": 2}}')
    assert conversion.read_json_by_id(file) == {"v_a": {"b": 1}, "v_c": {"b": 2}}


@pytest.mark.parametrize(
    ("reader", "content", "message"),
    [
        ("read_json", '{"a":\n 1', r"file\.txt, line 2: expected JSON, got '\{\"a\":.* \(Expecting ',' delimiter\)\."),
        ("read_entries", '{"a": 1}', r"file\.txt: expected a JSON list of objects, got \{'a': 1\}\."),
        ("read_entries", "[]", r"expected a JSON list of objects, got \[\]\."),
        ("read_entries", '[{"a": 1}, 2]', r"entry 2: expected a JSON object, got 2\."),
        ("read_json_lines", '{"a": 1}\na, b', r"line 2: expected a JSON object, got 'a, b' \(Expecting value\)\."),
        ("read_json_lines", "[1]", r"line 1: expected a JSON object, got \[1\]\."),
        ("read_json_by_id", "[1]", r"expected a JSON object from ids to objects, got \[1\]\."),
        ("read_json_by_id", "{}", r"expected a JSON object from ids to objects, got \{\}\."),
        ("read_json_by_id", '{"v": 1}', r"'v': expected a JSON object, got 1\."),
        ("read_json_by_id", '{"v": {}, "v": {}}', r"expected each key of an object once, got 'v' again\."),
    ],
)
def test_json_of_another_form_is_named(file: Path, reader: str, content: str, message: str):
    file.write_text(content)
    with pytest.raises(AnnotationError, match=message):
        list(getattr(conversion, reader)(file))


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(AnnotationError, match=rf"There is no file {tmp_path}/none\.json\."):
        conversion.read_json(tmp_path / "none.json")


def test_values_are_checked_by_type():
    entry = {"text": " a b ", "blank": " ", "number": 3, "truth": True}
    assert conversion.text_in(entry, "text", "x") == "a b"
    assert conversion.text_in(entry, "blank", "x", may_be_blank=True) == ""
    assert conversion.whole_number_in(entry, "number", "x") == 3
    for key, got in (
        ("blank", "got ' '"),
        ("number", "got 3"),
        ("none", r"has \['blank', 'number', 'text', 'truth'\]"),
    ):
        with pytest.raises(AnnotationError, match=rf'^x: expected text under the key "{key}", {got}\.'):
            conversion.text_in(entry, key, "x")
    for key in ("text", "truth", "none"):
        with pytest.raises(AnnotationError, match=f'^x: expected a whole number under the key "{key}"'):
            conversion.whole_number_in(entry, key, "x")


@pytest.mark.parametrize("suffix", ["mp4", "."])
def test_a_suffix_without_a_dot_is_refused(suffix: str):
    with pytest.raises(AnnotationError, match=rf"--suffix: expected a file ending such as \.mp4, got '{suffix}'"):
        conversion.check_suffix(suffix)
    for right in (".mkv", "", None):
        conversion.check_suffix(right)


def test_records_appear_whole_or_not_at_all(tmp_path: Path):
    target = tmp_path / "new" / "records.jsonl"

    def failing() -> Iterator[dict[str, int]]:
        yield {"a": 1}
        raise RuntimeError("the disk is full")

    with pytest.raises(RuntimeError, match="the disk is full"):
        json_text.write_records(failing(), target)
    assert os.listdir(target.parent) == []
    assert json_text.write_records([{"a": "é"}, {"a": 2}], target) == 2
    with pytest.raises(RuntimeError, match="the disk is full"):
        json_text.write_records(failing(), target)
    assert [json.loads(line) for line in target.read_text(encoding="utf-8").splitlines()] == [{"a": "é"}, {"a": 2}]
    assert os.listdir(target.parent) == ["records.jsonl"]


def test_strict_counts_raise_where_they_differ():
    counts = [("videos", 3, 3), ("captions", 61, 60), ("answers", 5, None)]
    assert conversion.compare_counts(counts, strict=False) == [
        "videos: 3 (as published)",
        "warning: captions: 61 (published: 60, so 1 is too many)",
        "answers: 5",
    ]
    with pytest.raises(AnnotationError, match=r"^captions: 61 .*Nothing is written because of --strict\.$"):
        conversion.compare_counts(counts, strict=True)
    assert len(conversion.compare_counts(counts[::2], strict=True)) == 2
