"""A long indexing: what it says of its progress, how it ends on signals and on a full disk, and what it keeps."""

import logging
import multiprocessing
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from clipbert_mm.apis import VideoIndex, VideoIndexError, VideoSearch, index_run
from clipbert_mm.apis.index_run import DiskSpace, RunProgress, duration


def test_a_line_a_minute_with_rate_and_time_left(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    clock = [100.0]
    monkeypatch.setattr(index_run.time, "monotonic", lambda: clock[0])
    calls: list[tuple] = []
    progress = RunProgress(10_000, 1_000, 7, lambda *call: calls.append(call))
    caplog.set_level(logging.INFO, "clipbert_mm")
    for i in range(300):
        clock[0] += 0.5
        progress.note(f"{i}.mp4", unreadable=i < 3)
    assert calls == [(1_001 + i, 10_000, f"{i}.mp4") for i in range(300)]
    assert caplog.messages == [  # after one and two of 2.5 minutes
        "indexing: 1,120 of 10,000 videos, 10 unreadable, 2 videos/s, 1:14 h left",
        "indexing: 1,240 of 10,000 videos, 10 unreadable, 2 videos/s, 1:13 h left",
    ]


def test_the_rate_is_that_of_the_last_minutes(monkeypatch: pytest.MonkeyPatch):
    clock = [0.0]
    monkeypatch.setattr(index_run.time, "monotonic", lambda: clock[0])
    progress = RunProgress(10**6)
    assert str(progress) == "indexing: 0 of 1,000,000 videos, 0 unreadable, 0 videos/s"
    for seconds, count in ((1.0, 3600), (0.1, 36000)):  # an hour slowly, an hour quickly
        for _ in range(count):
            clock[0] += seconds
            progress.note("a.mp4", unreadable=False)
    assert "10 videos/s, 1 day 2:41 h left" in str(progress)


def test_times_are_rounded_up_to_minutes():
    assert [duration(each) for each in (0, 1, 60, 61, 86_400)] == [
        "0:00 h",
        "0:01 h",
        "0:01 h",
        "0:02 h",
        "1 day 0:00 h",
    ]


def test_space_is_compared_once_with_what_the_first_videos_took(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=2_000_000))
    index = VideoIndex(tmp_path)
    space = DiskSpace(index, 100)
    space.check(0, 0)  # no video could be read
    with pytest.raises(
        VideoIndexError,
        match=r"has 0\.002 GB free, and 98 videos will take about 0\.0049 GB \(0\.05 MB each\)\. Free some",
    ):
        space.check(100_000, 2)
    space.check(100_000, 2)
    DiskSpace(index, 40).check(100_000, 2)


@pytest.fixture
def videos(world: Path, tmp_path: Path) -> Path:
    """A folder of forty copies of a video."""
    (tmp_path / "videos").mkdir()
    for i in range(40):
        (tmp_path / "videos" / f"{i:02}.mp4").symlink_to(world / "videos" / "test_00000.mp4")
    return tmp_path / "videos"


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)], ids=str
)
def test_signals_end_it_within_seconds_and_keep_what_is_done(
    checkpoint: Path, videos: Path, tmp_path: Path, number: signal.Signals, status: int
):
    folder, log = tmp_path / "index", tmp_path / "log"

    def run() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # which a job in the background ignores
        logging.getLogger("clipbert_mm").addHandler(logging.FileHandler(log))
        search = VideoSearch(checkpoint, index=folder)
        encode = search.predictor.encode_for_index
        search.predictor.encode_for_index = lambda *given: time.sleep(0.1) or encode(*given)
        try:
            search.index(videos, workers=1, batch_size=1)
        except KeyboardInterrupt:
            os._exit(130)

    process = multiprocessing.get_context("fork").Process(target=run)  # which knows the tests' backbone
    process.start()
    while len(list(folder.glob("tokens/*.safetensors"))) < 3:
        assert process.is_alive()
        time.sleep(0.01)
    os.kill(process.pid, number)
    began = time.monotonic()
    process.join(20)
    assert process.exitcode == status
    assert time.monotonic() - began < 10
    done = VideoIndex(folder).count()
    assert 2 <= done < 40
    said = log.read_text()
    assert said.endswith("of 40 videos. The index keeps them, and the same command goes on with the rest.\n")
    assert abs(int(said.partition("stopped after ")[2].split()[0]) - done) <= 1
    report = VideoSearch(checkpoint, index=folder).index(videos, workers=1)
    assert (len(report.unchanged), len(report.added)) == (done, 40 - done)
    assert [signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGUSR1)] == [signal.SIG_DFL] * 2


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, check=False).returncode:
        pytest.skip("this machine allows no mount")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_a_full_disk_is_told_and_what_is_done_is_kept(checkpoint: Path, videos: Path, small_disk: Path):
    search = VideoSearch(checkpoint, index=small_disk / "index")
    with pytest.raises(
        VideoIndexError, match=r"No space left on device: .*index/\S+\. \d+ of 40 videos are done\. The index"
    ):
        search.index(videos, workers=0, batch_size=1)
    again = VideoIndex(small_disk / "index")
    assert 1 < again.count() < 40
    for path in again.entries:
        again.tokens(path)
