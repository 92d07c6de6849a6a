"""Indexes: what is added, changed, removed, killed, damaged, or another model's."""

import multiprocessing
import os
import shutil
import signal
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.apis import VideoIndex, VideoIndexError, VideoSearch
from clipbert_mm.apis.indexing import find_videos
from clipbert_mm.apis.video_search import remove
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.errors import BusyFolderError
from clipbert_mm.index import EncodedVideo, Entry, Unreadable

VIDEOS = [f"test_{i:05}.mp4" for i in range(4)]


@pytest.fixture
def videos(world: Path, tmp_path: Path) -> Path:
    """A folder of four videos, one of them below another folder."""
    folder = tmp_path / "videos"
    (folder / "below").mkdir(parents=True)
    for name in VIDEOS:
        shutil.copy(world / "videos" / name, folder / ("below" if name == VIDEOS[3] else "") / name)
    return folder


@pytest.fixture
def search(checkpoint: Path, tmp_path: Path) -> VideoSearch:
    return VideoSearch(checkpoint, index=tmp_path / "gallery")


def change(file: Path, *statements: str) -> None:
    """Change a database as no index does."""
    with closing(sqlite3.connect(file)) as database:
        for statement in statements:
            database.execute(statement)
        database.commit()


def names(paths: tuple[str, ...]) -> list[str]:
    return [os.path.basename(path) for path in paths]


def test_only_what_is_new_or_changed_is_encoded(search: VideoSearch, videos: Path, checkpoint: Path):
    assert names(search.index(videos, workers=0).added) == [VIDEOS[3], *VIDEOS[:3]]
    before = {path: search.video_index.tokens(path) for path in search.video_index.entries}
    shutil.copy(videos / VIDEOS[1], videos / "new.mp4")
    shutil.copy(videos / VIDEOS[2], videos / VIDEOS[0])
    (videos / VIDEOS[1]).unlink()
    encoded = []
    encode = search.predictor.encode_for_index
    search.predictor.encode_for_index = lambda frames, shapes: encoded.extend(frames) or encode(frames, shapes)
    again = VideoSearch(checkpoint, index=search.video_index.folder)
    again.predictor = search.predictor
    report = again.index(videos, workers=0, prune=True)
    assert [names(own) for own in (report.added, report.changed, report.unchanged, report.removed)] == [
        ["new.mp4"],
        [VIDEOS[0]],
        [VIDEOS[2], VIDEOS[3]],
        [VIDEOS[1]],
    ]
    assert len(encoded) == 2
    same, other = (again.video_index.tokens(str(videos / name)) for name in (VIDEOS[2], VIDEOS[0]))
    assert torch.equal(same, before[str(videos / VIDEOS[2])])
    assert torch.equal(other, same)  # it is a copy of it now
    assert len(search.video_index.store.names()) == 4


def test_what_was_read_by_older_rules_is_read_again(search: VideoSearch, videos: Path, checkpoint: Path):
    search.index(videos, workers=0)
    index = search.video_index
    older = [replace(entry, rules=1) for entry in list(index.entries.values())[1:]]
    index.table.put([(entry, None) for entry in older])
    again = VideoSearch(checkpoint, index=search.video_index.folder)
    assert len(again.search("a red circle").hits) == 4, "it can be searched"
    report = again.index(videos, workers=0)
    assert (len(report.changed), len(report.unchanged)) == (3, 1)
    assert len(again.index(videos, workers=0).unchanged) == 4


def test_the_tokens_are_those_of_the_model(search: VideoSearch, videos: Path):
    search.index(videos, workers=1, batch_size=3)
    for path, entry in search.video_index.entries.items():
        media = search.predictor.read(path)
        one_clip = media.frames.reshape(1, -1, *media.frames.shape[2:])
        for which, frames in (("clips", media.frames), ("coarse", one_clip)):
            expected = search.predictor.encode([frames])[0]
            assert torch.allclose(search.video_index.tokens(path, which), expected, atol=2e-3, rtol=1e-3)
        assert np.allclose(entry.clip_times, media.clip_times)
        assert entry.seconds == pytest.approx(media.seconds)


def test_a_video_is_taken_out(search: VideoSearch, videos: Path):
    search.index(videos, workers=0)
    search.remove(videos / VIDEOS[0])
    assert str(videos / VIDEOS[0]) not in VideoIndex(search.video_index.folder).entries
    assert len(search.video_index.store.names()) == 3
    assert (videos / VIDEOS[0]).is_file()
    with pytest.raises(VideoIndexError, match=r"test_00000.mp4 is not in the index .* with clipbert info"):
        search.remove(videos / VIDEOS[0])


def test_unreadable_videos_are_named_and_left_out(search: VideoSearch, videos: Path, break_file: Callable):
    break_file(videos / VIDEOS[0], "empty")
    break_file(videos / VIDEOS[1], "text")
    report = search.index([videos], workers=0)
    assert names(tuple(report.unreadable)) == VIDEOS[:2]
    assert report.unreadable[str(videos / VIDEOS[0])] == "the file is empty (0 bytes)"
    assert len(search.video_index.entries) == 2
    assert f"2 unreadable\n  {videos / VIDEOS[0]}: the file is empty (0 bytes)\n" in str(report)
    # A video that was fine and is broken now is no longer what the gallery shows.
    break_file(videos / VIDEOS[2], "empty")
    search.index(videos, workers=0)
    assert names(tuple(search.video_index.entries)) == [VIDEOS[3]]


def test_a_killed_indexing_goes_on(checkpoint: Path, world: Path, tmp_path: Path):
    folder = tmp_path / "gallery"
    indexing = multiprocessing.get_context("fork").Process(  # which knows the tests' backbone
        target=lambda: VideoSearch(checkpoint, index=folder).index(world / "videos", workers=0, batch_size=1)
    )
    indexing.start()
    while len(list(folder.glob("tokens/*.safetensors"))) < 3:
        assert indexing.is_alive()
        time.sleep(0.001)
    os.kill(indexing.pid, signal.SIGKILL)
    indexing.join()
    assert indexing.exitcode == -signal.SIGKILL
    left = {file.name: file.stat().st_mtime_ns for file in folder.glob("tokens/*.safetensors")}
    assert len(left) < len(list((world / "videos").iterdir())), "it was too quick to be killed half-way"
    search = VideoSearch(checkpoint, index=folder)
    recorded = len(search.video_index.entries)
    assert len(left) - 1 <= recorded <= len(left), "at most the tokens of one video were not recorded yet"
    report = search.index(world / "videos", workers=0)
    assert len(report.unchanged) == recorded
    same = sum((folder / "tokens" / name).stat().st_mtime_ns == written for name, written in left.items())
    assert same == recorded
    assert set(search.video_index.entries) == set(find_videos(world / "videos"))
    whole = VideoSearch(checkpoint, index=tmp_path / "whole")
    whole.index(world / "videos", workers=0, batch_size=1)
    assert all(
        torch.equal(whole.video_index.tokens(path), search.video_index.tokens(path))
        for path in whole.video_index.entries
    )


def test_another_model_is_refused(search: VideoSearch, videos: Path, checkpoint: Path, tmp_path: Path):
    search.index(videos, workers=0)
    other = load_torch(checkpoint, mmap=False)
    other["state_dict"]["projection.conv.weight"] += 1
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(VideoIndexError, match=rf"was made by {checkpoint} \(digest \w+\), not by .*other.pth \(digest"):
        VideoSearch(tmp_path / "other.pth", index=search.video_index.folder)
    other["contents"]["pipelines"]["test"][1]["num_clips"] = 5
    other["state_dict"]["projection.conv.weight"] -= 1
    torch.save(other, tmp_path / "other.pth")
    with pytest.raises(VideoIndexError, match="weights, clips or frame size differ"):
        VideoSearch(tmp_path / "other.pth", index=search.video_index.folder)


def test_another_format_is_refused(search: VideoSearch, videos: Path):
    search.index(videos, workers=0)
    file = search.video_index.folder / "records.sqlite3"
    change(file, "PRAGMA user_version = 99")
    with pytest.raises(
        VideoIndexError, match=r"has format 99, and clipbert_mm .* reads format 2\. Install the release"
    ):
        VideoIndex(search.video_index.folder)
    change(file, "PRAGMA user_version = 2", "CREATE VIEW more AS SELECT 1")
    with pytest.raises(VideoIndexError, match=r"records.sqlite3 has other tables than an index: .*'more'"):
        VideoIndex(search.video_index.folder)
    change(file, "PRAGMA application_id = 1")
    with pytest.raises(VideoIndexError, match=r"records.sqlite3 is not the database of an index of clipbert_mm"):
        VideoIndex(search.video_index.folder)


@pytest.mark.parametrize("name", ["identity", "vectors", "vector_rows", "keeps_tokens"])
@pytest.mark.parametrize("value", [None, '"../x"', "-1", "[", '{"a": 1}'])
def test_facts_that_no_index_has_are_refused(filled: tuple, name: str, value: str | None):
    index, _, _ = filled
    index.table.close()
    statement = f"DELETE FROM facts WHERE name = '{name}'"
    if value is not None:
        statement = f"UPDATE facts SET value = '{value}' WHERE name = '{name}'"
    change(index.table.file, statement)
    if (name, value) == ("identity", '"../x"'):
        assert VideoIndex(index.folder).manifest["identity"] == "../x", "any text may be a digest"
    else:
        with pytest.raises(VideoIndexError, match=r"records.sqlite3 is damaged or "):
            VideoIndex(index.folder)


def test_damaged_tokens_are_named(search: VideoSearch, videos: Path):
    search.index(videos, workers=0)
    path = str(videos / VIDEOS[0])
    file = search.video_index.store.path_of(search.video_index.entries[path].key)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(VideoIndexError, match=rf"Cannot read the visual tokens of {path}: .*index the video again"):
        search.video_index.tokens(path)
    file.unlink()
    again = VideoIndex(search.video_index.folder)
    assert again.states(list(again.entries)) == {other: other != path for other in again.entries}
    assert search.index(videos, workers=0).changed == (path,), "what was lost is encoded again"


def test_another_folder_is_not_touched(tmp_path: Path):
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "a.txt").write_text("dear")
    with pytest.raises(VideoIndexError, match=r"letters is not an index and not empty"):
        VideoIndex(tmp_path / "letters").start("id", "a.pth", "a.pth")


def test_one_process_at_a_time(tmp_path: Path):
    index = VideoIndex(tmp_path / "g")
    with (
        index.locked(),
        pytest.raises(BusyFolderError, match="Another process is changing the index"),
        index.locked(),
    ):
        pass


def test_videos_are_found_by_their_endings(videos: Path, tmp_path: Path):
    (videos / ".hidden.mp4").touch()
    (videos / "notes.txt").touch()
    (videos / "LOUD.MP4").touch()
    found = find_videos([videos, videos / VIDEOS[0]])
    assert names(tuple(found)) == ["LOUD.MP4", *VIDEOS]
    (tmp_path / "none").mkdir()
    with pytest.raises(ValueError, match=r"There is no video in .*none \(suffixes .mp4 "):
        find_videos(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match=r"There is no file or folder .*gone"):
        find_videos(tmp_path / "gone")


def test_an_entry_has_one_file(tmp_path: Path):
    one, two = (Entry(path, 1, 1, None, None, (2, 2)) for path in ("/a.mp4", "/b.mp4"))
    assert one.key != two.key
    assert one.key == Entry("/a.mp4", 9, 9, 1.0, None, (1, 1)).key


@pytest.mark.parametrize("name", ["tokens", "records.sqlite3", "records.sqlite3-journal", "vectors-0.f16", ".lock"])
def test_nothing_is_written_through_a_link(tmp_path: Path, name: str):
    (tmp_path / "index").mkdir()
    (tmp_path / "elsewhere").write_text("dear")
    (tmp_path / "index" / name).symlink_to(tmp_path / ("elsewhere" if name != "records.sqlite3" else "nothing"))
    with pytest.raises(VideoIndexError, match=rf"index/{name} is a .*link"), VideoIndex(tmp_path / "index").locked():
        pass
    assert (tmp_path / "elsewhere").read_text() == "dear"


@pytest.fixture
def filled(tmp_path: Path) -> tuple[VideoIndex, Entry, torch.Tensor]:
    """An index of a video of two clips, its entry, and its tokens."""
    index = VideoIndex(tmp_path / "index")
    index.start("id", "a.pth", "a.pth")
    entry = Entry("/a.mp4", 3, 5, 2.0, ((0.0, 1.0), (1.0, 2.0)), (24, 32))
    tokens = torch.randn(2, 4, 16)
    index.add([EncodedVideo(entry, tokens={"clips": tokens, "coarse": tokens[:1]})])
    return index, entry, tokens


def test_tokens_take_half_precision_on_disk_and_stay_in_memory(filled: tuple):
    index, entry, tokens = filled
    assert index.store.read([entry.key]).dtype == torch.float16
    assert torch.equal(index.tokens("/a.mp4"), tokens.half().float())
    assert torch.equal(index.tokens("/a.mp4", "coarse"), tokens[:1].half().float())
    file = index.store.path_of(entry.key)
    written = file.stat().st_mtime_ns
    file.write_bytes(b"not tokens")
    os.utime(file, ns=(written, written))
    assert torch.equal(index.tokens("/a.mp4"), tokens.half().float()), "what is held is not read again"
    with pytest.raises(VideoIndexError, match="index the video again"):
        VideoIndex(index.folder).tokens("/a.mp4")
    assert index.store.budget == 2**30, "docs/inference.md says 1 GiB"


@pytest.mark.parametrize(
    ("change", "which", "said"),
    [
        (lambda tokens: tokens[0], "clips", r"expected floats of shape \(K, S, D\), got torch.float32 \(4, 16\)"),
        (
            lambda tokens: tokens.to(torch.int32),
            "clips",
            r"expected floats of shape \(K, S, D\), got torch.int32 \(2, 4, 16\)",
        ),
        (
            lambda tokens: tokens[:, :0],
            "coarse",
            r"expected floats of shape \(K, S, D\), got torch.float32 \(2, 0, 16\)",
        ),
        (lambda tokens: tokens[:1], "clips", "expected 2 clips, got 1"),
        (lambda tokens: tokens.repeat(2, 1, 1), "clips", "expected 2 clips, got 4"),
        (lambda tokens: tokens.repeat(2, 1, 1), "coarse", None),
    ],
)
def test_tokens_of_another_shape_are_refused(filled: tuple, change: Callable, which: str, said: str | None):
    index, entry, tokens = filled
    index.store.add(entry.key, {which: change(tokens)}, {"path": entry.path})
    if said is None:
        assert index.tokens("/a.mp4", which).shape == (4, 4, 16)
    else:
        with pytest.raises(VideoIndexError, match=rf"tokens of /a\.mp4: .*{said}\. Delete their file"):
            index.tokens("/a.mp4", which)
    with pytest.raises(VideoIndexError, match=r"The visual tokens of /b\.mp4 are missing\. Index it again\."):
        index.tokens("/b.mp4")


def test_tokens_that_took_the_place_of_others_are_refused(filled: tuple):
    index, entry, tokens = filled
    assert index.tokens("/a.mp4").shape == (2, 4, 16)
    index.store.add(entry.key, {"clips": tokens}, {"path": "/b.mp4"})
    with pytest.raises(VideoIndexError, match="belongs to another video"):
        index.tokens("/a.mp4")


def test_what_cannot_be_read_replaces_what_could_and_back(filled: tuple):
    index, entry, tokens = filled
    index.note_unreadable([Unreadable("/a.mp4", 4, 6, "it is cut")])
    index.note_unreadable([Unreadable("/c.mp4", 1, 1, "it is empty")])
    assert (index.entries, index.store.names()) == ({}, [])
    again = VideoIndex(index.folder)
    assert again.unreadable == index.unreadable
    assert list(again.unreadable) == ["/a.mp4", "/c.mp4"]
    index.add([EncodedVideo(entry, tokens={"clips": tokens})])
    assert list(index.unreadable) == ["/c.mp4"]
    again = VideoIndex(index.folder)
    assert (list(again.entries), list(again.unreadable)) == (["/a.mp4"], ["/c.mp4"])
    assert again.entries["/a.mp4"] == entry
    assert list(again.unreadable) == ["/c.mp4"]
    again.remove(["/c.mp4", "/none.mp4"])
    assert (list(index.entries), index.unreadable) == (["/a.mp4"], {})


def test_a_folder_in_the_place_of_tokens_is_named(filled: tuple):
    index, entry, tokens = filled
    file = index.store.path_of(entry.key)
    file.unlink()
    file.mkdir()
    for change in (
        lambda: index.add([EncodedVideo(entry, tokens={"clips": tokens})]),
        lambda: index.remove(["/a.mp4"]),
    ):
        with pytest.raises(VideoIndexError, match=rf"{file} is a folder, expected a file of visual tokens\. Delete it"):
            change()


def test_videos_are_removed_by_their_paths_and_by_their_folders(tmp_path: Path):
    index = VideoIndex(tmp_path / "index")
    with pytest.raises(VideoIndexError, match=r"There is no index .*/index\."):
        remove(index, "/v")
    index.start("id", "a.pth", "a.pth")
    for path in ("/v/a.mp4", "/v/sub/b.mp4", "/v2/c.mp4", "/w/d.mp4", "/w/e.mp4"):
        index.add([EncodedVideo(Entry(path, 3, 5, None, None, (2, 2)), tokens={"clips": torch.randn(1, 4, 16)})])
    index.note_unreadable([Unreadable("/v/f.mp4", 1, 1, "it is empty")])
    index.store.path_of(index.entries["/w/e.mp4"].key).unlink()
    with pytest.raises(VideoIndexError, match=r"/v3 is not in the index .*/index, nor is anything below it"):
        remove(index, ["/v", "/v3"])
    assert len(VideoIndex(index.folder).entries) == 5, "nothing was removed"
    assert remove(index, ["/v", "/v/a.mp4", "/w/e.mp4"]) == ["/v/a.mp4", "/v/sub/b.mp4", "/v/f.mp4", "/w/e.mp4"]
    assert remove(index, Path("/v2/c.mp4")) == ["/v2/c.mp4"]
    left = VideoIndex(index.folder)
    assert (list(left.entries), left.unreadable) == (["/w/d.mp4"], {})
    assert len(left.store.names()) == 1


def test_files_that_no_index_has_are_not_read(filled: tuple):
    index, entry, _ = filled
    os.truncate(index.store.path_of(entry.key), 2**28 + 1)  # of no blocks
    with pytest.raises(VideoIndexError, match="at most 256 MiB"):
        index.tokens("/a.mp4")


def test_only_what_begins_with_a_point_may_be_in_the_folder_before(tmp_path: Path):
    (tmp_path / ".DS_Store").touch()
    index = VideoIndex(tmp_path)
    index.start("id", "a.pth", "b.pth")
    assert VideoIndex(tmp_path).manifest["weights"] == os.path.abspath("b.pth")
    with pytest.raises(VideoIndexError, match=r"digest id.*c\.pth .*digest other"):
        index.start("other", "c.pth", "d.pth")
