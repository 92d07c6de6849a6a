"""Files that crash, hang or fill what reads them; indexes that others change, damage or send: a test for each fault found."""

import faulthandler
import json
import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.bench_search import random_weights
from mmcv.transforms import BaseTransform
from mmengine.config import Config
from mmengine.runner import Runner

from clipbert_mm.__main__ import main
from clipbert_mm.apis import VideoIndex, VideoSearch, reading
from clipbert_mm.apis.indexing import find_videos
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.watched_loader import WatchedLoader
from clipbert_mm.errors import BrokenMediaError, OptionError, StorageError, VideoIndexError, WorkerError
from clipbert_mm.index import EncodedVideo
from clipbert_mm.media import listing
from clipbert_mm.registry import TRANSFORMS


@pytest.fixture
def videos(world: Path, tmp_path: Path) -> Path:
    """A folder of four videos."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for i in range(4):
        shutil.copy(world / "videos" / f"test_0000{i}.mp4", folder / f"{'abcd'[i]}.mp4")
    return folder


@pytest.fixture
def search(runner_config: Config, tmp_path: Path) -> VideoSearch:
    """A search with an empty index; the model is a checkpoint beside a config."""
    runner_config.dump(tmp_path / "config.py")
    weights = random_weights(runner_config, tmp_path / "weights.pth")
    return VideoSearch(tmp_path / "config.py", "cpu", weights=weights, index=tmp_path / "gallery")


@pytest.fixture
def fate_of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[str, Callable[[], Any]], None]:
    """Let something happen to the process that reads a file of some name; where one stands for 30 s goes to ``stands``."""
    read, fates = reading.read_media, {}

    def read_media(steps: Any, path: str) -> Any:
        with open(tmp_path / "stands", "a") as file:
            faulthandler.dump_traceback_later(30, file=file)
            try:
                fates.get(os.path.basename(path), lambda: None)()
                return read(steps, path)
            finally:
                faulthandler.cancel_dump_traceback_later()

    monkeypatch.setattr(reading, "read_media", read_media)
    return fates.__setitem__


def hit(number: signal.Signals) -> Callable[[], None]:
    return lambda: os.kill(os.getpid(), number)


def test_l1_what_crashes_hangs_or_fills_a_process_costs_that_video_alone(
    search: VideoSearch, videos: Path, fate_of: Callable, tmp_path: Path
):
    fate_of("a.mp4", hit(signal.SIGSEGV))
    fate_of("b.mp4", lambda: time.sleep(1000))
    fate_of("c.mp4", lambda: bytearray(6 * 2**30))
    os.mkfifo(videos / "pipe.mp4")
    report = search.index(videos, timeout=1)
    reasons = {
        str(videos / "a.mp4"): "the decoder ended its process (SIGSEGV)",
        str(videos / "b.mp4"): "it took longer than 1 s",
        str(videos / "c.mp4"): "decoding it takes more than 4 GiB of memory",
    }
    assert report.unreadable == reasons
    assert report.added == (str(videos / "d.mp4"),)
    for name in "abc":
        fate_of(f"{name}.mp4", lambda: pytest.fail("it is not met again"))
    again = VideoIndex(search.video_index.folder)
    search.video_index = again
    report = search.index(videos, timeout=1)
    assert (report.unreadable, set(report.not_tried)) == (reasons, set(reasons))
    assert str(report).splitlines()[1] == (
        f"  {videos}/a.mp4: the decoder ended its process (SIGSEGV) (from an earlier run; --retry tries it again)"
    )
    for name in "abc":
        fate_of(f"{name}.mp4", lambda: None)
    os.utime(videos / "a.mp4")  # a file that changes is another
    report = search.index(videos)
    assert report.added == (str(videos / "a.mp4"),), f"{report} {(tmp_path / 'stands').read_text()}"
    assert len(search.index(videos, retry=True).added) == 2
    assert not search.video_index.unreadable


def test_l1_a_process_that_is_killed_begins_again_and_the_file_is_named_the_second_time(
    search: VideoSearch, videos: Path, fate_of: Callable
):
    fate_of("b.mp4", hit(signal.SIGKILL))
    report = search.index(videos, workers=1, batch_size=1)
    assert report.unreadable == {str(videos / "b.mp4"): "it was killed (SIGKILL), as the kernel does out of memory"}
    assert len(report.added) == 3


def test_l1_pipes_and_devices_are_no_videos(search: VideoSearch, videos: Path):
    os.mkfifo(videos / "pipe.mp4")
    (videos / "zero.mp4").symlink_to("/dev/zero")
    assert len(find_videos(videos)) == 4
    with pytest.raises(OptionError, match=r"pipe\.mp4 is a pipe, a device or a broken link, expected a file or folder"):
        search.index(videos / "pipe.mp4")


class Odd(BaseTransform):
    """Hangs at one video."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        if results["path"].endswith("test_00003.mp4"):
            time.sleep(1000)
        return results


@pytest.fixture
def hanging(runner_config: Config) -> Config:
    """A test and a validation of retrieval one of whose videos hangs its decoder; a file may take a second."""
    TRANSFORMS.register_module(name="Odd", module=Odd, force=True)
    loader = runner_config.test_dataloader
    loader.update(num_workers=1, timeout=1, batch_size=2)
    loader.dataset.pipeline.insert(0, dict(type="Odd"))
    runner_config.update(val_dataloader=loader.copy(), val_cfg=dict(type="RetrievalValLoop"))
    runner_config.update(val_evaluator=dict(type="RetrievalMetric"))
    return runner_config


@pytest.mark.parametrize("stage", ["test", "val"])
def test_l2_a_file_that_hangs_a_retrieval_test_is_named(hanging: Config, stage: str):
    with pytest.raises(WorkerError, match=r"hangs at .*test_00003\.mp4: it took longer than 1 s\. Remove the file"):
        getattr(build_runner(hanging), stage)()


def test_l2_it_is_left_out_and_reported_where_that_is_asked_for(hanging: Config):
    hanging.test_dataloader.dataset.on_broken = "skip"
    runner: Runner = build_runner(hanging)
    metrics = runner.test()
    assert metrics["coverage"] == pytest.approx(100 * 6 / 7)


def test_l3_removal_is_an_act(search: VideoSearch, videos: Path):
    search.index(videos)
    (videos / "a.mp4").unlink()
    report = search.index(videos)
    assert (report.removed, report.gone) == ((), (str(videos / "a.mp4"),))
    assert "1 videos of the index no longer exist; --prune removes them" in str(report)
    assert len(search.video_index.entries) == 4
    report = search.index(videos, prune=True)
    assert (report.removed, report.gone) == ((str(videos / "a.mp4"),), ())
    assert len(VideoIndex(search.video_index.folder).entries) == 3


@pytest.mark.parametrize("fault", ["not mounted", "gone", "cannot be listed", "part of it cannot be listed"])
def test_l3_a_folder_that_cannot_be_listed_loses_nothing(
    search: VideoSearch, videos: Path, fault: str, monkeypatch: pytest.MonkeyPatch
):
    (videos / "below").mkdir()
    shutil.move(videos / "a.mp4", videos / "below" / "a.mp4")
    search.index(videos)
    before = sorted(search.video_index.store.names())
    closed = {"cannot be listed": videos, "part of it cannot be listed": videos / "below"}.get(fault)
    listed = listing._list_folder

    def list_folder(folder: str) -> Any:
        if str(closed) == folder:
            raise PermissionError(13, "Permission denied", folder)
        return listed(folder)

    monkeypatch.setattr(listing, "_list_folder", list_folder)
    if closed is None:
        shutil.rmtree(videos)
    if fault == "not mounted":
        videos.mkdir()
    kind = {"not mounted": OptionError, "gone": FileNotFoundError}.get(fault, StorageError)
    with pytest.raises(kind, match=str(closed or videos)):
        search.index(videos, prune=True)
    assert len(VideoIndex(search.video_index.folder).entries) == 4
    assert sorted(search.video_index.store.names()) == before


def test_l7_a_search_sees_what_another_process_changed(search: VideoSearch, videos: Path):
    search.index(videos)
    other = VideoIndex(search.video_index.folder)
    with other.locked():
        other.remove([str(videos / "a.mp4")])
    result = search.search("a red circle", topk=9)
    assert (result.searched, len(result.hits), dict(result.left_out)) == (3, 3, {})
    search.video_index.store.path_of(search.video_index.entries[str(videos / "b.mp4")].key).unlink()
    result = search.search("a red circle", topk=9)
    assert (result.searched, list(result.left_out)) == (2, [str(videos / "b.mp4")])
    assert "left out: 1 videos" in str(result)


def test_l7_searches_go_on_while_another_thread_indexes(search: VideoSearch, videos: Path):
    search.index(videos / "a.mp4")
    wanted, faults, done = search.search("a red circle").hits[0].score, [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                hits = {hit.path: hit.score for hit in search.search("a red circle").hits}
                assert hits[str(videos / "a.mp4")] == pytest.approx(wanted, abs=1e-5)
            except Exception as error:
                faults.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for _ in range(3):
        search.index(videos, batch_size=1)
        search.remove([videos / f"{name}.mp4" for name in "bcd"])
    done.set()
    for thread in threads:
        thread.join()
    assert faults == []


def test_l8_an_index_is_no_folder_of_videos(search: VideoSearch, videos: Path):
    inside = VideoSearch.__new__(VideoSearch)
    inside.predictor, inside.video_index = search.predictor, VideoIndex(videos / "clipbert_index")
    inside.index(videos)
    for name in ("uploads", "previews"):
        (inside.video_index.folder / name).mkdir()
        shutil.copy(videos / "a.mp4", inside.video_index.folder / name / "x.mp4")
    assert inside.index(videos).added == ()
    inside.index(inside.video_index.folder / "uploads" / "x.mp4")
    assert inside.index(videos, prune=True).removed == (), "an upload is not gone because it is not listed"
    with pytest.raises(OptionError, match="clipbert_index is an index, expected a folder of videos"):
        inside.index(inside.video_index.folder)


@pytest.mark.parametrize("fault", ["a bit", "cut", "NaN", "another video's"])
def test_w3_damaged_visual_tokens_are_named_and_left_out(search: VideoSearch, videos: Path, fault: str):
    search.index(videos)
    whole = {hit.path: hit.score for hit in search.search("a red circle").hits}
    path, other = str(videos / "b.mp4"), str(videos / "c.mp4")
    store = search.video_index.store
    file = store.path_of(search.video_index.entries[path].key)
    data = bytearray(file.read_bytes())
    data[-1000] ^= 1
    if fault == "NaN":
        tokens = {name: search.video_index.tokens(path, name) * float("nan") for name in ("clips", "coarse")}
        search.video_index.add([EncodedVideo(search.video_index.entries[path], tokens=tokens)])
    elif fault == "another video's":
        shutil.copy(store.path_of(search.video_index.entries[other].key), file)
    else:
        file.write_bytes(data if fault == "a bit" else data[:-500])
    search.video_index = VideoIndex(search.video_index.folder)
    result = search.search("a red circle", topk=9)
    assert list(result.left_out) == [path]
    assert path in str(result)
    assert fault == "NaN" or str(file) in result.left_out[path]
    assert {hit.path: hit.score for hit in result.hits} == pytest.approx(
        {video: score for video, score in whole.items() if video != path}
    )


def test_w3_missing_visual_tokens_are_said_and_made_anew(search: VideoSearch, videos: Path):
    search.index(videos)
    path = str(videos / "b.mp4")
    search.video_index.store.path_of(search.video_index.entries[path].key).unlink()
    search.video_index = VideoIndex(search.video_index.folder)
    result = search.search("a red circle", topk=9)
    assert (result.searched, dict(result.left_out)) == (
        3,
        {path: f"The visual tokens of {path} are missing. Index it again."},
    )
    assert search.index(videos).changed == (path,)
    assert search.search("a red circle").left_out == {}


def run(capsys: pytest.CaptureFixture, *arguments: object) -> tuple[int, str, str]:
    """Run the command; returns exit code, output and errors."""
    with pytest.raises(SystemExit) as left:
        main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    return left.value.code or 0, said.out, said.err


def test_s5_a_config_that_an_index_names_is_not_run(
    search: VideoSearch, videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    search.index(videos)
    config = tmp_path / "config.py"
    config.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n" + config.read_text())
    code, _, err = run(capsys, "search", "a red circle", "--index", search.video_index.folder)
    assert (code, err) == (
        1,
        f"error: The index {search.video_index.folder} was made with the config '{config}'. A config is Python code and "
        "runs only on request: --model CONFIG --weights CHECKPOINT.\n",
    )
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("name", ["tokens", "records.sqlite3", ".lock"])
def test_s6_nothing_is_written_through_a_link(search: VideoSearch, videos: Path, tmp_path: Path, name: str):
    search.index(videos)
    outside = tmp_path / "outside"
    shutil.move(search.video_index.folder / name, outside)
    (search.video_index.folder / name).symlink_to(outside)
    before = {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]}
    search.video_index = VideoIndex(search.video_index.folder)
    (videos / "a.mp4").write_bytes((videos / "b.mp4").read_bytes())
    for change in (lambda: search.index(videos), lambda: search.remove(videos)):
        with pytest.raises(
            VideoIndexError, match=rf"{name} is a symbolic link, and an index is never written outside its folder"
        ):
            change()
    assert {path: path.stat().st_mtime_ns for path in [outside, *outside.rglob("*")]} == before


def test_s6_whatever_an_index_lists_only_its_own_files_are_removed(search: VideoSearch, videos: Path, tmp_path: Path):
    search.index(videos)
    first = next(iter(search.video_index.entries.values()))
    precious = tmp_path / "precious.safetensors"
    precious.touch()
    foreign = [replace(first, path=path) for path in (str(precious), f"{tmp_path}/gallery/../precious")]
    search.video_index.table.put([(entry, None) for entry in foreign])
    search.video_index = VideoIndex(search.video_index.folder)
    search.remove(tmp_path)
    assert search.video_index.entries == {}
    assert precious.exists()
    assert len(list(videos.iterdir())) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["index", "x", "--batch-size", "0"], "argument --batch-size: expected a whole number, 1 or more, got '0'"),
        (["index", "x", "--workers", "-1"], "argument --workers: expected a whole number, 1 or more, got '-1'"),
        (["index", "x", "--timeout", "1e9"], "argument --timeout: expected a whole number, 1 or more, got '1e9'"),
        (["search", "x", "--topk", "0"], "argument --topk: expected a whole number, 1 or more, got '0'"),
        (["search", "x", "--shortlist", "-5"], "argument --shortlist: expected a whole number, 0 or more, got '-5'"),
        (["serve", "--port", "70000"], "argument --port: expected a whole number, 0 to 65535, got '70000'"),
    ],
)
def test_e_numbers_that_cannot_be(capsys: pytest.CaptureFixture, arguments: list[str], message: str):
    code, out, err = run(capsys, *arguments)
    assert (code, out) == (2, "")
    assert err.splitlines()[-1] == f"clipbert {arguments[0]}: error: {message}"


def test_e_numbers_that_cannot_be_in_python(search: VideoSearch, videos: Path):
    for numbers in (dict(workers=-1), dict(batch_size=0), dict(timeout=0)):
        with pytest.raises(OptionError, match=r"index expects workers >= 0, batch_size >= 1 and timeout > 0, got"):
            search.index(videos, **numbers)


def test_e_a_folder_is_taken_out(search: VideoSearch, videos: Path, capsys: pytest.CaptureFixture):
    search.index(videos)
    code, out, _ = run(capsys, "index", videos, "--remove", "--index", search.video_index.folder)
    assert (code, out) == (0, "removed 4\n")
    code, _, err = run(capsys, "index", videos, "--remove", "--index", search.video_index.folder)
    assert code == 1
    assert err.startswith(f"error: {videos} is not in the index {search.video_index.folder}, nor is anything below it.")


class Large(torch.utils.data.Dataset):
    """Items that do not fit into the shared memory of their worker."""

    def __len__(self) -> int:
        return 2

    def __getitem__(self, idx: int) -> torch.Tensor:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
        return torch.zeros(2**20)


def test_e_shared_memory_that_is_full():
    with pytest.raises(
        WorkerError, match=r"The shared memory \(/dev/shm\) may be full: lower num_workers, .*--shm-size"
    ):
        list(WatchedLoader(torch.utils.data.DataLoader(Large(), num_workers=1)))


def test_m9_a_name_that_is_not_utf_8(search: VideoSearch, videos: Path, capsys: pytest.CaptureFixture):
    os.rename(videos / "a.mp4", os.fsencode(videos) + b"/caf\xe9.mp4")
    (videos / "b.mp4").rename(videos / "12:30 talk.mp4")
    os.rename(videos / "c.mp4", os.fsencode(videos) + b"/broken \xe9.mp4")
    with open(os.fsencode(videos) + b"/broken \xe9.mp4", "wb"):
        pass
    report = search.index(videos)
    assert len(report.added) == 3
    assert r"broken \xe9.mp4: the file is empty (0 bytes)" in str(report)
    assert r"caf\xe9.mp4" in str(search.search("a red circle"))
    code, out, _ = run(capsys, "info", "--index", search.video_index.folder, "--json")
    assert code == 0
    assert os.fsdecode(os.fsencode(videos) + b"/caf\xe9.mp4") in json.loads(out)["videos"]


def test_a_video_to_rank_that_is_gone_is_named(search: VideoSearch, videos: Path):
    with pytest.raises(BrokenMediaError):
        search.rank(videos / "gone.mp4", ["a"])
