"""MMEngine's loops: trainings by iterations, loops without a type, and an exact resume of each of them."""

import json
import logging
from pathlib import Path

import mmengine.runner
import pytest
from cut_runs import by_iterations, cut_and_resume, last, same_weights, train
from faulty_runs import assert_same_training
from hook_runs import names
from mmengine.config import Config

from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import CheckpointError, OptionError


def test_h8_iterations_train_as_epochs_do(config: Config):
    epochs = train(config, "-epochs")
    iterations = train(by_iterations(config), "-iterations")
    assert iterations.items == epochs.items
    assert same_weights(last(config, "-iterations"), last(config, "-epochs"))
    assert iterations.items[:6] != iterations.items[6:12], "each pass draws anew"
    rates = [last(config, name)["optimizer"]["param_groups"][0]["lr"] for name in ("-iterations", "-epochs")]
    assert rates[0] == rates[1] < 1e-4, "the schedule is as long as the training"


@pytest.mark.parametrize(
    ("sampler", "kind", "at"),
    [
        ("DefaultSampler", "", 6),
        ("DefaultSampler", "", 8),
        ("InfiniteSampler", "", 8),
        ("DefaultSampler", "mmengine.IterBasedTrainLoop", 8),
        ("InfiniteSampler", "mmengine.IterBasedTrainLoop", 8),
    ],
)
def test_h8_a_run_by_iterations_is_resumed_exactly(config: Config, sampler: str, kind: str, at: int):
    config = by_iterations(config, kind=kind)
    config.train_dataloader.sampler.type = sampler
    whole = train(config, "-whole")
    assert len({item for step in whole.items for item in step}) > 2 * 20, "each item is drawn anew in each pass"
    assert cut_and_resume(config, "-cut", at) == whole.items
    assert_same_training(last(config, "-cut"), last(config, "-whole"))


def test_h8_accumulated_steps_and_workers(config: Config):
    config = by_iterations(config, steps=4)
    config.optim_wrapper.accumulative_counts = 4  # two steps a pass, of four batches and of two
    whole = train(config, "-whole")
    assert [len(step) for step in whole.items] == [16, 8] * 2
    config.train_dataloader.update(num_workers=1, persistent_workers=True)
    assert cut_and_resume(config, "-cut", 3) == whole.items
    assert_same_training(last(config, "-cut"), last(config, "-whole"))


def test_h8_validation_logs_and_checkpoints_by_iterations(validated: Config):
    validated = by_iterations(validated)
    validated.train_cfg.update(val_interval=3, val_begin=7)
    validated.visualizer.vis_backends = [dict(type="LocalVisBackend")]
    train(validated, "", by_epoch=True, interval=2, save_best="auto")
    found = names(validated)
    assert [name for name in found if name.startswith("iter")] == ["iter_12.pth"], "every second pass"
    assert sum(name.startswith("best_t2v_R@1_iter_") for name in found) == 1
    lines = next(Path(validated.work_dir).glob("*/vis_data/scalars.json")).read_text().splitlines()
    assert [row["step"] for row in map(json.loads, lines) if "t2v/R@1" in row] == [9, 12]
    validated.resume = True
    assert train(validated, "", by_epoch=True, interval=2, save_best="auto").items == [], "it is finished"


def test_h8_a_schedule_that_counts_epochs_is_refused_at_the_start(config: Config):
    config = by_iterations(config)
    config.param_scheduler = [dict(type="MultiStepLR", milestones=[1])]
    with pytest.raises(OptionError, match=r"^MultiStepLR of param_scheduler counts epochs, .* Set its by_epoch=False"):
        build_runner(config).train()


@pytest.mark.parametrize("kind", ["ResumableEpochTrainLoop", "mmengine.EpochBasedTrainLoop"])
def test_h8_an_epoch_without_an_end_is_refused_at_the_start(config: Config, kind: str):
    config.train_cfg.type = kind
    config.train_dataloader.sampler.type = "InfiniteSampler"
    with pytest.raises(OptionError, match=r"^InfiniteSampler never ends, .* by_epoch=False"):
        build_runner(config).train()


def test_h8_a_training_has_epochs_or_iterations(config: Config):
    config.train_cfg.max_iters = 12
    with pytest.raises(OptionError, match=r"^train_cfg has max_epochs=2 and max_iters=12, expected one\."):
        build_runner(config).train()
    config.train_cfg.update(by_epoch=False, max_epochs=None, max_iters=1)  # as by --cfg-options
    assert len(train(config, "").items) == 1


def test_h8_a_run_by_iterations_is_not_resumed_by_epochs(config: Config):
    train(by_iterations(config), "", stop_at=8)
    config.resume = True
    with pytest.raises(CheckpointError, match=r"^The checkpoint is of a training by iterations, after iteration 8;"):
        train(config, "")


@pytest.mark.parametrize("at", [6, 8])
def test_h7_mmengine_s_own_loop_by_its_class_is_resumed_exactly(config: Config, at: int):
    config.train_cfg.type = mmengine.runner.EpochBasedTrainLoop
    whole = train(config, "-whole")
    assert cut_and_resume(config, "-cut", at) == whole.items
    assert_same_training(last(config, "-cut"), last(config, "-whole"))


def test_h4_a_retrieval_metric_without_a_loop_gets_the_one_it_needs(
    validated: Config, caplog: pytest.LogCaptureFixture
):
    validated.train_cfg.max_epochs = 1
    validated.val_cfg, validated.test_cfg, validated.log_level = dict(), dict(), "INFO"
    runner = build_runner(validated)
    runner.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.INFO):
        runner.train()
        runner.test()
    assert type(runner.val_loop).__name__ == "RetrievalValLoop"
    assert type(runner.test_loop).__name__ == "RetrievalTestLoop"
    assert "The loop of a RetrievalMetric is RetrievalValLoop, since the config names none." in caplog.messages


@pytest.mark.parametrize("stage", ["val", "test"])
def test_h4_a_loop_that_does_not_score_all_pairs_is_refused_at_the_start(validated: Config, stage: str):
    loop = stage.capitalize() + "Loop"
    validated[f"{stage}_cfg"] = dict(type=loop)
    runner = build_runner(validated)
    with pytest.raises(
        OptionError, match=rf"all texts with all videos, which {loop} .*dict\(type='clipbert_mm\.Retrieval{loop}'\)"
    ):
        runner.train() if stage == "val" else runner.test()
    assert runner.iter == 0


def test_h7_a_loop_of_several_loaders_is_refused_at_the_start(config: Config):
    other = config.train_dataloader.copy()
    config.train_cfg = dict(type="mmaction.MultiLoaderEpochBasedTrainLoop", other_loaders=[other], max_epochs=1)
    config.optim_wrapper.type = "mmengine.OptimWrapper"
    said = r"^MultiLoaderEpochBasedTrainLoop gives a model a batch of each .* a MixedDataset or ConcatDataset, and leave out"
    with pytest.raises(OptionError, match=said):
        build_runner(config).train()


@pytest.mark.parametrize("library", ["mmaction", "mmpretrain"])
def test_h4_retrieval_loops_of_other_libraries_are_refused_at_the_start(validated: Config, library: str):
    validated.val_cfg = dict(type=f"{library}.RetrievalValLoop")
    validated.val_evaluator = (
        dict(type="mmaction.RetrievalMetric") if library == "mmaction" else validated.val_evaluator
    )
    said = rf"^RetrievalValLoop of {library} compares features of texts .* val_cfg=dict\(type='clipbert_mm\.RetrievalValLoop"
    with pytest.raises(OptionError, match=said):
        build_runner(validated).train()
