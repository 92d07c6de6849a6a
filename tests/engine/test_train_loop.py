"""Iterations are steps of the optimizer: what counts them, what each is made of, and what is said of them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook

from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.engine.config import drop_validation
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.train_loop import AccumulatedLoader
from clipbert_mm.errors import OptionError


def test_a_dataloader_by_steps():
    loader = torch.utils.data.DataLoader(range(14), batch_size=2)
    steps = AccumulatedLoader(loader, 3)
    assert len(steps) == 3
    assert [[batch.tolist() for batch in step] for step in steps] == [
        [[0, 1], [2, 3], [4, 5]],
        [[6, 7], [8, 9], [10, 11]],
        [[12, 13]],
    ]
    assert steps.dataset is loader.dataset, "all else is the dataloader's"
    assert len(AccumulatedLoader(loader, 7)) == 1


class CatchSteps(Hook):
    """Notes the items and the losses of each step, and the weights after it."""

    def __init__(self) -> None:
        self.items: list[list[int]] = []
        self.losses: list[float] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        assert batch_idx == runner.iter % len(runner.train_dataloader)
        self.items.append([sample.sample_idx for sample in data_batch["data_samples"]])
        self.losses.append(outputs["loss"].item())
        self.weights.append({name: value.clone() for name, value in runner.model.state_dict().items()})


def trained(
    config: Config, name: str, batch_size: int, accumulation: int, micro_batch: int | None = None
) -> tuple[Any, CatchSteps]:
    """Train under another name; returns the runner and what its steps were."""
    config.experiment_name += name
    config.work_dir += name
    config.train_dataloader.batch_size = batch_size
    config.optim_wrapper.accumulative_counts = accumulation
    runner, notes = build_runner(config, micro_batch=micro_batch), CatchSteps()
    runner.register_hook(notes)
    runner.train()
    return runner, notes


@pytest.fixture
def stepping(runner_config: Config) -> Config:
    """24 items, two epochs, with EMA, a log and a checkpoint every second step, and the paper's schedule."""
    runner_config.train_cfg.max_epochs = 2
    runner_config.optim_wrapper.update(clip_grad=dict(max_norm=0.5))
    runner_config.param_scheduler = [dict(type="WarmupLinearLR", convert_to_iter_based=True)]
    runner_config.default_hooks.update(
        logger=dict(type="MainProcessLoggerHook", interval=2),
        checkpoint=dict(type="FaultTolerantCheckpointHook", by_epoch=False, interval=2, save_last=False),
        ema=dict(type="EMAHook", momentum=0.3),
    )
    runner_config.visualizer.vis_backends = [dict(type="LocalVisBackend")]
    return runner_config


def test_accumulating_is_training_with_the_larger_batch(stepping: Config):
    whole, wanted = trained(stepping, "-whole", batch_size=8, accumulation=1)
    parts, found = trained(stepping, "-parts", batch_size=2, accumulation=4)
    assert parts.iter == whole.iter == len(found.items) == 6
    assert found.items == wanted.items, "hooks see all items of a step"
    assert found.losses == pytest.approx(wanted.losses, rel=1e-4)
    for after, twin in zip(found.weights, wanted.weights, strict=True):
        torch.testing.assert_close(after, twin, atol=1e-5, rtol=1e-3)
    # What counts iterations counts steps.
    rows = {}
    for runner in (whole, parts):
        folder = Path(runner.work_dir)
        assert sorted(path.name for path in folder.glob("*.pth")) == ["iter_2.pth", "iter_4.pth", "iter_6.pth"]
        logs = [json.loads(line) for line in next(folder.glob("*/vis_data/scalars.json")).read_text().splitlines()]
        rows[runner] = [(row["step"], row["lr"], pytest.approx(row["loss"], rel=1e-3)) for row in logs]
    assert rows[parts] == rows[whole]
    assert [row[0] for row in rows[parts]] == [2, 5], "every second step of an epoch"
    averaged = [load_torch(Path(runner.work_dir) / "iter_6.pth", mmap=False) for runner in (whole, parts)]
    assert not torch.equal(
        averaged[0]["state_dict"]["head.classifier.0.weight"], wanted.weights[-1]["head.classifier.0.weight"]
    )
    torch.testing.assert_close(averaged[1]["state_dict"], averaged[0]["state_dict"], atol=1e-5, rtol=1e-3)
    assert averaged[1]["meta"]["iter"] == 6


def test_micro_batches_train_as_the_whole_batch_does(stepping: Config):
    stepping.train_dataloader.drop_last = True  # 24 items, of which a step has 16
    stepping.auto_scale_lr = dict(enable=False, base_batch_size=16)
    _, wanted = trained(stepping, "-whole", batch_size=16, accumulation=1)
    runner, found = trained(stepping, "-micro", batch_size=16, accumulation=1, micro_batch=2)
    assert (runner.iter, runner.items_per_step, runner.accumulation) == (2, 16, 8)
    assert found.items == wanted.items
    assert found.losses == pytest.approx(wanted.losses, rel=1e-4)
    for after, twin in zip(found.weights, wanted.weights, strict=True):
        torch.testing.assert_close(after, twin, atol=1e-5, rtol=1e-3)


def test_an_epoch_ends_with_a_step(stepping: Config):
    runner, notes = trained(stepping, "", batch_size=4, accumulation=4)  # 4 + 2 batches
    assert [len(items) for items in notes.items] == [16, 8, 16, 8]
    assert runner.iter == runner.max_iters == 4
    _, wanted = trained(stepping, "-whole", batch_size=16, accumulation=1)
    for after, twin in zip(notes.weights, wanted.weights, strict=True):
        torch.testing.assert_close(after, twin, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("enable", [True, False])
def test_the_global_batch_and_the_rate_are_said(stepping: Config, caplog: pytest.LogCaptureFixture, enable: bool):
    stepping.update(log_level="INFO", auto_scale_lr=dict(enable=enable, base_batch_size=64))
    stepping.train_dataloader.batch_size = 2
    stepping.optim_wrapper.accumulative_counts = 4
    runner = build_runner(stepping)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    said = [record.getMessage() for record in caplog.records]
    rate = 1e-3 / 8 if enable else 1e-3
    assert ("Learning rate scaled by 0.125: 8 items per step, the config's learning rate is for 64." in said) == enable
    sentence = "8 items per step = 1 processes x 2 items x 4 batches; 3 steps per epoch, 6 in total; learning rate "
    assert f"{sentence}{rate:g}." in said
    assert {group["initial_lr"] for group in runner.optim_wrapper.param_groups} == {rate}


def test_scaling_needs_to_know_what_the_rate_is_for(stepping: Config):
    stepping.auto_scale_lr = dict(enable=True)
    with pytest.raises(ValueError, match=r"got auto_scale_lr=\{'enable': True\}\. Set .*base_batch_size=\.\.\."):
        build_runner(stepping).train()


def test_a_foreign_wrapper_cannot_accumulate(stepping: Config):
    stepping.optim_wrapper.update(type="mmengine.OptimWrapper", accumulative_counts=2)
    with pytest.raises(OptionError, match=r"needs AccumulatingOptimWrapper or .*, got mmengine's OptimWrapper"):
        build_runner(stepping).train()


def test_mmengine_s_short_form_is_the_same_loop(stepping: Config):
    stepping.train_cfg = dict(by_epoch=True, max_epochs=1)
    _, notes = trained(stepping, "", batch_size=4, accumulation=2)
    assert [len(items) for items in notes.items] == [8, 8, 8]


@pytest.fixture
def validated(stepping: Config) -> Config:
    """The same with validation after each of eight epochs."""
    for name in ("dataloader", "evaluator"):
        stepping[f"val_{name}"] = stepping[f"test_{name}"].copy()
    stepping.val_cfg = dict(type="RetrievalValLoop")
    stepping.train_cfg.max_epochs = 8
    return stepping


def test_validation_changes_neither_the_losses_nor_the_weights(validated: Config):
    validated.train_cfg.max_epochs = 3
    _, with_it = trained(validated, "-with", batch_size=8, accumulation=1)
    assert len(metrics_by_epoch(validated.work_dir)) == 3
    drop_validation(validated)
    _, without = trained(validated, "-without", batch_size=8, accumulation=1)
    assert not list(Path(validated.work_dir).glob("best_*"))
    assert with_it.items == without.items
    assert with_it.losses == without.losses
    torch.testing.assert_close(with_it.weights, without.weights, rtol=0, atol=0)


def metrics_by_epoch(work_dir: str) -> list[dict[str, float]]:
    """What validation logged."""
    lines = next(Path(work_dir).glob("*/vis_data/scalars.json")).read_text().splitlines()
    return [row for row in map(json.loads, lines) if "t2v/MnR" in row]


def test_the_best_checkpoint_is_the_averaged_model_that_was_validated(validated: Config):
    validated.default_hooks.checkpoint.update(save_best="t2v/MnR", rule="less")
    validated.train_cfg.max_epochs = 4
    trained(validated, "", batch_size=8, accumulation=1)
    reached = metrics_by_epoch(validated.work_dir)
    assert len(reached) == 4
    (best,) = Path(validated.work_dir).glob("best_*.pth")
    validated.update(load_from=str(best), experiment_name=validated.experiment_name + "-test")
    tested = build_runner(validated).test()
    assert tested["t2v/MnR"] == pytest.approx(min(row["t2v/MnR"] for row in reached))


def test_training_stops_early(validated: Config):
    stop = dict(type="ResumableEarlyStoppingHook", monitor="t2v/R@1", rule="greater", patience=2, strict=True)
    validated.default_hooks.early_stopping = stop
    validated.optim_wrapper.optimizer.lr = 0.0
    runner, _ = trained(validated, "", batch_size=8, accumulation=1)
    assert runner.epoch == len(metrics_by_epoch(validated.work_dir)) == 3, "one, and two that were not better"


def test_tensorboard_by_a_config_line(stepping: Config):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    stepping.visualizer.vis_backends = [dict(type="LocalVisBackend"), dict(type="TensorboardVisBackend")]
    _, notes = trained(stepping, "", batch_size=2, accumulation=4)
    (events,) = Path(stepping.work_dir).glob("*/vis_data/events.*")
    written = EventAccumulator(str(events)).Reload()
    assert [event.step for event in written.Scalars("loss")] == [2, 5]
    assert written.Scalars("loss")[0].value == pytest.approx(sum(notes.losses[:2]) / 2)


def test_weights_and_biases_by_a_config_line(stepping: Config, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.chdir(tmp_path)  # MMEngine uploads the Python files below it
    # No reports of its own errors, nothing about the machine, the repository and the console.
    quiet = dict(MODE="offline", SILENT="true", ERROR_REPORTING="false", X_DISABLE_STATS="true", CONSOLE="off")
    for name, value in (quiet | dict(X_DISABLE_MACHINE_INFO="true", DISABLE_GIT="true", DISABLE_CODE="true")).items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    import wandb

    axis = [dict(name="*", step_metric="iter")]
    project = dict(type="WandbVisBackend", init_kwargs=dict(project="shapes"), define_metric_cfg=axis)
    stepping.visualizer.vis_backends = [dict(type="LocalVisBackend"), project]
    stepping.train_cfg.max_epochs = 1
    trained(stepping, "", batch_size=8, accumulation=1)
    wandb.teardown()  # waits until all is written
    runs = list(Path(stepping.work_dir).glob("*/vis_data/wandb/offline-run-*/run-*.wandb"))
    assert len(runs) == 1
    written = runs[0].read_bytes()
    assert all(name in written for name in (b"loss_match", b"match_accuracy", b"iter"))
