"""Short trainings that are stopped at a step and resumed, and the items that their steps had."""

import copy
import os
import signal
from typing import Any

import pytest
import torch
from hook_runs import begin, load
from mmengine.config import Config
from mmengine.hooks import Hook

from clipbert_mm.engine import StoppedBySignal


class Watch(Hook):
    """Notes the items of each step with their texts, and stops the training at one of them, as a cluster does."""

    def __init__(self, stop_at: int = 0) -> None:
        self.stop_at = stop_at
        self.items: list[list[tuple[int, tuple[str, ...]]]] = []

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.items.append([(sample.sample_idx, tuple(sample.texts)) for sample in data_batch["data_samples"]])
        if runner.iter + 1 == self.stop_at:
            os.kill(os.getpid(), signal.SIGTERM)


def train(config: Config, name: str, stop_at: int = 0, **settings: Any) -> Watch:
    """Train in a folder of its own, or resume the training there; returns what it saw."""
    config = copy.deepcopy(config)
    config.experiment_name += f"{name}-{stop_at}-{config.get('resume', False)}"
    config.work_dir += name
    watch = Watch(stop_at)
    settings = dict(by_epoch=False, interval=100) | settings
    if stop_at:
        with pytest.raises(StoppedBySignal):
            begin(config, watch, **settings).train()
    else:
        begin(config, watch, **settings).train()
    return watch


def cut_and_resume(config: Config, name: str, at: int) -> list[list[tuple[int, tuple[str, ...]]]]:
    """Train, stop after a step, and resume; returns the items of all steps."""
    first = train(config, name, stop_at=at)
    config = copy.deepcopy(config)
    config.resume = True
    return first.items + train(config, name).items


def last(config: Config, name: str) -> dict[str, Any]:
    config = copy.deepcopy(config)
    config.work_dir += name
    return load(config, "iter_12" if config.optim_wrapper.get("accumulative_counts", 1) == 1 else "iter_4")


def by_iterations(config: Config, steps: int = 12, kind: str = "") -> Config:
    config = copy.deepcopy(config)
    config.train_cfg = dict(by_epoch=False, max_iters=steps) if not kind else dict(type=kind, max_iters=steps)
    return config


def same_weights(one: dict[str, Any], other: dict[str, Any]) -> bool:
    pairs = zip(one["state_dict"].values(), other["state_dict"].values(), strict=True)
    return all(torch.equal(value, twin) for value, twin in pairs)
