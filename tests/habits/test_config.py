"""What a config and the command line may say to a run, as in MMEngine's other libraries."""

import inspect
import logging
from pathlib import Path
from typing import Any

import mmengine.runner
import mmengine.visualization
import pytest
import torch
from cut_runs import same_weights
from hook_runs import load, names
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import BaseMetric
from mmengine.registry import RUNNERS

from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.checkpoint.metadata import KEY
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.run_tool import format_error
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.errors import CheckpointError, OptionError, UnknownNameError
from clipbert_mm.registry import DATASETS, HOOKS, METRICS, MODELS, TRANSFORMS


class OwnRunner(ClipBertRunner):
    """A runner of one's own."""


@pytest.mark.parametrize("how", ["by name", "by class"])
def test_h2_a_runner_of_one_s_own_is_taken(runner_config: Config, how: str):
    RUNNERS.register_module(module=OwnRunner, force=True)
    runner_config.runner_type = "OwnRunner" if how == "by name" else OwnRunner
    assert type(build_runner(runner_config)) is OwnRunner


def test_h2_mmengine_s_other_runner_is_taken_and_refused_by_our_loop(runner_config: Config):
    runner_config.update(runner_type="FlexibleRunner", env_cfg=dict(cudnn_benchmark=False))
    with pytest.raises(OptionError, match=r"^ResumableEpochTrainLoop needs ClipBertRunner, got FlexibleRunner\."):
        build_runner(runner_config).train()


def test_h2_a_runner_that_does_not_exist_is_refused(runner_config: Config):
    runner_config.runner_type = "ClipBartRunner"
    with pytest.raises(
        UnknownNameError, match=r"^'ClipBartRunner' is not in the runner registry\. Did you mean ClipBert"
    ):
        build_runner(runner_config)


def by_class(value: Any) -> Any:
    """Return a config's value with classes instead of their names, as MMEngine's new-style configs have them."""
    if isinstance(value, list):
        return [by_class(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = [registry.get(value["type"]) for registry in (MODELS, TRANSFORMS, DATASETS) if _has(registry, value)]
    return {key: found[0] if key == "type" and found else by_class(each) for key, each in value.items()}


def _has(registry: Any, settings: dict) -> bool:
    return settings.get("type") in registry.module_dict


def test_h7_a_new_style_config_writes_the_same_checkpoint(runner_config: Config, tmp_path: Path):
    saved = []
    for name in ("-by-name", "-by-class"):
        config = Config(runner_config.to_dict() if name == "-by-name" else by_class(runner_config.to_dict()))
        config.experiment_name += name
        config.work_dir += name
        config.default_hooks.checkpoint.save_last = True
        build_runner(config).train()
        saved.append(load(config, "epoch_1"))
    assert isinstance(config.model.type, type)
    assert same_weights(*saved)
    assert saved[0][KEY] == saved[1][KEY]


def test_h7_what_a_new_style_config_imports_is_not_misspelt(tmp_path: Path):
    (tmp_path / "a.py").write_text(
        "from mmengine.visualization import Visualizer\nmodel = dict(type='ClipBert')\nvisualizer = dict(type=Visualizer)\n"
    )
    config = load_config(str(tmp_path / "a.py"))
    assert config.visualizer.type is mmengine.visualization.Visualizer


@pytest.mark.parametrize("what", ["loop", "checkpoint hook", "fit hook", "test"])
def test_h3_mmengine_s_runner_is_refused_at_the_start(runner_config: Config, what: str, checkpoint: Path):
    who = "CheckpointCompatibilityHook"
    if what == "loop":
        who = "ResumableEpochTrainLoop"
    elif what != "test":
        runner_config.train_cfg = dict(type="mmengine.EpochBasedTrainLoop", max_epochs=1)
        runner_config.optim_wrapper.type = "OptimWrapper"
    if what == "checkpoint hook":
        runner_config.default_hooks.checkpoint_fit = dict(type="mmengine.IterTimerHook")
        who = "FaultTolerantCheckpointHook"
    runner_config.load_from = str(checkpoint)
    runner = mmengine.runner.Runner.from_cfg(runner_config)
    with pytest.raises(
        OptionError, match=rf"^{who} needs ClipBertRunner, got Runner\. Set runner_type='clipbert_mm\.Clip"
    ):
        runner.test() if what == "test" else runner.train()


def test_h3_mmengine_s_runner_trains_by_its_own_loop_and_hooks(runner_config: Config):
    runner_config.train_cfg = dict(type="mmengine.EpochBasedTrainLoop", max_epochs=1)
    runner_config.optim_wrapper.type = "mmengine.OptimWrapper"
    runner_config.default_hooks.checkpoint = dict(type="mmengine.CheckpointHook", interval=1)
    runner_config.default_hooks.pop("checkpoint_fit")
    mmengine.runner.Runner.from_cfg(runner_config).train()
    theirs = load_torch(Path(runner_config.work_dir) / "epoch_1.pth", mmap=False)
    runner_config.work_dir += "-ours"
    runner_config.experiment_name += "-ours"
    build_runner(runner_config).train()
    assert same_weights(theirs, load(runner_config, "epoch_1"))


@pytest.mark.parametrize("kind", ["mmengine.CheckpointHook", "FaultTolerantCheckpointHook"])
def test_h5_h13_checkpoints_take_mmengine_s_arguments_and_are_published(runner_config: Config, kind: str):
    runner_config.default_hooks.checkpoint = dict(
        type=kind, interval=1, backend_args=None, file_client_args=None, published_keys=["state_dict", "meta"]
    )
    build_runner(runner_config).train()
    (published,) = (name for name in names(runner_config) if name.startswith("epoch_1-"))
    assert load(runner_config, "epoch_1").keys() > {"optimizer", "ranks"}
    content = load_torch(Path(runner_config.work_dir) / published, mmap=False)
    assert content.keys() == {"state_dict", "meta"}
    assert same_weights(content, load(runner_config, "epoch_1"))


def test_h13_a_misspelt_argument_is_answered_with_what_the_class_takes():
    with pytest.raises(TypeError) as caught:
        HOOKS.build(dict(type="FaultTolerantCheckpointHook", publish_keys=["meta"]))
    assert "FaultTolerantCheckpointHook has no option 'publish_keys'. Did you mean published_keys" in format_error(
        caught.value
    )


def test_h9_whole_numbers_as_mean_and_std(model_config: dict[str, Any], make_batch):
    prepared = []
    for mean, std in (([0, 0, 0], [1, 2, 1]), ([0.0, 0.0, 0.0], [1.0, 2.0, 1.0])):
        model_config["data_preprocessor"].update(mean=mean, std=std)
        model = MODELS.build(model_config)
        prepared.append(model.data_preprocessor(make_batch())["inputs"]["frames"])
    assert prepared[0].dtype == torch.float32
    assert torch.equal(*prepared)


def test_h10_the_config_s_input_counts_where_it_says_so(
    runner_config: Config, checkpoint: Path, caplog: pytest.LogCaptureFixture
):
    runner_config.update(load_from=str(checkpoint), log_level="INFO")
    runner_config.model.data_preprocessor.mean = [0, 0, 0]
    followed = build_runner(runner_config)
    assert followed.model.data_preprocessor.mean.tolist() == [120, 110, 100]
    runner_config.model.data_preprocessor.mean = [0, 0, 0]
    runner_config.default_hooks.checkpoint_fit.own_input = True
    runner_config.experiment_name += "-own"
    runner = build_runner(runner_config)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert runner.model.data_preprocessor.mean.tolist() == [0, 0, 0]
    (said,) = (message for message in caplog.messages if "own_input" in message)
    assert "expects frames as RGB minus (120, 110, 100)" in said
    assert said.endswith("The config's count, by own_input=True of CheckpointCompatibilityHook.")


def test_h11_a_preprocessor_at_the_top_is_the_model_s(runner_config: Config):
    own = runner_config.model.pop("data_preprocessor")
    runner_config.data_preprocessor = own
    runner = build_runner(runner_config)
    assert runner.model.data_preprocessor.mean.tolist() == own.mean
    assert runner.cfg.model.data_preprocessor == own, "so a checkpoint has it"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(data_preprocessor=dict(mean=[0, 0, 0])), r"^data_preprocessor of the config is not used, since model\."),
        (dict(lr_config=dict(policy="step")), r"^lr_config of the config is read by nothing .* Set param_scheduler\.$"),
        (
            dict(resume_from="a.pth"),
            r"^resume_from of the config is read by nothing .* Set resume='PATH', or --resume PATH",
        ),
        (
            dict(fp16=dict(loss_scale=512.0)),
            r"^fp16 of the config .* Set optim_wrapper\.type='AmpAccumulatingOptimWrapper'",
        ),
        (dict(runner=dict(type="EpochBasedRunner")), r"^runner of the config .* Set train_cfg and runner_type\.$"),
        (dict(workflow=[("train", 1)]), r"^workflow of the config is read by nothing .* Set train_cfg and val_cfg\.$"),
        (dict(strategy=dict(type="FSDPStrategy")), r"^strategy of the config is read by FlexibleRunner alone"),
    ],
)
def test_h11_what_nothing_reads_is_refused(runner_config: Config, settings: dict, message: str):
    runner_config.update(settings)
    with pytest.raises(OptionError, match=message):
        build_runner(runner_config)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            dict(val_dataloader={}, val_evaluator={}),
            r"^The config has val_dataloader and val_evaluator, but not val_cfg\. Set",
        ),
        (
            dict(test_dataloader=None, test_cfg=None),
            r"^The config has test_evaluator, but not test_dataloader nor test_cfg\.",
        ),
        (
            dict(optim_wrapper=None),
            r"^The config has .* but not optim_wrapper\. Set all of train_dataloader, train_cfg, opt",
        ),
    ],
)
def test_h11_a_stage_with_a_part_of_its_settings_is_refused(runner_config: Config, settings: dict, message: str):
    runner_config.update(settings)
    with pytest.raises(OptionError, match=message):
        build_runner(runner_config)


CONFIG = """
model = dict(type="ClipBert")
randomness = dict(seed=1)
env_cfg = dict(cudnn_benchmark=True)
log_processor = dict(window_size=20)
default_hooks = dict(timer=dict(type="IterTimerHook"))
optim_wrapper = dict(type="AccumulatingOptimWrapper", clip_grad=dict(max_norm=5.0))
"""


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("randomness.deterministic", True),
        ("randomness.diff_rank_seed", True),
        ("env_cfg.dist_cfg.backend", "gloo"),
        ("env_cfg.mp_cfg.mp_start_method", "spawn"),
        ("env_cfg.resource_limit", 8192),
        ("log_processor.by_epoch", False),
        ("default_hooks.ema.type", "EMAHook"),
        ("optim_wrapper.clip_grad.norm_type", 1),
        ("compile", True),
        ("compile.backend", "eager"),
        ("sync_bn", "torch"),
        ("activation_checkpointing", ["backbone"]),
        ("val_cfg.fp16", True),
    ],
)
def test_h12_what_mmengine_reads_is_known(tmp_path: Path, key: str, value: object):
    (tmp_path / "a.py").write_text(CONFIG)
    node: Any = load_config(str(tmp_path / "a.py"), {key: value})
    for part in key.split("."):
        node = node[part]
    assert node == value


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("randomness.determinist", r"no 'determinist' in randomness\. Did you mean deterministic"),
        ("env_cfg.dist_cfg.backends", r"no 'backends' in env_cfg\.dist_cfg\. Did you mean backend"),
        ("default_hooks.emma.momentum", r"no 'emma' in default_hooks\."),
        (
            "optim_wrapper.clip_grad.norm",
            r"no 'norm' in optim_wrapper\.clip_grad\. Did you mean .*(max_norm|norm_type)",
        ),
        ("complie", r"the config has no 'complie'\. Did you mean compile\?"),
        ("custom_hooks.0.type", r"the config has no list custom_hooks, .* Name a hook by default_hooks\.NAME\.type\.$"),
        (
            "default_hooks.timer.skip.0",
            r"no list default_hooks\.timer\.skip, of which to set an entry\. Write it in a c",
        ),
    ],
)
def test_h12_what_it_does_not_read_is_refused(tmp_path: Path, key: str, message: str):
    (tmp_path / "a.py").write_text(CONFIG)
    with pytest.raises(OptionError, match=message):
        load_config(str(tmp_path / "a.py"), {key: 1})


def test_h14_a_hook_is_removed_by_none(runner_config: Config):
    runner_config.default_hooks.update(finite_loss=None, timer=None, epoch_seed=None, checkpoint=None)
    kinds = {type(hook).__name__ for hook in build_runner(runner_config).hooks}
    assert not kinds & {"FiniteLossHook", "IterTimerHook", "EpochSeedHook", "FaultTolerantCheckpointHook"}
    assert kinds >= {"RuntimeInfoHook", "MainProcessLoggerHook", "BrokenMediaHook"}


@METRICS.register_module(force=True)
class TypeOfScores(BaseMetric):
    """A metric of one's own beside ours."""

    def process(self, data_batch, data_samples) -> None:
        self.results += [(type(sample["scores"]), sample["scores"].shape) for sample in data_samples]

    def compute_metrics(self, results: list) -> dict[str, float]:
        return dict(tensors=float(all(kind is torch.Tensor for kind, _ in results)), texts=float(results[0][1][0]))


@pytest.mark.parametrize("wrapped", [False, True])
def test_h15_h16_several_metrics_with_prefixes_see_tensors(runner_config: Config, checkpoint: Path, wrapped: bool):
    metrics = [dict(type="TypeOfScores", prefix="own"), dict(type="RetrievalMetric", prefix="all")]
    runner_config.update(load_from=str(checkpoint))
    runner_config.test_evaluator = dict(type="Evaluator", metrics=metrics) if wrapped else metrics
    tested = build_runner(runner_config).test()
    assert tested["own/tensors"] == 1
    assert tested["own/texts"] == 14
    assert 0 < tested["all/t2v/R@10"] <= 100


@pytest.mark.parametrize(
    "name", ["CountError", "VQAAccuracy", "AnswerAccuracy", "PretrainingAccuracy", "RetrievalMetric"]
)
def test_h15_each_metric_has_a_prefix(name: str, tmp_path: Path):
    settings = dict(low=1, high=10) if name == "CountError" else {}
    metric = METRICS.build(dict(type=name, prefix="mine", collect_dir=str(tmp_path), **settings))
    assert metric.prefix == "mine"
    assert metric.collect_dir == str(tmp_path)


def test_h15_no_metric_of_ours_lacks_them():
    METRICS.import_from_location()
    ours = [each for each in METRICS.module_dict.values() if each.__module__.startswith("clipbert_mm.")]
    assert len(ours) > 5
    for metric in ours:
        assert {"prefix", "collect_dir", "collect_device"} <= set(inspect.signature(metric).parameters), metric.__name__


def test_h17_the_usual_constructor_takes_the_usual_keys(runner_config: Config):
    runner_config.optim_wrapper.constructor = "GroupedOptimWrapperConstructor"
    runner_config.optim_wrapper.paramwise_cfg = dict(norm_decay_mult=0, custom_keys=dict(backbone=dict(lr_mult=0.1)))
    with pytest.raises(
        OptionError, match=r"got custom_keys, norm_decay_mult\. .* use DefaultOptimWrapperConstructor\.$"
    ):
        build_runner(runner_config).train()
    runner_config.optim_wrapper.constructor = "DefaultOptimWrapperConstructor"
    runner_config.optim_wrapper.optimizer.weight_decay = 1e-3
    runner_config.experiment_name += "-usual"
    runner = build_runner(runner_config)
    runner.train()
    rates = {
        group["initial_lr"] if "initial_lr" in group else group["lr"] for group in runner.optim_wrapper.param_groups
    }
    assert sorted(rates) == pytest.approx([1e-4, 1e-3])


@pytest.mark.parametrize(("monitor", "rule"), [("t2v/R@1", "greater"), ("v2t/MdR", "less"), ("accuracy", "greater")])
def test_h18_early_stopping_knows_the_direction(monitor: str, rule: str):
    assert HOOKS.build(dict(type="ResumableEarlyStoppingHook", monitor=monitor)).rule == rule


def test_h23_items_are_collated_by_ours(runner_config: Config, checkpoint: Path):
    runner_config.load_from = str(checkpoint)
    runner = build_runner(runner_config)
    dataset = runner.test_dataloader.dataset
    with pytest.raises(
        OptionError, match=r"as one tensor .*, got a list, as of MMEngine's pseudo_collate.*collate_items"
    ):
        runner.model.test_step(pseudo_collate([dataset[0], dataset[1]]))


def test_h19_a_checkpoint_of_another_training_is_not_resumed(runner_config: Config, checkpoint: Path):
    runner_config.update(load_from=str(checkpoint), resume=True)
    runner_config.optim_wrapper.constructor = "GroupedOptimWrapperConstructor"
    with pytest.raises(CheckpointError, match=r"group.*without resume=True, which resumes load_from itself; --resume"):
        build_runner(runner_config).train()


def test_a_resume_of_nothing_is_said(runner_config: Config, caplog: pytest.LogCaptureFixture):
    runner_config.resume = True
    runner = build_runner(runner_config)
    runner.logger.addHandler(caplog.handler)
    with caplog.at_level(logging.WARNING):
        runner.train()
    assert any("to resume from: the training begins anew" in message for message in caplog.messages)
