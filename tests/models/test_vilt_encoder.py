"""ViLT's parts against the library's own models: frames of several shapes, texts with padding, pairs in any grouping."""

from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import Tensor
from transformers import ViltConfig, ViltForImageAndTextRetrieval

from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders.pair_encoder import PairEncoder
from clipbert_mm.registry import MODELS

SIZES = dict(
    vocab_size=100,
    hidden_size=32,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=20,
    image_size=384,
    patch_size=32,
    initializer_range=0.2,
)
SHAPES = [(384, 384), (96, 160), (32, 320), (352, 64)]
RENAMED = {
    "vilt.embeddings.patch_embeddings.": "backbone.",
    "vilt.embeddings.text_embeddings.": "encoder.text_embedding.",
    "vilt.embeddings.token_type_embeddings.": "encoder.type_embedding.",
    "vilt.embeddings.cls_token": "encoder.visual_embedding.class_token",
    "vilt.embeddings.position_embeddings": "encoder.visual_embedding.positions",
    "vilt.encoder.": "encoder.transformer.",
    "vilt.layernorm.": "encoder.norm.",
    "vilt.pooler.": "encoder.pooler.",
    "rank_output.": "head.classifier.",
}


@pytest.fixture(scope="module")
def library() -> Any:
    torch.manual_seed(0)
    model = ViltForImageAndTextRetrieval(ViltConfig(**SIZES)).eval()
    for name, value in model.named_parameters():  # which the library leaves at zero, or at one
        if name.endswith(("bias", "cls_token", "position_embeddings")) or "norm" in name.lower():
            value.data += 0.2 * torch.randn_like(value)
    return model


def build(library: Any, **settings: Any) -> Any:
    config = dict(
        type="ClipBert",
        data_preprocessor=dict(type="VideoTextPreprocessor", mean=[127.5] * 3, std=[127.5] * 3, vocab_size=100),
        backbone=dict(type="ViltPatches", patch_size=32, hidden_size=32),
        temporal_fusion=dict(type="MeanFusion"),
        encoder=dict(
            type="ViltEncoder",
            vocab_size=100,
            hidden_size=32,
            num_layers=3,
            num_heads=4,
            intermediate_size=64,
            max_text_length=20,
            grid_size=12,
        ),
        head=dict(type="MarginRankingHead", in_channels=32, hidden_channels=None, dropout=0.0),
        aggregator=dict(type="MeanAggregator"),
    )
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        model = MODELS.build(config | settings)
    tensors = {}
    for name, tensor in library.state_dict().items():
        prefix = next(prefix for prefix in RENAMED if name.startswith(prefix))
        tensors[RENAMED[prefix] + name.removeprefix(prefix)] = tensor
    model.load_state_dict(tensors)
    return model.eval()


@pytest.fixture(scope="module")
def texts() -> tuple[Tensor, Tensor]:
    """Four texts of three lengths, and their mask."""
    ids = torch.randint(5, 100, (4, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    mask[1, 5:] = mask[3, 7:] = 0
    return ids * mask, mask


def frames_of(shape: tuple[int, int], videos: int = 2) -> Tensor:
    """Frames of videos of two clips, (B, 2, 1, 3, H, W)."""
    return torch.randn(videos, 2, 1, 3, *shape, generator=torch.Generator().manual_seed(sum(shape)))


@torch.no_grad()
def library_scores(library: Any, frames: Tensor, ids: Tensor, mask: Tensor, videos: Tensor) -> Tensor:
    """Logit of each text with each clip, (M, K, 1), one image at a time by the library's own forward, with padding."""
    rows = []
    for i, video in enumerate(videos):
        for image in frames[video]:
            given = dict(input_ids=ids[i : i + 1], attention_mask=mask[i : i + 1], pixel_values=image)
            rows.append(library(**given, pixel_mask=torch.ones(1, *image.shape[2:])).logits)
    return torch.cat(rows).unflatten(0, (len(ids), -1))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_clip_is_scored_as_by_the_library(library: Any, texts: tuple[Tensor, ...], shape: tuple[int, int]) -> None:
    frames, videos, model = frames_of(shape), torch.tensor([0, 0, 1, 1]), build(library)
    expected = library_scores(library, frames, *texts, videos)
    assert expected.std() > 0.1
    tokens = model.encode_video(frames)
    assert tokens.shape == (2, 2, 1 + shape[0] * shape[1] // 32**2, 32)
    with torch.no_grad():
        torch.testing.assert_close(model.score(tokens, *texts, videos), expected, rtol=1e-4, atol=1e-4)
    # With gradients the encoder's plain forward runs, with padding.
    torch.testing.assert_close(model.score(tokens, *texts, videos).detach(), expected, rtol=1e-4, atol=1e-4)


def padded_tokens(model: Any) -> tuple[Tensor, list[Tensor]]:
    """Visual tokens of four videos of different shapes, in one batch and each alone."""
    alone = [model.encode_video(frames_of(shape, videos=1))[0] for shape in SHAPES]
    most = max(each.shape[1] for each in alone)
    return torch.stack([torch.nn.functional.pad(each, (0, 0, 0, most - each.shape[1])) for each in alone]), alone


@torch.no_grad()
def test_any_pairs_are_scored_as_one_by_one(library: Any, texts: tuple[Tensor, ...]) -> None:
    """Texts of several lengths and videos of several shapes, in passes of any size, padded or packed."""
    (ids, mask), model = texts, build(library)
    tokens, alone = padded_tokens(model)
    text_index, video_index = torch.tensor([3, 0, 0, 1, 2, 2, 1]), torch.tensor([1, 0, 3, 1, 2, 1, 0])
    expected = torch.cat(
        [
            library_scores(
                library, frames_of(SHAPES[video], videos=1), ids[i : i + 1], mask[i : i + 1], torch.tensor([0])
            )
            for i, video in zip(text_index.tolist(), video_index.tolist(), strict=True)
        ]
    )
    for tokens_per_pass in (1, 60, 10_000):
        pairs = model.pair_encoder(tokens_per_pass=tokens_per_pass)
        assert pairs.shares_layers
        encoded = pairs.encode_texts([text[: int(count)] for text, count in zip(ids, mask.sum(dim=1), strict=True)])
        scores = model.score_pairs(pairs, encoded, tokens, text_index, video_index)
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-4)
    plain = model.head(model.encoder.pool(model.fuse(tokens, ids[text_index], mask[text_index], video_index)))
    torch.testing.assert_close(plain, expected, rtol=1e-4, atol=1e-4)
    half = model.pair_encoder(precision="bf16")
    close = model.score_pairs(half, half.encode_texts(list(ids[:1])), tokens, torch.tensor([0]), torch.tensor([0]))
    torch.testing.assert_close(close, expected[1:2], rtol=0.05, atol=0.1)
    # Padding between the tokens of two clips, as where they are joined.
    joined = torch.cat([tokens[1], tokens[2]], dim=1)[:1, None]
    whole = torch.cat([alone[1], alone[2]], dim=1)[:1, None]
    scores = [model.score(each, ids[:1], mask[:1], torch.tensor([0])) for each in (joined, whole)]
    torch.testing.assert_close(*scores, rtol=1e-5, atol=1e-5)


def test_padding_of_frames_changes_nothing(library: Any, texts: tuple[Tensor, ...]) -> None:
    """Frames of several shapes in one batch, padded to a square, as by the library's own pixel mask."""
    model, size = build(library), max(map(max, SHAPES))
    alone = [frames_of(shape, videos=1) for shape in SHAPES]
    padded = torch.cat(
        [torch.nn.functional.pad(each, (0, size - each.shape[-1], 0, size - each.shape[-2])) for each in alone]
    )
    videos = torch.tensor([0, 1, 2, 3])
    expected = torch.cat(
        [
            library_scores(library, frames, texts[0][i : i + 1], texts[1][i : i + 1], torch.tensor([0]))
            for i, frames in enumerate(alone)
        ]
    )
    tokens = model.encode_video(padded)
    assert tokens.shape[2] == 145
    assert [int(each.any(dim=1).sum()) for each in tokens[:, 0]] == [145, 16, 11, 23]
    torch.testing.assert_close(model.score(tokens, *texts, videos), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(model.score(tokens, *texts, videos), expected, rtol=1e-4, atol=1e-4)
    with torch.no_grad():  # the library's own padding
        frames, shape = padded[1, 0], SHAPES[1]
        mask = torch.zeros(1, size, size)
        mask[:, : shape[0], : shape[1]] = 1
        given = dict(input_ids=texts[0][1:2], attention_mask=texts[1][1:2], pixel_values=frames, pixel_mask=mask)
        torch.testing.assert_close(library(**given).logits[0], expected[1, 0], rtol=1e-4, atol=1e-4)


def test_packed_training_has_the_gradients_of_the_plain_forward(library: Any, texts: tuple[Tensor, ...]) -> None:
    model, gradients = build(library).double().train(), []
    videos = torch.tensor([1, 0, 3, 2])
    for packed in (True, False):
        model.zero_grad()
        tokens, _ = padded_tokens(Doubled(model))
        if packed:
            states = model.pair_encoder(tokens_per_pass=60).text_states(*texts, tokens, videos)
        else:
            states = model.encoder(*texts, tokens[videos])
        real = texts[1].bool()[:, None].expand(states.shape[:3])
        assert not packed or not states[~real].any(), "padding is zero"
        states[real].square().sum().backward()
        gradients.append({name: value.grad for name, value in model.named_parameters() if value.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, found in gradients[0].items():
        torch.testing.assert_close(found, gradients[1][name], rtol=1e-6, atol=1e-8, msg=name)


class Doubled:
    """A model that takes frames in single precision and computes in double precision."""

    def __init__(self, model: Any) -> None:
        self.model = model

    def encode_video(self, frames: Tensor) -> Tensor:
        return self.model.encode_video(frames.double())


@torch.no_grad()
def test_frames_of_a_clip_are_fused_as_patches(library: Any, texts: tuple[Tensor, ...]) -> None:
    """The mean of patch embeddings is that of a mean frame, since the projection is linear."""
    model, frames = build(library), frames_of((96, 160))
    both = frames.transpose(1, 2)  # (B, 1, 2, 3, H, W)
    torch.testing.assert_close(
        model.encode_video(both), model.encode_video(both.mean(dim=2, keepdim=True)), rtol=1e-4, atol=1e-4
    )


def test_gradients_reach_every_parameter(library: Any, texts: tuple[Tensor, ...]) -> None:
    model = build(library).train()
    model.score(model.encode_video(frames_of((96, 160))), *texts, torch.tensor([0, 0, 1, 1])).square().sum().backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    # A shift of all keys of an attention changes no weight of it.
    assert [name for name in without if not name.endswith("key.bias")] == []


def test_attention_without_biases_and_another_kind_of_type(texts: tuple[Tensor, ...]) -> None:
    torch.manual_seed(0)
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        encoder = MODELS.build(
            dict(
                type="ViltEncoder",
                vocab_size=100,
                hidden_size=32,
                num_layers=2,
                num_heads=4,
                intermediate_size=64,
                grid_size=2,
                text_types=1,
                modality_types=3,
                qkv_bias=False,
                initializer_range=0.2,
            )
        ).eval()
    tokens, (ids, mask) = encoder.embed_clips(torch.randn(4, 1, 32, 2, 3)), texts
    pairs = PairEncoder(encoder)
    encoded = pairs.encode_texts([text[: int(count)] for text, count in zip(ids, mask.sum(dim=1), strict=True)])
    found = pairs(encoded, tokens, torch.arange(4), torch.arange(4))
    torch.testing.assert_close(found, encoder.pool(encoder(ids, mask, tokens)), rtol=1e-4, atol=1e-5)


def test_what_it_cannot_do_is_refused(library: Any, texts: tuple[Tensor, ...]) -> None:
    model = build(library)
    with pytest.raises(OptionError, match=r"multiples of its patches' 32 pixels, got frames of 96 x 100\. Resize"):
        model.encode_video(frames_of((96, 100)))
    ids = torch.full((1, 21), 7)
    with pytest.raises(OptionError, match="ViltEncoder takes texts of at most 20 tokens, got 21"):
        model.score(model.encode_video(frames_of((96, 160))), ids, torch.ones_like(ids), torch.tensor([0]))
