"""How videos are found, read and encoded: endings, processes, batches, and the options in their places."""

import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from clipbert_mm.apis import VideoSearch, indexing
from clipbert_mm.apis.indexing import find_videos

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
    folder, read = tmp_path / "readers", indexing.read_media
    folder.mkdir()
    monkeypatch.setattr(
        indexing, "read_media", lambda steps, path: (folder / str(os.getpid())).touch() or read(steps, path)
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
    encode = search.predictor.encode_with_coarse_tokens
    search.predictor.encode_with_coarse_tokens = lambda frames: batches.append(len(frames)) or encode(frames)
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
