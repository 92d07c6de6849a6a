"""Folders of Hugging Face that are written: the library's own model reads the same weights, and so does ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from public_models import write_blip, write_clip, write_siglip, write_vilt
from transformers import AutoTokenizer, BlipForQuestionAnswering, ViltForImageAndTextRetrieval, ViltForQuestionAnswering

from clipbert_mm.apis.opening import OpenedModel, open_model
from clipbert_mm.checkpoint.exporting import export_model, write_settings
from clipbert_mm.checkpoint.families import read_family
from clipbert_mm.errors import CheckpointError
from clipbert_mm.registry import MODELS

QUESTIONS = dict(
    type="AnswerEncoder",
    questions=dict(
        type="CrossEncoder",
        vocab_size=20,
        hidden_size=32,
        num_layers=1,
        num_heads=4,
        visual_size=32,
        vector_size=None,
        joint_token=9,
    ),
    start_token=8,
)
ANSWERS = {0: "yes", 1: "no", 2: "two", 3: "red"}
WRITERS: dict[str, Callable[[Path], Any]] = {
    "BLIP": write_blip,
    "BLIP's questions": lambda folder: write_blip(folder, BlipForQuestionAnswering, visual_size=32),
    "CLIP": write_clip,
    "SigLIP": write_siglip,
    "ViLT": lambda folder: write_vilt(folder, ViltForImageAndTextRetrieval),
    "ViLT's questions": lambda folder: write_vilt(folder, ViltForQuestionAnswering, id2label=ANSWERS),
}


def export(opened: OpenedModel, folder: Path) -> None:
    tokenizer = opened.tokenize.tokenizer
    export_model(opened.model, opened.recipe.pipeline, tokenizer, folder, opened.recipe.answers)


@pytest.mark.parametrize("name", WRITERS)
def test_what_is_written_is_what_was_read(name: str, tmp_path: Path):
    library = WRITERS[name](tmp_path / "theirs")
    opened = open_model(str(tmp_path / "theirs"), str(tmp_path))
    settings = write_settings(opened.model, opened.recipe.answers)
    model = {name: part for name, part in opened.recipe.model.items() if name not in ("type", "data_preprocessor")}
    assert read_family(settings, "ours").model == model
    export(opened, tmp_path / "ours")
    again = open_model(str(tmp_path / "ours"), str(tmp_path))
    for step, other in zip(opened.recipe.pipeline, again.recipe.pipeline, strict=True):
        assert step | dict(tokenizer=None) == other | dict(tokenizer=None)
    assert again.recipe.answers == opened.recipe.answers
    # The library's own class, from the folder alone.
    loaded = getattr(transformers, type(library).__name__).from_pretrained(tmp_path / "ours").eval()
    weights = library.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    for key, value in loaded.state_dict().items():
        assert torch.equal(value, weights[key]), key
    text = "two people run"
    ids = [AutoTokenizer.from_pretrained(tmp_path / side)(text).input_ids for side in ("theirs", "ours")]
    assert ids[0] == ids[1]
    size = 64 if name.startswith("ViLT") else 32
    inputs = dict(input_ids=torch.tensor(ids[:1]), pixel_values=torch.randn(1, 3, size, size))
    inputs |= dict(labels=inputs["input_ids"]) if name == "BLIP's questions" else {}  # whose loss is compared
    with torch.no_grad():
        expected, found = (each(**inputs) for each in (library, loaded))
    torch.testing.assert_close(*(next(iter(output.values())) for output in (expected, found)))


def test_what_cannot_be_written_is_refused_and_leaves_nothing(tmp_path: Path, model_config: dict[str, Any]):
    write_blip(tmp_path / "theirs")
    opened = open_model(str(tmp_path / "theirs"), str(tmp_path))
    with pytest.raises(CheckpointError, match=r"theirs exists\. Move it away"):
        export(opened, tmp_path / "theirs")
    with pytest.raises(
        CheckpointError, match=r"with the encoder CrossEncoder, .* This one has the encoder JointEncoder"
    ):
        write_settings(MODELS.build(model_config))
    pipeline = [dict(type="ResizePad", size=32)]
    with pytest.raises(CheckpointError, match=r"No image processor of Hugging Face does to frames .*'ResizePad'"):
        export_model(opened.model, pipeline, opened.tokenize.tokenizer, tmp_path / "ours")
    head = dict(type="MatchingHead", in_channels=32, hidden_channels=64)
    opened.model.head = MODELS.build(head)
    with pytest.raises(
        CheckpointError, match=r"no BlipForImageTextRetrieval: head\.classifier\.0\.bias has shape none"
    ):
        export(opened, tmp_path / "ours")
    opened.model.encoder = MODELS.build(QUESTIONS | dict(start_token=7))
    with pytest.raises(
        CheckpointError, match=r"joint_token 9 of questions, and start_token 7\. Set joint_token to start"
    ):
        export(opened, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_a_blip_without_vectors_is_refused(tmp_path: Path):
    write_blip(tmp_path / "theirs")
    opened = open_model(str(tmp_path / "theirs"), str(tmp_path))
    opened.model.encoder.joint_token = None
    with pytest.raises(CheckpointError, match=r"this CrossEncoder does not\. Set vector_size and joint_token"):
        export(opened, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()
