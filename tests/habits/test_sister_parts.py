"""Metrics and hooks of MMPretrain and MMAction2 that cannot use what our heads predict, and MMEngine's settings of loaders."""

from pathlib import Path

import pytest
from mmengine.config import Config
from sister_libraries import import_mmaction

from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.errors import OptionError


@pytest.mark.parametrize(
    ("metric", "head"),
    [
        ("mmaction.AccMetric", "MatchingHead"),
        ("mmaction.AccMetric", "OpenEndedHead"),
        ("mmpretrain.Accuracy", "OpenEndedHead"),
        ("mmpretrain.RetrievalRecall", "MatchingHead"),
    ],
)
def test_h15_a_metric_of_the_sisters_is_refused_at_the_start(runner_config: Config, metric: str, head: str):
    import_mmaction()
    ours = "RetrievalMetric"
    if head == "OpenEndedHead":
        runner_config.model.head = dict(type=head, in_channels=16, num_answers=14, hidden_channels=None)
        ours = "AnswerAccuracy"
    runner_config.val_dataloader = runner_config.test_dataloader.copy()
    runner_config.val_evaluator = dict(type=metric, **dict(topk=1) if metric.endswith("Recall") else {})
    runner_config.val_cfg = dict(type="ValLoop")
    message = rf"^{metric} reads .* {head} gives scores .* Set val_evaluator=.*clipbert_mm\.{ours}'"
    with pytest.raises(OptionError, match=message):
        build_runner(runner_config).train()


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("mmaction.VisualizationHook", dict(enable=True, out_dir="shown")),
        ("mmpretrain.VisualizationHook", dict(enable=True, out_dir="shown")),
        ("mmengine.NaiveVisualizationHook", {}),
        ("mmaction.VisualizationHook", dict(enable=False)),
        ("mmpretrain.VisualizationHook", dict(enable=False)),
    ],
)
def test_h20_a_visualization_hook_of_the_sisters_is_refused_where_it_would_draw(
    runner_config: Config, checkpoint: Path, kind: str, options: dict
):
    import_mmaction()
    runner_config.load_from = str(checkpoint)
    runner_config.default_hooks.visualization = dict(type=kind, **options)
    runner = build_runner(runner_config)
    if options.get("enable", True):
        with pytest.raises(OptionError, match=rf"^{kind} draws images with labels, .* --show-dir DIR of clipbert"):
            runner.test()
    else:
        assert "t2v/R@1" in runner.test()


def test_h20_averaging_over_flips_is_refused_at_the_start(runner_config: Config):
    runner_config.model = dict(type="mmpretrain.AverageClsScoreTTA", module=runner_config.model)  # as their --tta does
    with pytest.raises(
        OptionError, match=r"^mmpretrain\.AverageClsScoreTTA averages .* \(--tta\), .* set num_clips of"
    ):
        build_runner(runner_config)


@pytest.mark.parametrize("name", ["default_collate", "pseudo_collate", None])
@pytest.mark.parametrize("wrapped", [False, True])
def test_h23_mmengine_s_functions_do_not_collate_items_of_ours(runner_config: Config, name: str | None, wrapped: bool):
    loader = runner_config.train_dataloader
    loader.pop("collate_fn")
    if name is not None:
        loader.collate_fn = dict(type=name)
    if wrapped:
        loader.dataset = dict(type="RepeatDataset", dataset=loader.dataset, times=2)
    with pytest.raises(OptionError, match=rf"^{name or 'pseudo_collate'} cannot make .*clipbert_mm\.collate_items"):
        build_runner(runner_config).train()


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("batches", [2, 3, 4, 1000])
def test_h12_num_batch_per_epoch_is_at_most_what_there_is(runner_config: Config, batches: int, wrapped: bool):
    loader = runner_config.test_dataloader  # 7 videos, two batches
    if wrapped:
        loader.dataset = dict(type="ConcatDataset", datasets=[loader.dataset])
    built = [
        ClipBertRunner.build_dataloader({**loader, "num_workers": 0, **settings})
        for settings in ({}, dict(num_batch_per_epoch=batches))
    ]
    whole, limited = ([sample.sample_idx for batch in each for sample in batch["data_samples"]] for each in built)
    assert limited == whole
    assert len(whole) == 7


def test_h12_a_test_takes_more_batches_than_there_are(runner_config: Config, checkpoint: Path):
    runner_config.load_from = str(checkpoint)
    runner_config.test_dataloader.num_batch_per_epoch = 1000
    assert build_runner(runner_config).test()["t2v/R@10"] > 0
