"""A predictor is told apart by what its visual tokens depend on, and says which of its parts do not fit."""

import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from clipbert_mm.apis.predictor import Predictor, Recipe, _digest
from clipbert_mm.checkpoint import CheckpointError
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.media import media_file
from clipbert_mm.registry import MODELS

RECIPE = Recipe(
    model={},
    pipeline=[dict(type="OpenVideo", b=None), dict(type="ResizePad", size=(2, 3)), dict(type="Tokenize"),
              dict(type="PackInputs")],
    answers=None,
    written=dict(data_preprocessor=dict(std=1.0), backbone="x", projection=2, temporal_fusion={}, encoder="y", head=3),
)  # fmt: skip


def test_identities_are_those_of_indexes_that_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    # By sha256sum of the JSON of the transforms of frames and of the visual parts, and of the weights.
    monkeypatch.chdir(tmp_path)
    assert _digest(RECIPE, "user/name") == "831c9fe77d62262f", "a name of Hugging Face"
    Path("a.safetensors").write_bytes(b"weights")
    assert _digest(RECIPE, "a.safetensors") == "ed1f3932a62a4228"
    with zipfile.ZipFile("a.pth", "w") as archive:  # name, CRC-32 and size of each tensor, and nothing else
        for name, content in (("a/data.pkl", "0"), ("a/data/0", "abc"), ("a/version", "3")):
            archive.writestr(name, content)
    assert _digest(RECIPE, "a.pth") == "32eeafa4534f5cc6"


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
    assert (_digest(replace(RECIPE, **change), "a") == _digest(RECIPE, "a")) == same


@MODELS.register_module(force=True)
class NoClipBert(nn.Module):
    """A model of another kind."""

    def __init__(self, *, encoder: dict) -> None:
        super().__init__()
        self.encoder = nn.Identity()


@pytest.fixture
def edit(checkpoint: Path, tmp_path: Path) -> Callable[..., str]:
    """Write a copy of a checkpoint whose metadata is changed."""

    def write(change: Callable[[dict[str, Any]], Any]) -> str:
        content = load_torch(checkpoint, mmap=False)
        change(content["contents"])
        torch.save(content, tmp_path / "edited.pth")
        return str(tmp_path / "edited.pth")

    return write


def steps(contents: dict[str, Any]) -> list[dict[str, Any]]:
    """The transforms of a checkpoint's metadata."""
    return contents["pipelines"]["test"]


def test_parts_that_do_not_fit_are_named(edit: Callable[..., str], world: Path):
    Predictor(edit(lambda contents: steps(contents)[4].update(max_length=3)))
    for length, said in ((2, "2"), (41, "41"), (True, "True"), (4.5, "4.5")):
        with pytest.raises(
            CheckpointError, match=rf"max_length of its Tokenize is {said}, expected 3 to 40 as its model"
        ):
            Predictor(edit(lambda contents, length=length: steps(contents)[4].update(max_length=length)))
    with pytest.raises(CheckpointError, match=r"its model, NoClipBert, is no ClipBert: it lacks data_preprocessor, "):
        Predictor(edit(lambda contents: contents.update(model=dict(type="NoClipBert", encoder={}))))
    for removed in (3, 4):
        with pytest.raises(
            CheckpointError, match=r"Expected a test pipeline of \.\.\., ResizePad, Tokenize, PackInputs, got"
        ):
            Predictor(edit(lambda contents, removed=removed: steps(contents).pop(removed)))
    with pytest.raises(
        CheckpointError, match=r"Expected a test pipeline of \.\.\., ResizePad, Tokenize, PackInputs, got"
    ):
        Predictor(edit(lambda contents: steps(contents).insert(3, steps(contents).pop(4))))


def test_a_checkpoint_of_questions_has_as_many_answers_as_its_head(
    write_checkpoint: Callable[..., Path], tmp_path: Path
):
    from clipbert_mm.datasets.shapes.questions import ANSWERS

    head = dict(type="OpenEndedHead", in_channels=16, num_answers=len(ANSWERS), hidden_channels=None)
    trained = write_checkpoint(head, dict(type="OpenEndedDataset", ann_file="qa", answer_file="answers.json"))
    assert Predictor(trained).answers == list(ANSWERS)
    content = load_torch(trained, mmap=False)
    for answers in (None, [*ANSWERS, "more"], list(ANSWERS)[:-1]):
        content["contents"]["answers"] = answers
        torch.save(content, tmp_path / "a.pth")
        with pytest.raises(
            CheckpointError, match=rf"it has {len(answers or ())} answers, expected {len(ANSWERS)} as the head"
        ):
            Predictor(tmp_path / "a.pth")


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
