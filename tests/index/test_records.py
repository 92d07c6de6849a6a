"""What an index keeps of a file: whether it changed since, and what a manifest may say."""

import json
import os
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from clipbert_mm.index.records import Entry, Unreadable, entry_from, file_digest, shown, unreadable_from


@pytest.fixture
def entry(tmp_path: Path) -> Entry:
    """The record of a file of three bytes, as one that is read now has it."""
    path = tmp_path / "a.mp4"
    path.write_bytes(b"abc")
    rules = Unreadable("", 0, 0, "").rules
    return Entry(str(path), 3, path.stat().st_mtime_ns, 2.5, ((0.0, 1.0), (1.0, 2.5)), (24, 32), rules)


CHANGES: dict[str, Callable[[Path, int], object]] = {
    "size": lambda path, written: (path.write_bytes(b"abcd"), os.utime(path, ns=(written, written))),
    "time": lambda path, written: os.utime(path, ns=(written, written + 1)),
    "gone": lambda path, written: path.unlink(),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_file_is_told_by_its_size_and_by_its_time(entry: Entry, change: str):
    unreadable = Unreadable(entry.path, entry.size, entry.mtime_ns, "it is empty")
    assert entry.is_current()
    assert entry.is_up_to_date()
    assert unreadable.is_current()
    os.utime(entry.path, ns=(5, entry.mtime_ns))
    assert entry.is_current(), "it was only read"
    CHANGES[change](Path(entry.path), entry.mtime_ns)
    assert not entry.is_current()
    assert not entry.is_up_to_date()
    assert not unreadable.is_current()


def test_what_was_read_by_other_rules_is_current_and_not_up_to_date(entry: Entry):
    older = replace(entry, rules=1)
    assert older.is_current()
    assert not older.is_up_to_date()
    assert not Unreadable(entry.path, entry.size, entry.mtime_ns, "it is empty", rules=1).is_current()
    assert not Entry("/a\0b.mp4", 3, 3, None, None, (1, 1)).is_current(), "no file can have this name"


def test_records_go_through_json(entry: Entry):
    for each in (entry, replace(entry, seconds=None, clip_times=None), replace(entry, seconds=2)):
        assert entry_from(json.loads(json.dumps(asdict(each)))) == each
    old = asdict(entry)
    del old["rules"]
    assert entry_from(json.loads(json.dumps(old))) == replace(entry, rules=1), "releases that had no rules"
    unreadable = Unreadable(entry.path, 3, 5, "it is empty", rules=2)
    assert unreadable_from(json.loads(json.dumps(asdict(unreadable)))) == unreadable


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("path", "a.mp4", ValueError), ("path", 3, TypeError), ("size", True, TypeError), ("size", 3.5, TypeError),
        ("mtime_ns", "3", TypeError), ("seconds", "3", TypeError), ("seconds", float("nan"), TypeError),
        ("clip_times", [[0, 1, 2]], ValueError), ("clip_times", [[0, "1"]], TypeError),
        ("clip_times", [[float("inf"), 1]], TypeError), ("clip_times", 3, TypeError), ("content_shape", "34", TypeError),
        ("content_shape", [3, 4, 5], ValueError), ("content_shape", [3, 4.5], TypeError),
        ("content_shape", [None, 4], TypeError), ("rules", None, TypeError),
    ],
)  # fmt: skip
def test_what_a_manifest_may_not_say(entry: Entry, name: str, value: Any, error: type[Exception]):
    values = json.loads(json.dumps(asdict(entry)))
    with pytest.raises(error) as caught:
        entry_from(values | {name: value})
    if error is TypeError and value != 3:
        assert str(caught.value).startswith(f"{name} is ")
    if name != "rules":
        del values[name]
        with pytest.raises(KeyError):
            entry_from(values)


@pytest.mark.parametrize(
    ("value", "said"),
    [("/a/b.pth", "/a/b.pth"), ("a" * 200, "a" * 200), ("a" * 201, "'aaaaaaaaaa"), ("a\nb", r"'a\nb'"), (3, "3"),
     (None, "None")],
)  # fmt: skip
def test_values_of_a_manifest_are_shown_plainly_where_they_can_be(value: Any, said: str):
    found = shown(value)
    assert found.startswith(said)
    assert found == said or len(value) > 200


def test_a_digest_tells_copies_from_other_files(tmp_path: Path):
    large = bytes(2**20) + b"middle" + bytes(2**20)
    for name, content in {
        "a": b"abc",
        "b": b"abc",
        "c": b"abd",
        "d": b"",
        "e": large,
        "f": large,
        "g": large + b"x",
    }.items():
        (tmp_path / name).write_bytes(content)
    found = {name: file_digest(tmp_path / name) for name in "abcdefg"}
    assert found["a"] == found["b"]
    assert found["e"] == found["f"]
    assert len(set(found.values())) == 5
    assert {len(digest) for digest in found.values()} == {32}
