"""MMEngine's own classes beside ours: a config that names them gets them, and old configs still get ours."""

import copy
import importlib
import warnings
from pathlib import Path

import mmengine.hooks
import mmengine.optim
import mmengine.runner
import pytest
import torch
from mmengine.config import Config

from clipbert_mm.deprecation import NAMES_IN_CONFIGS
from clipbert_mm.engine import FaultTolerantCheckpointHook, ResumableEpochTrainLoop
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.run_state import rank_state, restore_rank
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.errors import OptionError


@pytest.fixture
def two_epochs(runner_config: Config) -> Config:
    """Two epochs of three steps with validation, none of ours named."""
    runner_config.train_cfg = dict(type="mmengine.EpochBasedTrainLoop", max_epochs=2)
    runner_config.train_dataloader.batch_size = 8
    runner_config.optim_wrapper.type = "mmengine.OptimWrapper"
    for name in ("dataloader", "evaluator"):
        runner_config[f"val_{name}"] = runner_config[f"test_{name}"].copy()
    runner_config.val_cfg = dict(type="RetrievalValLoop")
    stop = dict(type="mmengine.EarlyStoppingHook", monitor="t2v/R@1", rule="greater", patience=9)
    runner_config.default_hooks.update(
        checkpoint=dict(type="mmengine.CheckpointHook", interval=1, max_keep_ckpts=1, save_best="t2v/MnR", rule="less"),
        logger=dict(type="mmengine.LoggerHook", interval=1),
        early_stopping=stop,
    )
    return runner_config


def trained(config: Config, name: str) -> ClipBertRunner:
    """Train a copy of a config in a folder of its own."""
    config = copy.deepcopy(config)
    config.update(experiment_name=config.experiment_name + name, work_dir=config.work_dir + name)
    runner = build_runner(config)
    runner.train()
    return runner


def names_in(folder: str) -> list[str]:
    return sorted(path.name for path in Path(folder).glob("*.pth"))


def test_mmengine_s_own_train_as_ours_do_where_nothing_is_cut(two_epochs: Config):
    theirs = trained(two_epochs, "-mmengine")
    assert type(theirs.train_loop) is mmengine.runner.EpochBasedTrainLoop
    assert type(theirs.optim_wrapper) is mmengine.optim.OptimWrapper
    own = {mmengine.hooks.CheckpointHook, mmengine.hooks.LoggerHook, mmengine.hooks.EarlyStoppingHook}
    assert own <= {type(hook) for hook in theirs.hooks}
    saved = names_in(theirs.work_dir)
    assert [name for name in saved if name.startswith("epoch")] == ["epoch_2.pth"]
    assert sum(name.startswith("best_t2v_MnR_epoch") for name in saved) == 1
    two_epochs.train_cfg.type, two_epochs.optim_wrapper.type = "ResumableEpochTrainLoop", "AccumulatingOptimWrapper"
    two_epochs.default_hooks.checkpoint.type = "FaultTolerantCheckpointHook"
    ours = trained(two_epochs, "-ours")
    for name, value in ours.model.state_dict().items():
        assert torch.equal(value, theirs.model.state_dict()[name]), name
    assert names_in(ours.work_dir) == saved


def test_a_run_of_mmengine_s_own_is_resumed_in_another_folder(two_epochs: Config):
    first = trained(two_epochs, "-first")
    hub = torch.load(Path(first.work_dir) / "epoch_2.pth", weights_only=False)["message_hub"]["runtime_info"]
    assert hub["last_ckpt"] == "epoch_2.pth"
    (best,) = Path(first.work_dir).glob("best_*.pth")
    assert hub["best_ckpt"] in ("best_t2v_MnR_epoch_1.pth", best.name)
    moved = Path(f"{two_epochs.work_dir}-moved")
    Path(first.work_dir).rename(moved)
    two_epochs.train_cfg.max_epochs = 4
    two_epochs.update(work_dir=str(moved), resume=True, experiment_name=two_epochs.experiment_name + "-on")
    two_epochs.default_hooks.checkpoint.update(save_best="t2v/MnR", rule="greater")  # so that another is better
    runner = build_runner(two_epochs)
    runner.train()
    assert runner.epoch == 4
    assert [name for name in names_in(str(moved)) if name.startswith("epoch")] == ["epoch_4.pth"]
    assert sum(name.startswith("best") for name in names_in(str(moved))) == 1, "the best before is removed"


def test_mmengine_s_own_accumulate_by_batches(two_epochs: Config):
    two_epochs.train_dataloader.batch_size = 4
    two_epochs.optim_wrapper.accumulative_counts = 4
    runner = trained(two_epochs, "")
    assert runner.iter == 12, "an iteration is a batch"
    assert runner.items_per_step == 16
    meta = torch.load(Path(runner.work_dir) / "epoch_2.pth", weights_only=False)["meta"]
    assert (meta["steps_per_epoch"], meta["items_per_step"]) == (6, 4), "of an iteration"


@pytest.mark.parametrize("kind", ["mmengine.AmpOptimWrapper", mmengine.optim.AmpOptimWrapper])
def test_mmengine_s_own_mixed_precision_needs_a_gpu(runner_config: Config, kind: str | type):
    runner_config.optim_wrapper.type = kind
    with pytest.raises(OptionError) as caught:
        build_runner(runner_config).train()
    assert str(caught.value) == (
        "mmengine.AmpOptimWrapper needs a GPU, and there is none. Set optim_wrapper.type to AmpAccumulatingOptimWrapper, "
        "which computes in bfloat16 on a CPU."
    )


@pytest.mark.parametrize("settings", [dict(out_dir="s3://bucket"), dict(backend_args=dict(backend="petrel"))])
def test_checkpoints_go_to_a_file_system(two_epochs: Config, tmp_path: Path, settings: dict):
    runner = build_runner(two_epochs)
    settings = dict(out_dir=str(tmp_path)) | settings
    with pytest.raises(
        OptionError, match=r"written to a folder of a file system, got .*(s3|petrel).* Mount the storage"
    ):
        runner.save_checkpoint(filename="a.pth", **settings)


def test_new_style_configs_name_mmengine_s_by_the_class(two_epochs: Config):
    two_epochs.train_cfg.update(type=mmengine.runner.EpochBasedTrainLoop, max_epochs=1)
    two_epochs.default_hooks.checkpoint = dict(type="FaultTolerantCheckpointHook", interval=1)
    runner = trained(two_epochs, "")
    assert type(runner.train_loop) is mmengine.runner.EpochBasedTrainLoop
    assert "epoch_1.pth" in names_in(runner.work_dir)


def test_configs_of_the_last_release_get_ours_with_a_line_for_each_old_name(runner_config: Config):
    stop = dict(type="EarlyStoppingHook", monitor="t2v/R@1", rule="greater")
    runner_config.default_hooks.update(
        checkpoint=dict(type="CheckpointHook", minutes=1), logger=dict(type="LoggerHook"), early_stopping=stop
    )
    runner_config.train_cfg.type, runner_config.optim_wrapper.type = "EpochBasedTrainLoop", "OptimWrapper"
    runner_config.val_dataloader, runner_config.val_evaluator = (
        runner_config.test_dataloader,
        runner_config.test_evaluator,
    )
    runner_config.val_cfg = dict(type="clipbert_mm.RetrievalValLoop")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runner = build_runner(runner_config)
        runner.train()
    kinds = {type(each).__name__ for each in (*runner.hooks, runner.train_loop, runner.optim_wrapper)}
    named = ("CheckpointHook", "LoggerHook", "EarlyStoppingHook", "EpochBasedTrainLoop", "OptimWrapper")
    assert {NAMES_IN_CONFIGS[name] for name in named} <= kinds
    said = [
        str(each.message) for each in caught if each.category is FutureWarning and "next release" in str(each.message)
    ]
    assert sorted(said) == sorted(
        f"{name} is deprecated and will go with the next release. Use {NAMES_IN_CONFIGS[name]}, or mmengine.{name} for "
        "MMEngine's own."
        for name in named
    )


def test_what_a_config_leaves_out_is_ours(runner_config: Config):
    runner_config.default_hooks.pop("checkpoint")
    runner_config.optim_wrapper.pop("type")
    runner_config.train_cfg = dict(by_epoch=True, max_epochs=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        runner = build_runner(runner_config)
        runner.train()
    assert not [each for each in caught if "next release" in str(each.message)]
    kinds = {type(each).__name__ for each in (*runner.hooks, runner.train_loop, runner.optim_wrapper)}
    assert kinds >= {"MainProcessLoggerHook", "FaultTolerantCheckpointHook", "ResumableEpochTrainLoop"}
    assert "AccumulatingOptimWrapper" in kinds


def test_old_imports_give_the_renamed_classes():
    for module, names in {
        "clipbert_mm.engine": ("CheckpointHook", "EpochBasedTrainLoop"),
        "clipbert_mm.engine.hooks": ("CheckpointHook",),
        "clipbert_mm.compat.optim": ("OptimWrapper", "AmpOptimWrapper", "LoggerHook", "EarlyStoppingHook"),
    }.items():
        for name in names:
            with pytest.warns(FutureWarning, match=NAMES_IN_CONFIGS[name]):
                found = getattr(importlib.import_module(module), name)
            assert found.__name__ == NAMES_IN_CONFIGS[name]
    assert issubclass(FaultTolerantCheckpointHook, mmengine.hooks.CheckpointHook)
    assert issubclass(ResumableEpochTrainLoop, mmengine.runner.EpochBasedTrainLoop)


def test_states_that_hooks_saved_under_an_old_name_are_restored(runner_config: Config):
    stop = dict(type="ResumableEarlyStoppingHook", monitor="t2v/R@1", rule="greater")
    runner_config.default_hooks.early_stopping = stop
    runner = build_runner(runner_config)
    state = rank_state(runner)
    hooks = state["hooks"]
    hooks["EarlyStoppingHook"] = hooks.pop("ResumableEarlyStoppingHook") | dict(wait_count=3, best_score=40.0)
    runner.resumed = dict(meta={}, ranks=[state])
    restore_rank(runner)
    (hook,) = (hook for hook in runner.hooks if isinstance(hook, mmengine.hooks.EarlyStoppingHook))
    assert (hook.wait_count, hook.best_score) == (3, 40.0)
