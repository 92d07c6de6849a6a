"""From a config to a runner: mixed precision by one option, several processes where they can work."""

import copy
import dataclasses
from typing import Any

import pytest
import torch
from mmengine.config import Config

from clipbert_mm.checkpoint import Convention
from clipbert_mm.checkpoint.convention import CAFFE, PYTORCH
from clipbert_mm.compat.optim import CpuAmpOptimWrapper
from clipbert_mm.engine.launch import build_runner, follow, use_amp


@pytest.mark.parametrize(("gpu", "wrapper"), [(False, "CpuAmpOptimWrapper"), (True, "AmpOptimWrapper")])
def test_amp_chooses_by_the_machine(runner_config: Config, monkeypatch: pytest.MonkeyPatch, gpu: bool, wrapper: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    use_amp(runner_config)
    assert runner_config.optim_wrapper.type == wrapper
    assert runner_config.optim_wrapper.get("loss_scale") == ("dynamic" if gpu else None)
    assert runner_config.optim_wrapper.optimizer.lr == 1e-3


def test_amp_on_the_cpu_trains(runner_config: Config):
    use_amp(runner_config)
    runner = build_runner(runner_config)
    seen = set()
    runner.model.encoder.register_forward_hook(lambda module, inputs, states: seen.add(states.dtype))
    runner.train()
    assert isinstance(runner.optim_wrapper, CpuAmpOptimWrapper)
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert all(0 < loss < 2 for loss in losses)
    assert len(losses) == 6
    linear = runner.model.head.classifier[0].weight
    assert linear.dtype == torch.float32, "the weights stay in single precision"


def test_amp_keeps_its_hands_off_other_wrappers(runner_config: Config):
    runner_config.optim_wrapper.type = "ApexOptimWrapper"
    with pytest.raises(ValueError, match="--amp replaces OptimWrapper, but the config has ApexOptimWrapper"):
        use_amp(runner_config)


def test_only_one_launcher_works_without_gpus(runner_config: Config):
    runner_config.launcher = "slurm"
    with pytest.raises(ValueError, match=r"Without a GPU only --launcher pytorch works, got slurm\."):
        build_runner(runner_config)


def frames_of(convention: Convention) -> dict[str, Any]:
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
            [f"input from {INPUT[1]} to {INPUT[0]}", "strides of the ResNet from pytorch's style to caffe's"],
        ),
        (
            CAFFE_FRAMES,
            dict(style="pytorch"),
            PYTORCH,
            TORCH_FRAMES,
            "pytorch",
            [f"input from {INPUT[0]} to {INPUT[1]}"],
        ),
        (
            TORCH_FRAMES,
            dict(style="caffe"),
            PYTORCH,
            TORCH_FRAMES,
            "pytorch",
            ["strides of the ResNet from caffe's style to"],
        ),
        (CAFFE_FRAMES, dict(style="caffe"), dataclasses.replace(CAFFE, style=None), CAFFE_FRAMES, "caffe", []),
    ],
)
def test_frames_and_strides_follow_the_weights(
    frames: dict,
    backbone: dict,
    weights: Convention,
    new_frames: dict,
    new_style: str | None,
    said: list[str],
):
    model = dict(
        data_preprocessor=dict(type="VideoTextPreprocessor", **copy.deepcopy(frames)),
        backbone=dict(type="mmpretrain.ResNet", **backbone),
    )
    changed = follow(model, weights)
    assert model["data_preprocessor"] == dict(type="VideoTextPreprocessor", **new_frames)
    assert model["backbone"].get("style") == new_style
    assert len(changed) == len(said)
    assert all(change.startswith(start) for change, start in zip(changed, said, strict=True))


def test_other_backbones_have_no_strides_to_follow():
    model = dict(
        data_preprocessor=dict(type="VideoTextPreprocessor", **TORCH_FRAMES), backbone=dict(type="TinyBackbone")
    )
    follow(model, CAFFE)
    assert model["backbone"] == dict(type="TinyBackbone")
    assert model["data_preprocessor"]["to_bgr"]
