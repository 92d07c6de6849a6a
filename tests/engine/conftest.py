"""A training of three short epochs."""

import pytest
from mmengine.config import Config


@pytest.fixture
def config(runner_config: Config) -> Config:
    """Three epochs of six iterations with dropout, on one frame of each video."""
    runner_config.train_cfg.max_epochs = 3
    runner_config.train_dataloader.dataset.pipeline[1].update(num_clips=1, num_frames=1)
    runner_config.test_dataloader.dataset.pipeline[1].update(num_clips=1, num_frames=1)
    runner_config.model.encoder.num_layers = 1
    runner_config.model.encoder.dropout = runner_config.model.head.dropout = 0.1
    runner_config.default_hooks.logger = dict(type="MainProcessLoggerHook", interval=1)
    return runner_config
