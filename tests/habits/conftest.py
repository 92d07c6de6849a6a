"""A training of two passes over 24 items, six steps each, with dropout and the paper's schedule."""

import pytest
from mmengine.config import Config


@pytest.fixture
def config(runner_config: Config) -> Config:
    """Two epochs of six steps."""
    runner_config.train_cfg.max_epochs = 2
    runner_config.model.encoder.dropout = runner_config.model.head.dropout = 0.1
    runner_config.param_scheduler = [dict(type="WarmupLinearLR", convert_to_iter_based=True)]
    runner_config.default_hooks.logger = dict(type="MainProcessLoggerHook", interval=1)
    return runner_config


@pytest.fixture
def validated(config: Config) -> Config:
    """The same with validation by the test set."""
    for name in ("dataloader", "evaluator"):
        config[f"val_{name}"] = config[f"test_{name}"].copy()
    config.val_cfg = dict(type="RetrievalValLoop")
    return config
