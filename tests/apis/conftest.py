"""Checkpoints of tiny models that a Runner has written, one a task."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from clipbert_mm.engine.launch import build_runner


@pytest.fixture
def write_checkpoint(runner_config: Config, world: Path, tmp_path: Path) -> Callable[..., Path]:
    """Write the checkpoint of a training of no steps; the head and the dataset may be another task's."""

    def write(head: dict[str, Any] | None = None, dataset: dict[str, Any] | None = None) -> Path:
        config, name = copy.deepcopy(runner_config), "model" if head is None else head["type"]
        config.experiment_name = f"{tmp_path.name}-{name}"
        config.work_dir = str(tmp_path / name)
        if head is not None:
            config.model.head = head
            for split in ("train", "test"):
                own = config[f"{split}_dataloader"].dataset
                own.update(dataset)
                own.ann_file = f"{dataset['ann_file']}_{split}.jsonl"
            config.test_cfg, config.test_evaluator = dict(type="TestLoop"), dict(type="AnswerAccuracy")
        config.default_hooks.checkpoint = dict(type="CheckpointHook", interval=1)
        config.train_cfg.max_epochs = 1
        torch.manual_seed(0)
        with DefaultScope.overwrite_default_scope("clipbert_mm"):
            build_runner(config).train()
        return next((tmp_path / name).glob("*.pth"))

    return write


@pytest.fixture
def checkpoint(write_checkpoint: Callable[..., Path]) -> Path:
    """A checkpoint for retrieval."""
    return write_checkpoint()
