"""Trainings of a few iterations with the checkpoint hook, and what they leave in their work folder."""

import copy
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.hooks import Hook

from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.engine.launch import build_runner


class Saved(Hook):
    """Notes what lies in the work folder after each iteration and epoch."""

    priority = "LOWEST"

    def __init__(self) -> None:
        self.files: list[set[str]] = []

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.files.append({path.stem for path in Path(runner.work_dir).glob("*.pth")})

    def after_train_epoch(self, runner) -> None:
        self.after_train_iter(runner, 0)


def begin(config: Config, *hooks: Hook, **settings: Any) -> Any:
    """Build a runner of a name of its own whose checkpoint hook has some settings."""
    config.experiment_name += "-next"
    config.default_hooks.checkpoint = dict(type="FaultTolerantCheckpointHook", **settings)
    runner = build_runner(config)
    for hook in hooks:
        runner.register_hook(hook, "LOWEST" if isinstance(hook, Saved) else "NORMAL")
    return runner


def written(config: Config, tmp_path: Path, name: str) -> str:
    """Write a config to a file of its own, whose runner has a name of its own."""
    config = copy.deepcopy(config)
    config.experiment_name += name
    config.dump(str(tmp_path / f"{name}.py"))
    return str(tmp_path / f"{name}.py")


def load(config: Config, name: str) -> dict[str, Any]:
    return load_torch(Path(config.work_dir) / f"{name}.pth", mmap=False)


def names(config: Config) -> list[str]:
    return sorted(
        path.name
        for path in Path(config.work_dir).iterdir()
        if path.is_file() and path.suffix != ".py" and path.name != "finished"
    )


def with_validation(config: Config, metric: str = "t2v/MnR") -> None:
    """Let a training validate each epoch by its test set."""
    config.val_dataloader, config.val_evaluator = config.test_dataloader, config.test_evaluator
    config.val_cfg = dict(type="RetrievalValLoop")
    config.default_hooks.early_stopping = dict(
        type="ResumableEarlyStoppingHook", monitor=metric, rule="less", patience=2, min_delta=1000.0
    )
