"""Trainings that are killed: real processes of tools/train.py, real signals, and the comparison of what they leave."""

import functools
import importlib.util
import json
import os
import random
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.logging import HistoryBuffer
from ports import free_port
from torch import Tensor
from warm_python import processes

from clipbert_mm.checkpoint.archives import load_torch

ROOT = Path(__file__).resolve().parents[1]
CONFIG = """
_base_ = ["{root}/configs/_base_/schedules/adamw_linear.py", "{root}/configs/_base_/default_runtime.py"]
model = dict(
    type="ClipBert",
    data_preprocessor=dict(
        type="VideoTextPreprocessor", mean=[120.0, 110.0, 100.0], std=[60.0, 55.0, 50.0], vocab_size=200
    ),
    backbone=dict(type="mmpretrain.ResNet", depth=18, stem_channels=8, base_channels=8, strides=(1, 2, 2, 1)),
    projection=dict(type="GridProjection", in_channels=64, out_channels=16),
    temporal_fusion=dict(type="MeanFusion"),
    encoder=dict(
        type="JointEncoder", vocab_size=200, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=32,
        max_text_length=40, dropout=0.1, grid_size=8, initializer_range=0.2,
    ),
    head=dict(type="MatchingHead", in_channels=16, hidden_channels=32, dropout=0.1),
    aggregator=dict(type="LogSumExpAggregator"),
)
world, tokenizer = "{world}", "{tokenizer}"
ends = [
    dict(type="DecodeClips"),
    dict(type="ResizePad", size=32),
    dict(type="Tokenize", tokenizer=tokenizer, max_length=40),
    dict(type="PackInputs"),
]
train_dataloader = dict(
    batch_size=4,
    num_workers=0,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=True),
    dataset=dict(
        type="RetrievalDataset", data_root=world, ann_file="train.jsonl", media_folder="videos",
        pipeline=[dict(type="OpenVideo"), dict(type="SampleClips", num_clips=2, num_frames=2, mode="random"), *ends],
    ),
)
val_dataloader = dict(
    batch_size=4,
    num_workers=0,
    collate_fn=dict(type="clipbert_mm.collate_items"),
    sampler=dict(type="DefaultSampler", shuffle=False),
    dataset=dict(
        type="RetrievalDataset", data_root=world, ann_file="test.jsonl", media_folder="videos", test_mode=True,
        pipeline=[dict(type="OpenVideo"), dict(type="SampleClips", num_clips=2, num_frames=2, mode="uniform"), *ends],
    ),
)
test_dataloader = val_dataloader
train_cfg = dict(type="ResumableEpochTrainLoop", max_epochs=5, val_interval=2)
val_cfg = dict(type="RetrievalValLoop")
test_cfg = dict(type="RetrievalTestLoop")
val_evaluator = dict(type="RetrievalMetric")
test_evaluator = dict(type="RetrievalMetric")
optim_wrapper = dict(optimizer=dict(lr=1e-3))
default_hooks = dict(
    logger=dict(interval=1),
    checkpoint=dict(minutes=1e-9, save_best="t2v/R@5"),
)
{more}
"""
"""Retrieval with a model of some thousand parameters, dropout, and a checkpoint after every step; 6 iterations an epoch."""


def write_config(path: Path, world: Path, tokenizer: str, more: str = "") -> Path:
    """Write the config of a training; ``more`` is Python laid over it."""
    path.write_text(CONFIG.format(root=ROOT, world=world, tokenizer=tokenizer, more=more))
    return path


def run_tool(name: str, arguments: list[str], environment: dict[str, str], log: str) -> None:
    """Run a tool in a process that has imported what it needs."""
    os.setsid()  # so that a kill may reach its workers too
    os.environ.update(environment)
    output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    torch.utils.data._utils.MP_STATUS_CHECK_INTERVAL = 0.5  # how long a loader that goes away waits for its workers
    spec = importlib.util.spec_from_file_location("the_tool", ROOT / "tools" / name)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    tool.run_tool(functools.partial(tool.main, arguments))


@dataclass
class Run:
    """A training of one or more processes in a work folder, which may be killed and begun again.

    Args:
        config: The config file.
        work_dir: Where it writes.
        ranks: Processes.
        arguments: Of the tool.
        tool: The tool, with what stands before its options.
        apart: Whether each process has a work folder of its own, as on machines that share none.
    """

    config: Path
    work_dir: Path
    ranks: int = 1
    arguments: list[str] = field(default_factory=list)
    tool: tuple[str, ...] = ("train.py",)
    apart: bool = False

    def start(self, *more: str) -> list[Any]:
        """Start it; returns its processes."""
        environment = {"CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        launcher = []
        if self.ranks > 1:
            environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
            environment |= {"WORLD_SIZE": str(self.ranks), "LOCAL_WORLD_SIZE": str(self.ranks)}
            launcher = ["--launcher", "pytorch"]
        started = []
        for rank in range(self.ranks):
            folder = self.work_dir / f"machine{rank}" if self.apart else self.work_dir
            folder.mkdir(parents=True, exist_ok=True)
            name, *first = self.tool
            arguments = [str(self.config), *first, "--work-dir", str(folder), *launcher, *self.arguments, *more]
            own = environment | {"RANK": str(rank), "LOCAL_RANK": str(rank)}
            process = processes().Process(target=run_tool, args=(name, arguments, own, str(self.log(rank))))
            process.start()
            started.append(process)
        return started

    def log(self, rank: int = 0) -> Path:
        """The file of what a process printed."""
        return self.work_dir / f"rank{rank}.log"

    def finish(self, *more: str, timeout: float = 300) -> list[int]:
        """Run it to its end; returns the exit status of each process."""
        started = self.start(*more)
        for process in started:
            process.join(timeout)
        assert not any(process.is_alive() for process in started), self.log().read_text()[-3000:]
        return [process.exitcode for process in started]

    def logged(self) -> dict[int, dict[str, float]]:
        """What was logged of each step of training, the last time that it was done."""
        rows: dict[int, dict[str, float]] = {}
        for log in sorted(self.work_dir.glob("*/vis_data/scalars.json"), key=lambda path: path.stat().st_mtime_ns):
            for line in log.read_text().splitlines():
                with_loss = json.loads(line) if line.endswith("}") else {}
                if "loss" in with_loss:
                    rows[with_loss["step"]] = with_loss
        return rows

    def steps_done(self) -> int:
        """How many lines of steps there are in all logs."""
        return sum(log.read_text().count('"loss"') for log in self.work_dir.glob("*/vis_data/scalars.json"))

    def killed(self, kills: int, rng: random.Random, timeout: float = 600) -> int:
        """Run it with that many kills by SIGKILL at random points, then to its end; returns how many there were.

        Of several processes one at random is killed; once training began, the others have to end by themselves.
        """
        done, ends = 0, time.monotonic() + timeout
        while done < kills:
            before, started = self.steps_done(), self.start("--resume")
            lives = rng.randint(0, 3)  # steps
            while self.steps_done() - before < lives and all(process.is_alive() for process in started):
                time.sleep(0.002)
                assert time.monotonic() < ends, self.log().read_text()[-3000:]
            time.sleep(rng.uniform(0, 0.15 if lives else 2.0))
            victim = rng.choice(started)
            if victim.is_alive():
                os.kill(victim.pid, signal.SIGKILL)
                done += 1
            elif any(process.exitcode == 0 for process in started):
                break  # it was faster than the kill
            for process in started:
                process.join(60 if lives else 5)
                if process.is_alive() and not lives:
                    process.kill()  # as a launcher does: it may wait for the other to begin
                    process.join()
                assert not process.is_alive(), "the others have to end when one is killed in training"
        assert set(self.finish("--resume")) == {0}, self.log().read_text()[-3000:]
        return done


def final(work_dir: Path, epochs: int) -> dict[str, Any]:
    """The last checkpoint of a training."""
    return load_torch(work_dir / f"epoch_{epochs}.pth", mmap=False)


def assert_same(found: Any, wanted: Any, where: str = "checkpoint") -> None:
    """See that two values are the same to the bit."""
    if isinstance(wanted, Tensor):
        assert torch.equal(found, wanted), where
    elif isinstance(wanted, HistoryBuffer):
        for ours, theirs in zip(found.data, wanted.data, strict=True):
            assert ours.tolist() == theirs.tolist(), where
    elif isinstance(wanted, Mapping):
        assert found.keys() == wanted.keys(), where
        for key in wanted:
            assert_same(found[key], wanted[key], f"{where}.{key}")
    elif isinstance(wanted, (list, tuple)):
        assert len(found) == len(wanted), where
        for i, (ours, theirs) in enumerate(zip(found, wanted, strict=True)):
            assert_same(ours, theirs, f"{where}.{i}")
    else:
        assert found == wanted, where


def assert_same_training(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """See that two trainings ended alike: weights, optimizer, schedule, random states, hooks and what was logged."""
    assert found.keys() == wanted.keys()
    for key in ("state_dict", "ema_state_dict", "optimizer", "param_schedulers", "ranks"):
        if key in wanted:
            assert_same(found[key], wanted[key], key)
    assert (found["meta"]["epoch"], found["meta"]["iter"]) == (wanted["meta"]["epoch"], wanted["meta"]["iter"])
    clock = ("time", "data_time")
    ours, theirs = (
        {key: value for key, value in each["message_hub"]["log_scalars"].items() if not key.endswith(clock)}
        for each in (found, wanted)
    )
    assert theirs
    assert_same(ours, theirs, "logged")
    infos = [each["message_hub"]["runtime_info"] for each in (found, wanted)]
    assert infos[0].get("best_score") == infos[1].get("best_score")
