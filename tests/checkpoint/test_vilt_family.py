"""ViLT's classes as save_pretrained writes them: the config that follows, and logits equal to the library's own."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import Tensor
from transformers import (
    ViltConfig,
    ViltForImageAndTextRetrieval,
    ViltForImagesAndTextClassification,
    ViltForMaskedLM,
    ViltForQuestionAnswering,
)

from clipbert_mm.checkpoint import CheckpointError, read_source
from clipbert_mm.checkpoint.families import Family, read_family
from clipbert_mm.registry import MODELS
from clipbert_mm.trusted import check_model

SIZES = dict(
    vocab_size=60,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=48,
    max_position_embeddings=12,
    image_size=96,
    patch_size=32,
    initializer_range=0.2,
)
ANSWERS = {i: f"answer {i}" for i in range(11)}
KINDS = [ViltForImageAndTextRetrieval, ViltForQuestionAnswering, ViltForMaskedLM]


def make(kind: Any, **settings: Any) -> Any:
    torch.manual_seed(0)
    config = ViltConfig(**SIZES | settings, id2label=ANSWERS, label2id={name: i for i, name in ANSWERS.items()})
    model = kind(config).eval()
    for name, value in model.named_parameters():  # which the library leaves at zero, or at one
        if name.endswith(("bias", "cls_token", "position_embeddings")) or "norm" in name.lower():
            value.data += 0.2 * torch.randn_like(value)
    return model


def read(folder: Path) -> Family:
    return read_family(json.loads((folder / "config.json").read_text()), str(folder))


def build(folder: Path) -> tuple[Any, Family]:
    """A ClipBert with the weights of a folder; of masked words, with a new head for retrieval."""
    family = read(folder)
    frames = dict(type="VideoTextPreprocessor", mean=[127.5] * 3, std=[127.5] * 3, vocab_size=family.vocab_size)
    config = check_model(dict(type="ClipBert", data_preprocessor=frames, **family.model), "a test")
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        model = MODELS.build(config)
    found = model.load_state_dict(read_source(str(folder)).tensors, strict=False)
    assert found.unexpected_keys == []
    untrained = {"head.classifier.weight", "head.classifier.bias"} if model.mlm_head is not None else set()
    assert set(found.missing_keys) == untrained
    return model.eval(), family


def batch_of(shape: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    """One frame, and three texts of two lengths with their mask."""
    generator = torch.Generator().manual_seed(sum(shape))
    ids, mask = torch.randint(5, 60, (3, 9), generator=generator), torch.ones(3, 9, dtype=torch.long)
    mask[1, 5:] = 0
    return torch.randn(1, 3, *shape, generator=generator), ids * mask, mask


@torch.no_grad()
def check_logits(library: Any, model: Any, family: Family) -> None:
    for shape in [(96, 96), (64, 160), (128, 32)]:
        image, ids, mask = batch_of(shape)
        given = dict(pixel_values=image.expand(3, -1, -1, -1), pixel_mask=torch.ones(3, *shape))
        expected = library(input_ids=ids, attention_mask=mask, **given).logits
        assert expected.std() > 0.02
        tokens, videos = model.encode_video(image[:, None, None]), torch.zeros(3, dtype=torch.long)
        if model.mlm_head is None:
            found = model.score(tokens, ids, mask, videos)[:, 0]
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
            again = family.library_logits(library, ids[:1], image)
            torch.testing.assert_close(found[:1, None], again, rtol=1e-4, atol=1e-4)
            continue
        plain = model.fuse(tokens, ids, mask, videos)[:, 0]
        packed = model.pair_encoder().text_states(ids, mask, tokens, videos)[:, 0]
        for states in (plain, packed):
            found = model.mlm_head(states, model.encoder.word_embeddings)
            torch.testing.assert_close(found[mask > 0], expected[mask > 0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("safetensors", [True, False])
def test_a_folder_gives_the_library_s_logits(tmp_path: Path, kind: Any, safetensors: bool) -> None:
    library = make(kind)
    library.save_pretrained(tmp_path)
    if not safetensors:
        (tmp_path / "model.safetensors").unlink()
        ids = {"vilt.embeddings.text_embeddings.position_ids": torch.arange(12)[None]}  # as in old files
        torch.save(library.state_dict() | ids, tmp_path / "pytorch_model.bin")
    model, family = build(tmp_path)
    assert read_source(str(tmp_path)).title == "transformers' ViLT"
    assert family.answers == (list(ANSWERS.values()) if kind is ViltForQuestionAnswering else None)
    assert model.head.score_kind == ("log-odds" if kind is ViltForQuestionAnswering else "rank")
    check_logits(library, model, family)
    again = family.library_names(model.state_dict())
    tied = {"mlm_score.decoder.weight", "mlm_score.bias"}
    assert {name for name in library.state_dict() if name not in again} <= tied


def test_a_decoder_of_masked_words_may_have_been_trained_on_its_own(tmp_path: Path) -> None:
    library = make(ViltForMaskedLM)
    library.save_pretrained(tmp_path)
    tensors = {name: value.clone() for name, value in library.state_dict().items()}
    tensors["mlm_score.decoder.weight"] += 0.1 * torch.randn(60, 32)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")
    settings = json.loads((tmp_path / "config.json").read_text()) | dict(tie_word_embeddings=False)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    model, family = build(tmp_path)
    library = ViltForMaskedLM.from_pretrained(tmp_path).eval()
    assert not torch.equal(library.mlm_score.decoder.weight, library.vilt.get_input_embeddings().weight)
    check_logits(library, model, family)


def test_more_types_and_no_biases(tmp_path: Path) -> None:
    library = make(ViltForImageAndTextRetrieval, qkv_bias=False, modality_type_vocab_size=3, type_vocab_size=1)
    library.save_pretrained(tmp_path)
    check_logits(library, *build(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(hidden_size="32"), "expected a whole number from 1 to 1,048,576 as its hidden_size, got '32'"),
        (dict(hidden_size=30), "expected a divisor of its hidden_size 30 as its num_attention_heads, got 4"),
        (dict(patch_size=128), "expected at most its image_size 96 as its patch_size, got 128"),
        (dict(num_channels=1), "expected 3, red, green and blue, as its num_channels, got 1"),
        (dict(modality_type_vocab_size=1), "expected 2 or more as its modality_type_vocab_size, got 1"),
        (dict(max_image_length=100), "expected -1, which reads all patches, as its max_image_length, got 100"),
        (dict(qkv_bias=1), "expected true or false as its qkv_bias, got 1"),
        (dict(id2label=["yes"]), "expected a JSON object of names by number as its id2label, got ['yes']"),
        (dict(id2label={"0": "no", "2": "yes"}), "expected a name as its id2label.1, got None"),
        (dict(image_size=[96, 96]), "as its image_size, got [96, 96]"),
    ],
)
def test_wrong_settings_are_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    make(ViltForQuestionAnswering).config.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text()) | dict(architectures=["ViltForQuestionAnswering"])
    with pytest.raises(CheckpointError, match=re.escape(message)):
        read_family(settings | changes, str(tmp_path))


def test_a_model_of_two_images_is_refused(tmp_path: Path) -> None:
    make(ViltForImagesAndTextClassification, num_images=2, modality_type_vocab_size=3).save_pretrained(tmp_path)
    with pytest.raises(
        CheckpointError, match=r"it names the class 'ViltForImagesAndTextClassification'\. Expected a model"
    ):
        read(tmp_path)
