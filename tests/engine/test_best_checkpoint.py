"""Which checkpoint validation selects, and what selecting needs."""

from typing import Any

import pytest
from hook_runs import begin, load, names, with_validation
from mmengine.config import Config

from clipbert_mm.engine.config import drop_validation
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import OptionError


@pytest.mark.parametrize("kind", ["FaultTolerantCheckpointHook", "mmengine.CheckpointHook"])
def test_a_best_checkpoint_without_validation_is_refused_at_the_start(config: Config, kind: str):
    begin(config)
    config.default_hooks.checkpoint = dict(type=kind, interval=1, save_best="t2v/R@1", rule="greater")
    expected = (
        rf"^save_best=\['t2v/R@1'\] of {kind.rpartition('.')[2]} needs validation, and there is no val_dataloader"
    )
    with pytest.raises(OptionError, match=expected):
        build_runner(config).train()
    with_validation(config, "t2v/R@1")
    config.experiment_name += "-late"
    config.train_cfg.val_begin = 4
    with pytest.raises(OptionError, match="needs validation, and val_begin=4 is after max_epochs=3"):
        build_runner(config).train()
    assert names(config) == []


def test_early_stopping_without_validation_is_refused_at_the_start(config: Config):
    with_validation(config)
    for part in ("dataloader", "evaluator", "cfg"):
        config[f"val_{part}"] = None
    with pytest.raises(OptionError, match=r"^monitor='t2v/MnR' of ResumableEarlyStoppingHook needs validation"):
        begin(config, interval=1, save_best="auto").train()
    config.default_hooks.checkpoint = dict(type="FaultTolerantCheckpointHook", interval=1, save_best="t2v/MnR")
    config.custom_hooks = [dict(type="mmengine.EarlyStoppingHook", monitor="t2v/MnR", rule="less")]
    drop_validation(config)  # as --no-validate
    config.train_cfg.max_epochs = 1
    config.experiment_name += "-none"
    build_runner(config).train()
    assert names(config) == ["epoch_1.pth", "last_checkpoint"]


def test_the_best_replaces_the_one_before_once_it_is_whole(config: Config):
    with_validation(config)
    del config.default_hooks["early_stopping"]
    hook = begin(config, interval=3, save_best=["t2v/MnR", "t2v/R@1"])
    scores = iter([(4.0, 10.0), (5.0, 20.0), (3.0, 20.0)])
    hook.val_evaluator.evaluate = lambda size: dict(zip(("t2v/MnR", "t2v/R@1"), next(scores), strict=True))
    hook.train()
    assert names(config) == ["best_t2v_MnR_epoch_3.pth", "best_t2v_R@1_epoch_2.pth", "epoch_3.pth", "last_checkpoint"]
    assert "optimizer" not in load(config, "best_t2v_MnR_epoch_3")


def validate_with(config: Config, *metrics: dict[str, float]) -> Any:
    """Begin a training with save_best="auto" whose validations give some metrics."""
    with_validation(config)
    del config.default_hooks["early_stopping"]
    hook, scores = begin(config, interval=3, save_best="auto"), iter(metrics)
    hook.val_evaluator.evaluate = lambda size: next(scores)
    return hook


@pytest.mark.parametrize(("first", "best"), [("t2v/R@1", 2), ("accuracy", 2), ("multi-label/mAP", 2), ("mse", 3)])
def test_auto_keeps_the_best_by_the_first_metric(config: Config, first: str, best: int):
    validate_with(config, *({first: value, "loss": 0.0} for value in (3.0, 4.0, 2.0))).train()
    assert names(config) == [f"best_{first.replace('/', '_')}_epoch_{best}.pth", "epoch_3.pth", "last_checkpoint"]


def test_auto_keeps_none_by_a_metric_of_an_unknown_direction(config: Config, caplog: pytest.LogCaptureFixture):
    runner = validate_with(config, *({"surprise": value} for value in (3.0, 4.0, 2.0)))
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert names(config) == ["epoch_3.pth", "last_checkpoint"]
    assert caplog.text.count("save_best='auto' cannot tell whether surprise is better when greater or when less.") == 1


def test_a_metric_that_there_is_not_is_answered_with_those_that_there_are(config: Config):
    with_validation(config)
    with pytest.raises(
        OptionError, match=r"save_best of FaultTolerantCheckpointHook names 'acc'; the metrics are .*t2v/R@1"
    ):
        begin(config, interval=1, save_best="acc").train()
