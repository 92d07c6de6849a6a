"""A predictor is told apart by what its visual tokens depend on, and says which of its parts do not fit."""

import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from mmengine.config import Config
from torch import nn

from clipbert_mm.apis.opening import Recipe, _check_agreement, _digest, _split
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.errors import OptionError
from clipbert_mm.media import media_file
from clipbert_mm.registry import MODELS
from clipbert_mm.trusted import check_pipeline

RECIPE = Recipe(
    model={},
    pipeline=[dict(type="OpenVideo", b=None), dict(type="ResizePad", size=(2, 3)), dict(type="Tokenize"),
              dict(type="PackInputs")],
    answers=None,
    written=dict(data_preprocessor=dict(std=1.0), backbone="x", projection=2, temporal_fusion={}, encoder="y", head=3),
    config=Config(),
)  # fmt: skip


def test_identities_are_those_of_indexes_that_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # By sha256sum of the JSON of the transforms of frames and of the visual parts, and of the weights.
    monkeypatch.chdir(tmp_path)
    assert _digest(RECIPE, ["user/name"]) == "831c9fe77d62262f", "a name of Hugging Face"
    Path("a.safetensors").write_bytes(b"weights")
    assert _digest(RECIPE, ["a.safetensors"]) == "ed1f3932a62a4228"
    with zipfile.ZipFile("a.pth", "w") as archive:  # name, CRC-32 and size of each tensor, and nothing else
        for name, content in (("a/data.pkl", "0"), ("a/data/0", "abc"), ("a/version", "3")):
            archive.writestr(name, content)
    assert _digest(RECIPE, ["a.pth"]) == "32eeafa4534f5cc6"


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (dict(pipeline=RECIPE.pipeline[:2]), True),
        (dict(pipeline=RECIPE.pipeline[1:]), False),
        (dict(written=RECIPE.written | dict(encoder="z", head=4, aggregator=5)), True),
        *((dict(written=RECIPE.written | {part: "z"}), False) for part in list(RECIPE.written)[:4]),
        (dict(model={"a": 1}, answers=["a"]), True),
    ],
)
def test_an_identity_is_of_what_visual_tokens_depend_on(change: dict[str, Any], same: bool):
    assert (_digest(replace(RECIPE, **change), ["a"]) == _digest(RECIPE, ["a"])) == same


@pytest.mark.parametrize(
    ("length", "fits"), [(3, True), (40, True), (2, False), (41, False), (True, False), (4.5, False)]
)
def test_texts_are_as_long_as_the_model_takes(model_config: dict[str, Any], length: Any, fits: bool):
    model, tokenize = MODELS.build(model_config), SimpleNamespace(max_length=length)
    if fits:
        _check_agreement(model, tokenize, None)
    else:
        with pytest.raises(
            CheckpointError, match=rf"max_length of its Tokenize is {length}, expected 3 to 40 as its model"
        ):
            _check_agreement(model, tokenize, None)


def test_a_model_has_the_parts_of_a_clipbert(model_config: dict[str, Any]):
    parts = ("data_preprocessor", "backbone", "projection", "temporal_fusion", "encoder", "head", "aggregator")
    with pytest.raises(CheckpointError, match=rf"its model, Linear, is no ClipBert: it lacks {', '.join(parts)}\."):
        _check_agreement(nn.Linear(1, 1), SimpleNamespace(max_length=3), None)
    for part in parts:
        model = MODELS.build(model_config)
        delattr(model, part)
        with pytest.raises(CheckpointError, match=rf"its model, ClipBert, is no ClipBert: it lacks {part}\."):
            _check_agreement(model, SimpleNamespace(max_length=3), None)


def test_a_model_of_questions_has_as_many_answers_as_its_head(model_config: dict[str, Any]):
    model_config["head"] = dict(type="OpenEndedHead", in_channels=16, num_answers=3, hidden_channels=None)
    model, tokenize = MODELS.build(model_config), SimpleNamespace(max_length=3)
    _check_agreement(model, tokenize, ["a", "b", "c"])
    for answers in (None, ["a", "b"], ["a", "b", "c", "d"]):
        with pytest.raises(CheckpointError, match=rf"it has {len(answers or ())} answers, expected 3 as the head"):
            _check_agreement(model, tokenize, answers)


@pytest.mark.parametrize(
    "types",
    [["OpenVideo", "ResizePad"], ["OpenVideo", "Tokenize"], ["OpenVideo", "Tokenize", "ResizePad", "PackInputs"]],
)
def test_transforms_of_frames_come_before_that_of_texts(types: list[str]):
    with pytest.raises(OptionError, match=rf"\.\.\., ResizePad, Tokenize, PackInputs, got {', '.join(types)}\."):
        _split([dict(type=each) for each in types])


def test_a_model_in_use_is_frozen_and_reads_here_or_in_a_process_of_its_own(
    checkpoint: Path, world: Path, monkeypatch: pytest.MonkeyPatch
):
    predictor, path = Predictor(checkpoint), str(world / "videos" / "test_00000.mp4")
    media = predictor.read(path)
    assert media.frames.shape == (3, 2, 32, 32, 3)
    assert not any(module.training for module in predictor.model.modules())
    assert not any(parameter.requires_grad for parameter in predictor.model.parameters())
    monkeypatch.setattr(media_file, "read_media_isolated", lambda *asked: asked)
    assert predictor.read(path, timeout=60) == (predictor.media_steps, path, 60)


@pytest.mark.parametrize(("options", "shape"), [(dict(size=(32, 32)), (32, 32)), (dict(shorter=40, crop=32), (32, 32))])
def test_any_transform_that_resizes_says_how_large_frames_are(
    checkpoint: Path, world: Path, tmp_path: Path, options: dict, shape: tuple[int, int]
):
    saved = load_torch(checkpoint, mmap=False)
    steps = saved["contents"]["pipelines"]["test"]
    saved["contents"]["pipelines"]["test"] = [
        dict(type="ResizeTo", **options) if step["type"] == "ResizePad" else step for step in steps
    ]
    torch.save(saved, tmp_path / "other.pth")
    predictor = Predictor(tmp_path / "other.pth")  # which runs a black clip
    media = predictor.read(str(world / "videos" / "test_00000.mp4"))
    assert (media.frames.shape[2:4], media.content_shape) == (shape, shape)


@pytest.mark.parametrize(
    "options", [dict(size=(1, 60_000)), dict(shorter=60_000, crop=1), dict(shorter=1, longest=60_000)]
)
def test_a_file_that_asks_for_huge_frames_is_refused(options: dict):
    with pytest.raises(CheckpointError, match=r"a\.pth is refused: it asks for 10,800,000,000 bytes of frames"):
        check_pipeline([dict(type="ResizeTo", **options)], "a.pth")
