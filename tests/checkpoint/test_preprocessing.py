"""How weights want their frames: what agrees, what does not, and what a model has."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from clipbert_mm.checkpoint import InputSpec
from clipbert_mm.checkpoint.preprocessing import CAFFE, PYTORCH
from clipbert_mm.registry import MODELS


@pytest.mark.parametrize(
    ("change", "agrees"),
    [
        ({}, True),
        (dict(style=None), True),  # a backbone without bottlenecks, or a text model
        (dict(style="caffe"), False),
        (dict(to_bgr=True), False),
        (dict(mean=(123.6750001, 116.28, 103.53)), True),  # as float32 keeps it
        (dict(mean=(124.0, 116.28, 103.53)), False),
        (dict(std=(57.375, 57.12, 58.395)), False),  # the right numbers in BGR order
        (dict(std=(1.0, 1.0, 1.0)), False),
    ],
)
def test_what_agrees(change: dict, agrees: bool):
    other = dataclasses.replace(PYTORCH, **change)
    assert PYTORCH.agrees(other) == other.agrees(PYTORCH) == agrees


def test_it_outlives_a_checkpoint(tmp_path: Path):
    for convention in (CAFFE, PYTORCH, dataclasses.replace(CAFFE, style=None)):
        torch.save(convention.to_dict(), tmp_path / "a.pth")
        assert InputSpec.from_dict(torch.load(tmp_path / "a.pth", weights_only=True)) == convention


BOTTLENECKS = dict(type="mmpretrain.ResNet", depth=50, stem_channels=4, base_channels=4)


@pytest.mark.parametrize(
    ("backbone", "style"),
    [
        (BOTTLENECKS, "pytorch"),
        (BOTTLENECKS | dict(style="caffe"), "caffe"),
        (BOTTLENECKS | dict(depth=18, style="caffe"), None),  # it has no 1x1 convolution to have a stride
        (dict(type="TinyBackbone"), None),
    ],
)
def test_a_model_s_own_is_read_off(model_config: dict[str, Any], backbone: dict, style: str | None):
    model_config["backbone"] = backbone
    model_config["data_preprocessor"].update(mean=CAFFE.mean, std=CAFFE.std, to_bgr=True)
    found = InputSpec.of_model(MODELS.build(model_config))
    assert found.style == style
    assert found.agrees(CAFFE) == (style != "pytorch")


def test_it_is_said_in_words():
    assert str(CAFFE) == "BGR minus (123.675, 116.28, 103.53) over (1, 1, 1), caffe-style strides"
    plain = dataclasses.replace(PYTORCH, style=None)
    assert str(plain) == "RGB minus (123.675, 116.28, 103.53) over (58.395, 57.12, 57.375)"
