"""The dataloader of a run: it begins in the middle of an epoch, and a worker that hangs or dies is named."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from clipbert_mm.engine.loading import WatchedLoader, WorkerError
from clipbert_mm.engine.runner import ClipBertRunner


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


def loader(dataset: Any, **options: Any) -> WatchedLoader:
    return WatchedLoader(torch.utils.data.DataLoader(dataset, batch_size=2, **options))


@pytest.mark.parametrize("workers", [0, 2])
def test_what_is_skipped_is_not_loaded(tmp_path: Path, workers: int):
    batches = loader(Marked(tmp_path), num_workers=workers, persistent_workers=workers > 0)
    assert len(batches) == 10
    batches.skip(7)
    assert [batch.tolist() for batch in batches] == [[14, 15], [16, 17], [18, 19]]
    assert sorted(map(int, os.listdir(tmp_path))) == list(range(14, 20))
    assert len(list(batches)) == 10, "the next pass is a whole one"
    batches.skip(10)
    assert list(batches) == []


def test_nothing_is_drawn_from_the_process_s_generator(tmp_path: Path):
    before = torch.get_rng_state()
    list(loader(Marked(tmp_path)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.fixture
def train_loader(runner_config: Config) -> Config:
    """A training's loader with two workers."""
    runner_config.train_dataloader.num_workers = 2
    return runner_config.train_dataloader


def with_fate(config: Config, fate: signal.Signals, number: int = 3, **options: Any) -> WatchedLoader:
    """A training's loader whose workers send themselves a signal at a video."""
    built = ClipBertRunner.build_dataloader(dict(config, **options), seed=0)
    pipeline = built.dataset.pipeline

    def hit(info: dict) -> dict:
        if info["path"].endswith(f"train_0000{number}.mp4"):
            os.kill(os.getpid(), fate)
        return pipeline(info)

    built.dataset.pipeline = hit
    return built


def test_a_worker_that_is_killed_is_named_with_its_file(train_loader: Config, world: Path):
    with pytest.raises(WorkerError) as caught:
        list(with_fate(train_loader, signal.SIGKILL))
    message = str(caught.value)
    at = rf"A worker of the dataloader \(process \d+\) died at {world}/videos/train_00003\.mp4: "
    found = re.match(at + r"(ended by SIGKILL|is killed by signal: Killed)\. (.*)", message)
    assert found, message
    assert found[2].startswith("The machine or the job may be out of memory: lower num_workers")


def test_a_worker_that_crashes_is_named_with_its_file(train_loader: Config, world: Path):
    with pytest.raises(WorkerError, match=r"died at .*train_00003\.mp4: .*The decoder may have crashed at that file"):
        list(with_fate(train_loader, signal.SIGSEGV))


def test_a_worker_that_hangs_is_named_and_not_waited_for(train_loader: Config, world: Path):
    began = time.monotonic()
    with pytest.raises(WorkerError) as caught:
        list(with_fate(train_loader, signal.SIGSTOP, timeout=2))
    assert time.monotonic() - began < 30
    message = str(caught.value)
    assert message.startswith("No batch came in 2 s: a worker of the dataloader hangs. What its workers are at:")
    assert re.search(rf"\n  {world}/videos/train_00003\.mp4: [2-9] s \(process \d+\)", message), message
    assert not torch.multiprocessing.active_children(), "none is left that this process would wait for"


@pytest.mark.parametrize("notice", [signal.SIGTERM, signal.SIGUSR1])
def test_workers_are_deaf_to_a_cluster_s_notice(train_loader: Config, notice: signal.Signals):
    assert len(list(with_fate(train_loader, notice))) == 6


def test_workers_end_with_the_process_that_reads_from_them(train_loader: Config):
    batches = iter(with_fate(train_loader, signal.SIGCONT, persistent_workers=True))
    next(batches)
    workers = torch.multiprocessing.active_children()
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
