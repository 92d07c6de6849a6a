"""How videos are found, read and encoded: endings, processes, batches, and the options in their places."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from clipbert_mm.apis import VideoSearch, indexing, reading
from clipbert_mm.apis.indexing import find_videos, make_plan
from clipbert_mm.apis.reading import ReadResult
from clipbert_mm.errors import BrokenMediaError
from clipbert_mm.index import Entry, VideoIndex

VIDEOS = ["mp4", "m4v", "mov", "mkv", "webm", "avi", "wmv", "flv", "mpg", "mpeg", "ts", "ogv", "3gp", "gif"]
IMAGES = ["jpg", "jpeg", "png", "bmp", "webp"]


@pytest.mark.parametrize(("images", "endings"), [(False, VIDEOS), (True, IMAGES)])
def test_files_of_a_folder_are_taken_by_their_endings(tmp_path: Path, images: bool, endings: list[str]):
    for ending in [*VIDEOS, *IMAGES, "txt", "mp3", "srt", "zip", "pdf"]:
        (tmp_path / f"a.{ending}").touch()
        (tmp_path / f"B.{ending.upper()}").touch()
    (tmp_path / "mp4").touch()
    found = {os.path.basename(path) for path in find_videos(tmp_path, images=images)}
    assert found == {f"a.{each}" for each in endings} | {f"B.{each.upper()}" for each in endings}
    named = find_videos([tmp_path / "a.txt", tmp_path / "a.txt"], images=images)
    assert named == [str(tmp_path / "a.txt")], "a file that is named may have any ending"


def test_why_a_file_is_not_read_and_whether_that_lasts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    faults = {
        "a.mp4": MemoryError(),
        "b.mp4": BrokenMediaError("b.mp4", "Cannot allocate memory"),
        "c.mp4": BrokenMediaError("c.mp4", "the file is cut"),
        "d.mp4": KeyError("x" * 5000),
    }

    def fail(steps: list, path: str) -> None:
        raise faults[os.path.basename(path)]

    monkeypatch.setattr(reading, "read_media", fail)
    paths = [str(tmp_path / name) for name in (*faults, "e.mp4", "pipe.mp4", "gone.mp4")]
    for path in paths[:5]:
        Path(path).write_bytes(b"abc")
    os.mkfifo(paths[5])
    files = reading._Files([], paths)
    assert len(files) == 7
    assert files.give_up(paths[4], "it crashed the process")
    found = [files[i] for i in range(7)]
    assert [read.path for read in found] == paths
    assert all(read.media is None for read in found)
    large = "decoding it takes more than 4 GiB of memory"
    assert [(read.reason, read.lasting) for read in found if not read.reason.startswith("KeyError")] == [
        (large, True), (large, True), ("the file is cut", True), ("it crashed the process", True),
        ("it is a pipe or a device, not a file", False), ("No such file or directory", False),
    ]  # fmt: skip
    assert (found[3].lasting, len(found[3].reason)) == (False, len("KeyError: ") + 200)
    assert [read.status and read.status.st_size for read in found] == [3] * 5 + [None] * 2
    assert ReadResult("a") == ReadResult("a", None, None, "", False)


def test_a_file_is_gone_only_where_that_is_certain(tmp_path: Path):
    (tmp_path / "file").touch()
    names = ["file", "none", "file/below", "none/below", "x" * 300]
    assert [indexing._is_gone(str(tmp_path / name)) for name in names] == [False, True, True, True, False]


@pytest.fixture
def search(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoSearch:
    """A search over an index in an empty folder, the one that is used where none is named."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return VideoSearch(checkpoint)


@pytest.fixture
def videos(world: Path, tmp_path: Path) -> Path:
    """A folder of seven copies of a video."""
    (tmp_path / "videos").mkdir()
    for i in range(7):
        shutil.copy(world / "videos" / "test_00000.mp4", tmp_path / "videos" / f"{i}.mp4")
    return tmp_path / "videos"


@pytest.fixture
def readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[int]]:
    """Ask which processes have read videos since the last time. A fork takes what is replaced here along."""
    folder, read = tmp_path / "readers", reading.read_media
    folder.mkdir()
    monkeypatch.setattr(
        reading, "read_media", lambda steps, path: (folder / str(os.getpid())).touch() or read(steps, path)
    )

    def ask() -> list[int]:
        found = [int(path.name) for path in folder.iterdir()]
        for pid in found:
            (folder / str(pid)).unlink()
        return found

    return ask


def test_what_is_not_asked_for_and_what_is(search: VideoSearch, videos: Path, readers: Callable):
    with pytest.raises(ValueError, match=r"workers >= 0.*, got -1, 4 and 120\.0"):
        search.index(videos, workers=-1)
    with pytest.raises(ValueError, match=r"batch_size >= 1.*, got 2, 0 and 120\.0"):
        search.index(videos, batch_size=0)
    for timeout in (0, float("nan")):
        with pytest.raises(ValueError, match=rf"timeout > 0, got 2, 4 and {timeout}"):
            search.index(videos, timeout=timeout)
    batches, steps = [], []
    encode = search.predictor.encode_for_index
    search.predictor.encode_for_index = lambda frames, shapes: batches.append(len(frames)) or encode(frames, shapes)
    report = search.index(videos, progress=lambda *step: steps.append(step))
    assert len(report.added) == 7
    assert batches == [4, 3]
    assert steps == [(i + 1, 7, str(videos / f"{i}.mp4")) for i in range(7)]
    used = readers()
    assert len(used) == 2
    assert os.getpid() not in used

    search.remove(videos)
    search.index(videos, workers=1, batch_size=3)
    assert batches[2:] == [3, 3, 1]
    (used,) = readers()
    assert used != os.getpid()

    search.remove(videos)
    threads = []
    thread = threading.Thread(target=lambda: threads.append(search.index(videos, workers=0)))
    thread.start()  # as the page does
    thread.join()
    assert len(threads[0].added) == 7
    assert readers() == [os.getpid()]


def test_files_that_are_gone_or_broken_stay_as_they_are_unless_told(
    search: VideoSearch, videos: Path, break_file: Callable
):
    gone, broken = (str(videos / name) for name in ("3.mp4", "5.mp4"))
    break_file(Path(broken), "empty")
    assert search.index(videos, workers=0).not_tried == ()
    Path(gone).unlink()
    report = search.index(videos, workers=0)
    assert (report.gone, report.removed, report.not_tried) == ((gone,), (), (broken,))
    assert len(report.unchanged) == 5
    report = search.index(videos, workers=0, prune=True, retry=True)
    assert (report.gone, report.removed, report.not_tried) == ((), (gone,), ())
    assert set(report.unreadable) == {broken}


def test_thousands_of_folders_are_told_and_pruned(tmp_path: Path):
    """As the glob of a shell names them; SQLite takes conditions of 1,000 parts."""
    folders = [tmp_path / f"videos{i:04}" for i in range(1100)]
    for folder in folders:
        folder.mkdir()
    index = VideoIndex(tmp_path / "index")
    index.start("id", "a.pth", "a.pth")
    paths = [f"{folder}/{name}.mp4" for folder in folders for name in "ab"]
    index.table.put((Entry(path, 1, 1, 1.0, ((0.0, 1.0),), (2, 2)), None) for path in [*paths, "/other/a.mp4"])
    Path(paths[0]).touch()
    for prune in (False, True):
        plan = make_plan(index, folders, paths[:1], prune=prune, retry=False)
        assert plan.gone == paths[1:]
        assert index.folders == [str(folder) for folder in folders]
    assert sorted(index.entries) == sorted(["/other/a.mp4", paths[0]])
