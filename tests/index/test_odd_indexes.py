"""Indexes as only damage or a forger leaves them: pipes, folders, and values of other types in the place of numbers."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import torch

from clipbert_mm.errors import VideoIndexError
from clipbert_mm.index import EncodedVideo, Entry, VideoIndex
from clipbert_mm.index.database import SCHEMA


@pytest.fixture
def index(tmp_path: Path) -> VideoIndex:
    """An index of three videos of two clips each, closed."""
    index = VideoIndex(tmp_path / "index")
    index.start("id", "a.pth", "a.pth", vector_size=8, keeps_tokens=False)
    vectors = torch.nn.functional.normalize(torch.eye(8)[:6] + 0.1, dim=1)
    index.add(
        [EncodedVideo(Entry(f"/v/{i}.mp4", 3, 5, 2.0, None, (2, 2)), vectors[2 * i : 2 * i + 2]) for i in range(3)]
    )
    index.table.close()
    return index


def nearest(index: VideoIndex) -> list[str]:
    return list(VideoIndex(index.folder).nearest(torch.eye(8)[0], 3, pooling="max").similarities)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
@pytest.mark.parametrize("name", ["vectors-0.f16", "records.sqlite3-journal", "records.sqlite3-wal"])
def test_what_is_no_file_is_named_and_keeps_nobody_waiting(index: VideoIndex, name: str, kind: str):
    place = index.folder / name
    place.unlink(missing_ok=True)
    os.mkfifo(place) if kind == "pipe" else place.mkdir()
    with pytest.raises(VideoIndexError, match=rf"{name} is a .*, expected a file of .*\. Delete it\."):
        nearest(index)
    with pytest.raises(VideoIndexError, match=rf"{name} is a .*, expected a file of .*\. Delete it\."):
        VideoIndex(index.folder).add([EncodedVideo(Entry("/v/9.mp4", 3, 5, 2.0, None, (2, 2)), torch.ones(1, 8))])


@pytest.mark.parametrize("name", ["tokens", "parts"])
def test_what_is_no_folder_is_named(index: VideoIndex, name: str):
    (index.folder / name).touch()
    with (
        pytest.raises(VideoIndexError, match=rf"{name} is a file or a pipe, expected a folder\. Delete it\."),
        index.locked(),
    ):
        pass


@pytest.mark.parametrize("value", [b"/", "", "x", 1.5, None, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("column", ["start", "count", "vectors_crc", "path", "record", "record_crc"])
def test_a_column_of_another_type_costs_that_video_alone(index: VideoIndex, column: str, value: object):
    """Put there as if the table were not strict; the tables say that they are."""
    with closing(sqlite3.connect(index.table.file)) as database:
        schema(database, SCHEMA["videos"].replace(" STRICT", "").replace(" NOT NULL", ""))
    with closing(sqlite3.connect(index.table.file)) as database:
        database.execute(f"UPDATE videos SET {column} = ? WHERE id = 1", (value,))
        schema(database, SCHEMA["videos"])
    assert nearest(index) == ["/v/1.mp4", "/v/2.mp4"]
    again = VideoIndex(index.folder)
    if column in ("path", "record", "record_crc"):
        assert list(again.entries) == ["/v/1.mp4", "/v/2.mp4"]
    else:
        assert again.states(["/v/0.mp4"]) == {"/v/0.mp4": False}, "it is indexed again"
        assert [*again.nearest(torch.eye(8)[0], 3, pooling="max").left_out] == ["/v/0.mp4"]


def test_a_fact_of_another_type_is_damage(index: VideoIndex):
    strict = SCHEMA["facts"]
    for sql, change in (
        (strict.replace("STRICT, ", "").replace(" NOT NULL", ""), "UPDATE facts SET value = NULL"),
        (strict, None),
    ):
        with closing(sqlite3.connect(index.table.file)) as database:
            database.execute("PRAGMA writable_schema = ON")
            database.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'facts'", (sql,))
            database.commit()
        if change:
            with closing(sqlite3.connect(index.table.file)) as database:
                database.execute(change)
                database.commit()
    with pytest.raises(VideoIndexError, match=r"records\.sqlite3 is damaged or copied in part"):
        VideoIndex(index.folder)


def test_a_folder_in_the_place_of_tokens_outlasts_compaction(index: VideoIndex):
    folder = index.store.path_of("ab" * 16)
    folder.mkdir(parents=True)
    index.compact(always=True)
    assert folder.is_dir()


def schema(database: sqlite3.Connection, sql: str) -> None:
    """Say that the table of videos was made otherwise."""
    database.execute("PRAGMA writable_schema = ON")
    database.execute("UPDATE sqlite_master SET sql = ? WHERE name = 'videos'", (sql,))
    database.commit()
