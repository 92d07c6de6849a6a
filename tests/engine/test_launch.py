"""From a config to a runner: mixed precision by one option, several processes where they can work."""

import copy
import dataclasses
import importlib.util
from typing import Any

import pytest
import torch
from mmengine.config import Config

from clipbert_mm.checkpoint import InputSpec
from clipbert_mm.checkpoint.preprocessing import CAFFE, PYTORCH
from clipbert_mm.compat.optim import AmpAccumulatingOptimWrapper
from clipbert_mm.engine.launch import adapt_to_weights, build_runner, distribute, use_amp, use_amp_in_test
from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders.layer_kinds import PostNormLayer


@pytest.mark.parametrize(
    ("asked", "config", "dtype"),
    [
        ("auto", {}, "bfloat16"),
        ("bf16", {}, "bfloat16"),
        ("auto", dict(type="AmpAccumulatingOptimWrapper", dtype="bfloat16"), "bfloat16"),
        ("bf16", dict(type="AmpAccumulatingOptimWrapper", dtype="float16"), "bfloat16"),
    ],
)
def test_amp_chooses_by_the_option_the_config_and_the_machine(runner_config: Config, asked, config, dtype):
    runner_config.optim_wrapper.update(config)
    use_amp(runner_config, asked)
    assert (runner_config.optim_wrapper.type, runner_config.optim_wrapper.dtype) == (
        "AmpAccumulatingOptimWrapper",
        dtype,
    )
    assert runner_config.optim_wrapper.optimizer.lr == 1e-3


def test_amp_on_a_gpu_is_float16_unless_told_otherwise(runner_config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    use_amp(runner_config)
    assert runner_config.optim_wrapper.dtype == "float16"
    use_amp(runner_config, "bf16")
    assert runner_config.optim_wrapper.dtype == "bfloat16"


@pytest.mark.parametrize("by", ["option", "config"])
def test_amp_on_the_cpu_trains(runner_config: Config, by: str):
    if by == "option":
        use_amp(runner_config)
    else:
        runner_config.optim_wrapper.update(
            type="AmpAccumulatingOptimWrapper", constructor="GroupedOptimWrapperConstructor"
        )
    runner = build_runner(runner_config)
    seen = set()
    runner.model.encoder.register_forward_hook(lambda module, inputs, states: seen.add(states.dtype))
    runner.model.head.register_forward_hook(lambda module, inputs, logits: seen.add(logits.dtype))
    runner.model.aggregator.register_forward_hook(lambda module, inputs, logits: seen.add((logits.dtype,)))
    runner.train()
    assert isinstance(runner.optim_wrapper, AmpAccumulatingOptimWrapper)
    assert torch.bfloat16 in seen, "the model computes in it"
    assert (torch.float32,) in seen, "clips are pooled and losses taken in single precision"
    assert (torch.bfloat16,) not in seen
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert all(0 < loss < 2 for loss in losses)
    assert len(losses) == 6
    linear = runner.model.head.classifier[0].weight
    assert linear.dtype == torch.float32, "the weights stay in single precision"


def test_testing_in_mixed_precision(runner_config: Config, monkeypatch: pytest.MonkeyPatch):
    exact = build_runner(runner_config)
    weights = exact.model.state_dict()
    wanted = exact.test()
    runner_config.experiment_name += "-amp"
    use_amp_in_test(runner_config, "bf16")
    runner = build_runner(runner_config)
    runner.model.load_state_dict(weights)
    seen = set()
    plain = PostNormLayer.finish
    monkeypatch.setattr(
        PostNormLayer, "finish", lambda layer, *states: seen.add(states[1].dtype) or plain(layer, *states)
    )
    found = runner.test()
    assert seen == {torch.bfloat16}
    assert found.keys() == wanted.keys()
    assert found["t2v/MnR"] == pytest.approx(wanted["t2v/MnR"], abs=1)
    with pytest.raises(ValueError, match="in float16 needs a GPU"):
        use_amp_in_test(runner_config, "fp16")


def test_amp_keeps_its_hands_off_other_wrappers(runner_config: Config):
    runner_config.optim_wrapper.type = "ApexOptimWrapper"
    with pytest.raises(
        ValueError, match=r"--amp replaces AccumulatingOptimWrapper .*, but optim_wrapper.type of the config is Apex"
    ):
        use_amp(runner_config)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [
        ("train_cfg", "max_epochs", 0),
        ("train_cfg", "max_epochs", 1.5),
        ("train_cfg", "max_epochs", float("inf")),
        ("train_cfg", "max_iters", "ten"),
        ("train_cfg", "val_interval", 0),
        ("train_dataloader", "batch_size", 0),
        ("train_dataloader", "batch_size", 4.0),
        ("test_dataloader", "batch_size", -1),
        ("train_dataloader", "num_workers", -1),
        ("optim_wrapper", "accumulative_counts", 0),
        ("randomness", "seed", -1),
        ("randomness", "seed", 2**32),
    ],
)
def test_a_number_out_of_its_range_is_named(runner_config: Config, part: str, name: str, value: Any):
    runner_config[part][name] = value
    runner_config.param_scheduler = [dict(type="LinearLR", end=1, convert_to_iter_based=True)]  # needs an epoch
    with pytest.raises(
        OptionError, match=rf"^{part}\.{name} of the config: expected a whole number, .*, got {value!r}\.$"
    ):
        build_runner(runner_config)


def test_whole_numbers_of_any_kind_are_taken(runner_config: Config):
    runner_config.train_cfg.max_epochs = 1e1
    runner_config.randomness.seed = 2**31 - 1
    runner = build_runner(runner_config)
    assert (runner.train_loop.max_epochs, runner.seed) == (10, 2**31 - 1)


def test_a_launcher_that_did_not_start_this_process(runner_config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("SLURM_PROCID", raising=False)
    runner_config.launcher = "slurm"
    with pytest.raises(ValueError, match=r"--launcher slurm is for processes started by srun .* SLURM_PROCID"):
        build_runner(runner_config)


def test_metrics_are_not_collected_through_files(runner_config: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("clipbert_mm.compat.start_processes", lambda launcher, timeout: None)
    runner_config.update(launcher="mpi", val_evaluator=[dict(type="A"), dict(type="B", collect_device="cpu")])
    changes = distribute(runner_config)
    assert runner_config.launcher == "pytorch", "which all launchers are made to look like"
    assert [metric.collect_device for metric in runner_config.val_evaluator] == ["gpu", "cpu"]
    assert runner_config.test_evaluator.collect_device == "gpu"
    assert runner_config.model_wrapper_cfg.device_ids is None
    assert changes == [
        "launcher is pytorch, whose environment variables are set from those of mpi.",
        "model_wrapper_cfg has device_ids=None, since there is no GPU.",
        "val_evaluator: A collects results over the process group, not through files.",
        "test_evaluator: RetrievalMetric collects results over the process group, not through files.",
    ]


def test_building_a_runner_changes_nothing_else_of_a_config(runner_config: Config):
    runner_config.train_cfg = dict(by_epoch=True, max_epochs=1)
    runner_config.train_dataloader.persistent_workers = True
    before = copy.deepcopy(runner_config.to_dict())
    build_runner(runner_config).train()
    assert runner_config.to_dict() == before


def test_a_writer_that_is_not_installed(runner_config: Config, monkeypatch: pytest.MonkeyPatch):
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "wandb" else find(name))
    runner_config.visualizer.vis_backends = [dict(type="LocalVisBackend"), dict(type="WandbVisBackend")]
    with pytest.raises(OptionError, match="WandbVisBackend needs wandb, which is not installed: pip install wandb"):
        build_runner(runner_config)


def frames_of(convention: InputSpec) -> dict[str, Any]:
    """What the config of a data preprocessor says of a convention."""
    return dict(mean=list(convention.mean), std=list(convention.std), to_bgr=convention.to_bgr)


CAFFE_FRAMES, TORCH_FRAMES = frames_of(CAFFE), frames_of(PYTORCH)
INPUT = (
    "BGR minus (123.675, 116.28, 103.53) over (1, 1, 1)",
    "RGB minus (123.675, 116.28, 103.53) over (58.395, 57.12, 57.375)",
)


@pytest.mark.parametrize(
    ("frames", "backbone", "weights", "new_frames", "new_style", "said"),
    [
        (CAFFE_FRAMES, dict(style="caffe"), CAFFE, CAFFE_FRAMES, "caffe", []),
        (TORCH_FRAMES, {}, PYTORCH, TORCH_FRAMES, None, []),  # pytorch is mmpretrain's default
        (
            TORCH_FRAMES,
            {},
            CAFFE,
            CAFFE_FRAMES,
            "caffe",
            [f"the input from {INPUT[1]} to {INPUT[0]}", "the strides of the ResNet from pytorch's style to caffe's"],
        ),
        (
            CAFFE_FRAMES,
            dict(style="pytorch"),
            PYTORCH,
            TORCH_FRAMES,
            "pytorch",
            [f"the input from {INPUT[0]} to {INPUT[1]}"],
        ),
        (
            TORCH_FRAMES,
            dict(style="caffe"),
            PYTORCH,
            TORCH_FRAMES,
            "pytorch",
            ["the strides of the ResNet from caffe's style to"],
        ),
        (CAFFE_FRAMES, dict(style="caffe"), dataclasses.replace(CAFFE, style=None), CAFFE_FRAMES, "caffe", []),
    ],
)
def test_frames_and_strides_follow_the_weights(
    frames: dict,
    backbone: dict,
    weights: InputSpec,
    new_frames: dict,
    new_style: str | None,
    said: list[str],
):
    model = dict(
        data_preprocessor=dict(type="VideoTextPreprocessor", **copy.deepcopy(frames)),
        backbone=dict(type="mmpretrain.ResNet", **backbone),
    )
    changed = adapt_to_weights(model, weights)
    assert model["data_preprocessor"] == dict(type="VideoTextPreprocessor", **new_frames)
    assert model["backbone"].get("style") == new_style
    assert len(changed) == len(said)
    assert all(change.startswith(start) for change, start in zip(changed, said, strict=True))


def test_other_backbones_have_no_strides_to_follow():
    model = dict(
        data_preprocessor=dict(type="VideoTextPreprocessor", **TORCH_FRAMES), backbone=dict(type="TinyBackbone")
    )
    adapt_to_weights(model, CAFFE)
    assert model["backbone"] == dict(type="TinyBackbone")
    assert model["data_preprocessor"]["to_bgr"]
