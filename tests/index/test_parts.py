"""Parts of an index: what several processes wrote is moved into it, whole, once, and after kills."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.errors import BusyFolderError, VideoIndexError
from clipbert_mm.index import EncodedVideo, Entry, Unreadable, VideoIndex
from clipbert_mm.index.record_table import RecordTable
from clipbert_mm.media import DECODING_RULES

WIDTH = 8


def video(number: int, *, tokens: bool, seed: int = 0) -> EncodedVideo:
    """A video of two clips with vectors, and tokens if they are kept."""
    rng = torch.Generator().manual_seed(100 * seed + number)
    vectors = torch.nn.functional.normalize(torch.randn(2, WIDTH, generator=rng), dim=1)
    own = {"clips": torch.randn(2, 3, 4, generator=rng)} if tokens else None
    return EncodedVideo(Entry(f"/v/{number:03}.mp4", 3, 5, 2.0, ((0.0, 1.0), (1.0, 2.0)), (24, 32)), vectors, own)


def new_index(folder: Path, *, tokens: bool, identity: str = "id") -> VideoIndex:
    index = VideoIndex(folder)
    index.start(identity, "a.pth", "a.pth", vector_size=WIDTH, keeps_tokens=tokens)
    return index


def assert_equal(index: VideoIndex, videos: list[EncodedVideo]) -> None:
    """Check that an index has some videos and nothing else."""
    again = VideoIndex(index.folder)
    assert dict(again.entries) == {each.entry.path: each.entry for each in videos}
    for each in videos:
        assert torch.equal(again.vectors(each.entry.path), each.vectors.half().float())
        if each.tokens is not None:
            assert torch.equal(again.tokens(each.entry.path), each.tokens["clips"].half().float())
    kept = {each.entry.key for each in videos if each.tokens is not None}
    assert set(index.store.names()) == kept
    assert not (index.folder / "parts").exists()


@pytest.mark.parametrize("tokens", [False, True])
def test_parts_are_moved_whole(tmp_path: Path, tokens: bool):
    index = new_index(tmp_path / "index", tokens=tokens)
    videos = [video(i, tokens=tokens) for i in range(20)]
    index.add(videos[:3])
    for number, processes, own in ((0, 2, videos[3:10]), (1, 2, videos[10:14]), (2, 3, videos[14:])):  # of two runs
        part = index.part(number, processes)
        part.add(own)
        part.note_unreadable([Unreadable(f"/v/broken{number}.mp4", 1, 1, "it is cut")])
    assert index.absorb_parts() == 17
    assert_equal(index, videos)
    assert list(index.unreadable) == [f"/v/broken{number}.mp4" for number in range(3)]
    assert index.absorb_parts() == 0


def test_newer_versions_replace_older_ones_and_equal_ones_are_not_written_twice(tmp_path: Path):
    index = new_index(tmp_path / "index", tokens=True)
    file = tmp_path / "0.mp4"
    file.write_bytes(b"abc")
    entry = Entry(str(file), 3, file.stat().st_mtime_ns, 2.0, ((0.0, 1.0), (1.0, 2.0)), (24, 32), DECODING_RULES)
    same = EncodedVideo(entry, torch.ones(2, WIDTH), {"clips": torch.ones(2, 3, 4)})
    old, new = video(1, tokens=True), video(1, tokens=True, seed=1)
    index.add([same, old])
    part = index.part(0, 1)
    part.add([same, new])
    rows = index.manifest["vector_rows"]
    assert index.absorb_parts() == 1
    assert index.manifest["vector_rows"] == rows + 2
    assert_equal(index, [same, new])


def test_a_move_reads_the_rows_of_an_index_once_however_many_videos_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """A video of the index that is damaged is replaced, and one that is whole is not, in the first batch and in the last."""
    monkeypatch.setattr("clipbert_mm.index.parts.VIDEOS_AT_ONCE", 3)
    index, videos = new_index(tmp_path / "index", tokens=False), []
    for number in range(30):
        file = tmp_path / f"{number:02}.mp4"
        file.write_bytes(b"abc")
        times = ((0.0, 1.0), (1.0, 2.0))
        entry = Entry(str(file), 3, file.stat().st_mtime_ns, 2.0, times, (24, 32), DECODING_RULES)
        videos.append(EncodedVideo(entry, video(number, tokens=False).vectors))
    there, damaged = [0, 1, 2, 13, 27, 28, 29], [1, 13, 28]
    index.add([videos[number] for number in there])
    content = bytearray((index.folder / "vectors-0.f16").read_bytes())
    for number in damaged:
        content[there.index(number) * 2 * WIDTH * 2] ^= 1
    (index.folder / "vectors-0.f16").write_bytes(content)
    part = index.part(0, 2)
    part.add(videos[::-1])
    read, reads = RecordTable.video_rows, []
    monkeypatch.setattr(RecordTable, "video_rows", lambda table: reads.append(table.file) or read(table))
    assert index.absorb_parts() == 30 - len(there) + len(damaged)
    assert sorted(reads) == sorted([index.table.file, part.table.file])
    assert_equal(index, videos)


@pytest.mark.parametrize("after", range(4))
def test_a_killed_move_is_done_again(tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch):
    """Killed before the first batch of records, after it, after the second one, and after the records are deleted."""
    index = new_index(tmp_path / "index", tokens=True)
    videos = [video(i, tokens=True) for i in range(6)]
    index.part(0, 2).add(videos)
    monkeypatch.setattr("clipbert_mm.index.parts.VIDEOS_AT_ONCE", 3)
    add, calls = index.add, []

    def killed(some: list[EncodedVideo]) -> None:
        calls.append(len(some))
        if len(calls) > after:
            raise KeyboardInterrupt
        add(some)

    monkeypatch.setattr(index, "add", killed)
    if after == 3:
        monkeypatch.setattr("clipbert_mm.index.parts.shutil.rmtree", lambda path: killed([]) or killed([]))
    if after == 2:
        monkeypatch.setattr(Path, "unlink", lambda path, missing_ok: killed([]))
    with pytest.raises(KeyboardInterrupt):
        index.absorb_parts()
    monkeypatch.undo()
    again = VideoIndex(index.folder)
    again.absorb_parts()
    assert_equal(again, videos)


def test_what_is_damaged_is_left_out_and_what_is_no_part_is_refused(tmp_path: Path):
    index = new_index(tmp_path / "index", tokens=True)
    videos = [video(i, tokens=True) for i in range(4)]
    part = index.part(0, 1)
    part.add(videos)
    file = part.folder / "vectors-0.f16"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # of the last video
    file.write_bytes(content)
    part.store.path_of(videos[0].entry.key).unlink()
    part.store.path_of(videos[1].entry.key).write_bytes(b"no tokens")
    assert index.absorb_parts() == 1
    assert list(index.entries) == [videos[2].entry.path]

    other = new_index(tmp_path / "index" / "parts" / "0-of-2", tokens=True, identity="other")
    with pytest.raises(VideoIndexError, match="weights, clips or frame size differ"):
        index.absorb_parts()
    other.table.close()
    other.table.file.unlink()
    new_index(other.folder, tokens=False)
    with pytest.raises(
        VideoIndexError, match=r"0-of-2 was not made as .*: vectors and kept tokens are 8 and False, not 8"
    ):
        index.absorb_parts()
    other.table.file.write_bytes(b"x" * 5000)
    with pytest.raises(
        VideoIndexError, match=r"A part of an interrupted indexing cannot be read: .*Or delete .*0-of-2"
    ):
        index.absorb_parts()
    other.table.file.unlink()
    with other.locked(), pytest.raises(BusyFolderError, match="Another process is changing"):
        index.absorb_parts()
    (tmp_path / "index" / "parts" / "notes").mkdir()
    assert index.absorb_parts() == 0
    assert [path.name for path in (tmp_path / "index" / "parts").iterdir()] == ["notes"], "what is no part stays"


def test_nothing_is_moved_through_a_link(tmp_path: Path):
    index = new_index(tmp_path / "index", tokens=True)
    elsewhere = new_index(tmp_path / "elsewhere", tokens=True)
    elsewhere.add([video(0, tokens=True)])
    (index.folder / "parts").mkdir()
    (index.folder / "parts" / "0-of-1").symlink_to(elsewhere.folder)
    with pytest.raises(VideoIndexError, match=r"parts/0-of-1 is a symbolic link"):
        index.absorb_parts()
    (index.folder / "parts" / "0-of-1").unlink()
    (index.folder / "parts").rmdir()
    (index.folder / "parts").symlink_to(tmp_path)
    with pytest.raises(VideoIndexError, match=r"parts is a symbolic link"), index.locked():
        pass
    assert_equal(elsewhere, [video(0, tokens=True)])


def test_compaction_on_request_frees_all(tmp_path: Path):
    index = new_index(tmp_path / "index", tokens=True)
    videos = [video(i, tokens=True) for i in range(300)]
    index.add(videos)
    index.remove([each.entry.path for each in videos[40:]])
    size = index.table.file.stat().st_size
    lost = video(999, tokens=True)
    index.store.add(lost.entry.key, lost.tokens, {"path": lost.entry.path})  # of a killed indexing
    index.compact(always=True)
    assert index.table.file.stat().st_size < size
    assert [path.stat().st_size for path in index.folder.glob("vectors-*")] == [40 * 2 * WIDTH * 2]
    assert_equal(index, videos[:40])
    assert np.array_equal(sorted(index.store.names()), sorted(each.entry.key for each in videos[:40]))
