"""The dataloader of a run: it begins in the middle of an epoch, and a worker that hangs or dies is named."""

import gc
import multiprocessing
import os
import queue
import signal
import socket
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import pytest
import torch
from mmengine.config import Config

from clipbert_mm.engine import loader_workers
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.engine.watched_loader import WatchedLoader, WorkerError
from clipbert_mm.media.worker_status import WorkerStatus


class Marked(torch.utils.data.Dataset):
    """Items that say who loaded them; some make their worker hang or die."""

    def __init__(self, folder: Path, **fates: int) -> None:
        self.folder, self.fates = folder, fates

    def __len__(self) -> int:
        return 20

    def __getitem__(self, idx: int) -> int:
        (self.folder / str(idx)).touch()
        for name, victim in self.fates.items():
            if victim == idx:
                os.kill(os.getpid(), getattr(signal, name))
        return idx


class Slow(Marked):
    """Items that take a tenth of a second each and say so."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.whereabouts = WorkerStatus()

    def __getitem__(self, idx: int) -> int:
        with self.whereabouts.at(str(idx)):
            time.sleep(0.1)
        return idx

    def loading(self) -> dict[int, Any]:
        return self.whereabouts.loading()


def loader(dataset: Any, **options: Any) -> WatchedLoader:
    return WatchedLoader(torch.utils.data.DataLoader(dataset, batch_size=2, **options))


@pytest.mark.parametrize("number", [0, 2])
def test_what_is_skipped_is_not_loaded(tmp_path: Path, number: int):
    batches = loader(Marked(tmp_path), num_workers=number, persistent_workers=number > 0)
    assert len(batches) == 10
    batches.skip(7)
    assert [batch.tolist() for batch in batches] == [[14, 15], [16, 17], [18, 19]]
    assert sorted(map(int, os.listdir(tmp_path))) == list(range(14, 20))
    assert len(list(batches)) == 10, "the next pass is a whole one"
    batches.skip(10)
    assert list(batches) == []


def test_batches_are_put_into_the_pinned_memory_of_the_process_s_accelerator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    chosen = []
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: 3)
    monkeypatch.setattr(torch.accelerator, "set_device_index", chosen.append)
    monkeypatch.setattr(loader_workers, "pin_memory", lambda batch: (batch, "pinned"))
    batches = list(loader(Marked(tmp_path), num_workers=2, pin_memory=True))
    assert [batch.tolist() for batch, _ in batches] == [[i, i + 1] for i in range(0, 20, 2)]
    assert chosen == [3, 3], "in the thread of each worker"


def test_workers_that_are_not_there_need_not_persist(train_loader: Config):
    train_loader.update(num_workers=0, persistent_workers=True)  # which torch refuses
    assert len(list(ClipBertRunner.build_dataloader(train_loader))) == 6


class Described(torch.utils.data.Dataset):
    """Items that say which worker of how many loaded them, by torch's own function."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, idx: int) -> tuple[int, int, int, int]:
        info = torch.utils.data.get_worker_info()
        return info.id, info.num_workers, info.seed, len(info.dataset)


def test_workers_tell_torch_which_they_are():
    ours, torch_s = (
        [[part.tolist() for part in batch] for batch in each]
        for each in (
            loader(Described(), num_workers=2),
            torch.utils.data.DataLoader(Described(), batch_size=2, num_workers=2),
        )
    )
    for batches in (ours, torch_s):
        assert [batch[0] for batch in batches] == [[0, 0], [1, 1], [0, 0], [1, 1]]
        assert all(batch[1] == [2, 2] and batch[3] == [8, 8] for batch in batches)
        assert batches[1][2][0] == batches[0][2][0] + 1, "seeds count up"


def test_nothing_is_drawn_from_the_process_s_generator(tmp_path: Path):
    before = torch.get_rng_state()
    list(loader(Marked(tmp_path)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def train_loader(runner_config: Config) -> Config:
    """A training's loader with two workers."""
    runner_config.train_dataloader.num_workers = 2
    return runner_config.train_dataloader


@pytest.fixture
def test_loader(runner_config: Config) -> Config:
    """A test's loader with two workers."""
    runner_config.test_dataloader.num_workers = 2
    return runner_config.test_dataloader


def with_fate(config: Config, fate: signal.Signals, **options: Any) -> WatchedLoader:
    """A loader whose workers send themselves a signal at a video."""
    built = ClipBertRunner.build_dataloader(dict(config, **options), seed=0)
    pipeline = built.dataset.pipeline

    def hit(info: dict) -> dict:
        if info["path"].endswith("_00003.mp4"):
            os.kill(os.getpid(), fate)
        return pipeline(info)

    built.dataset.pipeline = hit
    return built


@pytest.fixture
def new_processes() -> Callable[[], list[BaseProcess]]:
    """Tell the processes that a test has started and that are there; those that read files for others stay."""
    before = {process.pid for process in multiprocessing.active_children()}
    return lambda: [process for process in multiprocessing.active_children() if process.pid not in before]


def replaced(batches: WatchedLoader) -> dict[str, str]:
    """Load all; returns the files that others were put in the place of, with the reasons."""
    samples = [sample for batch in batches for sample in batch["data_samples"]]
    assert len(samples) == 24, "no item is lost"
    return {Path(path).name: reason for sample in samples for path, reason in sample.replaced}


@pytest.mark.parametrize(
    ("fate", "reason"),
    [
        (signal.SIGSEGV, "the decoder ended its process (SIGSEGV)"),
        (signal.SIGKILL, "it was killed (SIGKILL), as the kernel does out of memory"),
        (signal.SIGSTOP, "it took longer than 1 s"),
    ],
)
@pytest.mark.parametrize("persistent", [False, True])
def test_in_training_a_file_that_ends_or_hangs_a_worker_is_replaced(
    train_loader: Config, fate: signal.Signals, reason: str, persistent: bool, new_processes: Callable
):
    batches = with_fate(train_loader, fate, timeout=1, persistent_workers=persistent)
    assert replaced(batches) == {"train_00003.mp4": reason}
    assert replaced(batches) == {"train_00003.mp4": reason}, "it is not met again"
    del batches
    gc.collect()
    assert not new_processes()


@pytest.mark.parametrize(
    ("fate", "message"),
    [
        (
            signal.SIGKILL,
            r"died at .*test_00003\.mp4: it was killed \(SIGKILL\), .*The job may be out of memory: lower num_workers",
        ),
        (signal.SIGSEGV, r"died at .*test_00003\.mp4: the decoder ended its process \(SIGSEGV\)\. Remove the file"),
        (signal.SIGSTOP, r"hangs at .*test_00003\.mp4: it took longer than 1 s\. Remove the file .*raise `timeout`"),
    ],
)
def test_in_testing_the_file_is_named(test_loader: Config, fate: signal.Signals, message: str, new_processes: Callable):
    with pytest.raises(WorkerError, match=rf"^A worker of the dataloader \(process \d+\) {message}"):
        list(with_fate(test_loader, fate, timeout=1))
    assert not new_processes(), "none is left that this process would wait for"


def test_in_testing_the_file_is_left_out_where_that_is_asked_for(test_loader: Config):
    test_loader.dataset.on_broken = "skip"
    samples = [sample for batch in with_fate(test_loader, signal.SIGSEGV) for sample in batch["data_samples"]]
    assert [sample.broken for sample in samples] == [
        "the decoder ended its process (SIGSEGV)" if i == 3 else None for i in range(7)
    ]


def test_a_worker_killed_once_begins_its_work_again(train_loader: Config, tmp_path: Path):
    """Nobody says that it was the file's fault; the items are those of a run that was left alone."""
    built = ClipBertRunner.build_dataloader(dict(train_loader), seed=0)
    whole = [batch["inputs"]["frames"] for batch in built]
    pipeline = built.dataset.pipeline

    def hit(info: dict) -> dict:
        if info["path"].endswith("train_00003.mp4") and not (tmp_path / "hit").exists():
            (tmp_path / "hit").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return pipeline(info)

    built.dataset.pipeline = hit
    again = list(built)
    assert (tmp_path / "hit").exists()
    assert all(torch.equal(batch["inputs"]["frames"], own) for batch, own in zip(again, whole, strict=True))
    assert not any(sample.replaced for batch in again for sample in batch["data_samples"])


def test_a_file_after_which_a_worker_crashes_is_named_the_second_time(train_loader: Config):
    """As where a decoder has ruined the memory of its process."""
    built = ClipBertRunner.build_dataloader(dict(train_loader, num_workers=1), seed=0)
    pipeline, collate = built.dataset.pipeline, built.collate_fn

    def ruin(info: dict) -> dict:
        ruined.append(info["path"].endswith("_00003.mp4"))
        return pipeline(info)

    def crash(items: list) -> Any:
        if ruined and ruined[-1]:
            os.kill(os.getpid(), signal.SIGSEGV)
        return collate(items)

    ruined: list[bool] = []
    built.dataset.pipeline, built.collate_fn = ruin, crash
    samples = [sample for batch in built for sample in batch["data_samples"]]
    assert len(samples) == 24
    names = {Path(path).name for sample in samples for path, _ in sample.replaced}
    assert names <= {"train_00003.mp4"}


def test_a_dataset_without_a_policy_stops(tmp_path: Path):
    with pytest.raises(WorkerError, match=r"died at no file: the decoder ended its process \(SIGSEGV\)"):
        list(loader(Marked(tmp_path, SIGSEGV=7), num_workers=2))


def test_slow_batches_of_quick_files_do_not_hang(tmp_path: Path):
    """The time counts for a file, not for a batch."""
    batches = WatchedLoader(torch.utils.data.DataLoader(Slow(tmp_path), batch_size=10, num_workers=1, timeout=0.5))
    assert len(list(batches)) == 2


class Collecting(Slow):
    """Items at which the garbage is collected."""

    def __getitem__(self, idx: int) -> int:
        with self.whereabouts.at(str(idx)):
            gc.collect()
        return idx


def test_workers_do_not_collect_what_they_inherit(tmp_path: Path, world: Path):
    """FFmpeg's decoder waits for its threads when it is freed; a fork has none of them, so it would wait for ever."""
    gc.disable()
    try:
        container = av.open(str(world / "videos" / "test_00000.mp4"))
        container.streams.video[0].thread_type = "FRAME"
        next(container.decode(video=0))
        circle = [container]
        circle.append(circle)
        del container, circle
        batches = torch.utils.data.DataLoader(Collecting(tmp_path), batch_size=10, num_workers=1, timeout=10)
        assert len(list(WatchedLoader(batches))) == 2
    finally:
        gc.enable()


@pytest.mark.parametrize("notice", [signal.SIGTERM, signal.SIGUSR1])
def test_workers_are_deaf_to_a_cluster_s_notice(train_loader: Config, notice: signal.Signals):
    assert len(list(with_fate(train_loader, notice))) == 6


def test_workers_end_with_the_process_that_reads_from_them(train_loader: Config, new_processes: Callable):
    batches = iter(with_fate(train_loader, signal.SIGCONT, persistent_workers=True))
    next(batches)
    workers = new_processes()
    assert len(workers) == 2
    for worker in workers:
        worker.terminate()  # as Python does at its exit
        worker.join(20)
        assert worker.exitcode == 0


def test_other_errors_pass_as_they_are(tmp_path: Path):
    class Failing(Marked):
        def __getitem__(self, idx: int) -> int:
            raise RuntimeError("of the dataset")

    with pytest.raises(RuntimeError, match="of the dataset") as caught:
        list(loader(Failing(tmp_path)))
    assert type(caught.value) is RuntimeError


def test_a_connection_that_is_reset_is_the_end_of_the_process_that_had_it_though_another_is_being_started():
    ended = multiprocessing.Process(target=int)
    ended.start()
    ended.join()
    worker = SimpleNamespace(pin=None, events=queue.SimpleQueue(), process=multiprocessing.Process(target=int))
    ours, other = socket.socketpair()
    ours.send(b"a job that it did not read")
    other.close()
    with Connection(ours.detach()) as connection:
        loader_workers._receive(worker, ended, connection)
        assert worker.events.get(timeout=1) == (worker, connection, None)
