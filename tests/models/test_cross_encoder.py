"""The cross-attention encoder of BLIP, against the library's own model, clip by clip and with all clips joined."""

import re
from typing import Any

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import Tensor
from transformers import BlipConfig, BlipForImageTextRetrieval

from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders import CrossEncoder
from clipbert_mm.models.encoders.cross_pair_encoder import cross_attention, is_cheaper_absorbed
from clipbert_mm.registry import MODELS

VISION = dict(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
)
TEXT = dict(
    vocab_size=100,
    hidden_size=32,
    encoder_hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=40,
    bos_token_id=1,
    sep_token_id=4,
)
RENAMED = {
    "vision_model.": "backbone.vit.",
    "text_encoder.": "encoder.text.",
    "vision_proj.": "encoder.visual_projection.",
    "text_proj.": "encoder.text_projection.",
    "itm_head.": "head.classifier.",
}
CLS, ENC = 3, 99


@pytest.fixture(scope="module")
def library() -> Any:
    torch.manual_seed(0)
    spread = dict(initializer_range=0.2)  # of the vision model it is 1e-10 by default, which gives zeros
    config = BlipConfig(text_config=TEXT | spread, vision_config=VISION | spread, image_text_hidden_size=16)
    return BlipForImageTextRetrieval(config).eval()


def build(library: Any, **settings: Any) -> Any:
    encoder = dict(vocab_size=100, hidden_size=32, num_layers=3, num_heads=4, intermediate_size=64, max_text_length=40)
    config = dict(
        type="ClipBert",
        data_preprocessor=dict(type="VideoTextPreprocessor", mean=[0.0] * 3, std=[1.0] * 3, vocab_size=100),
        backbone=dict(
            type="BlipVision",
            image_size=32,
            patch_size=8,
            hidden_size=48,
            num_layers=2,
            num_heads=4,
            intermediate_size=64,
        ),
        temporal_fusion=dict(type="ConcatFusion"),
        encoder=dict(type="CrossEncoder", **encoder, visual_size=48, frame_tokens=17, vector_size=16, joint_token=ENC),
        head=dict(type="SimilarityMatchingHead", in_channels=32),
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
def batch() -> tuple[Tensor, ...]:
    """Frames of two videos of three clips, and four texts of three lengths, two of each video."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(2, 3, 1, 3, 32, 32, generator=generator)
    ids = torch.randint(5, 90, (4, 9), generator=generator)
    ids[:, 0] = CLS
    mask = torch.ones_like(ids)
    mask[1, 5:] = mask[3, 7:] = 0
    return frames, ids, mask, torch.tensor([0, 0, 1, 1])


def joint(ids: Tensor) -> Tensor:
    return torch.cat([torch.full_like(ids[:, :1], ENC), ids[:, 1:]], dim=1)


@torch.no_grad()
def library_scores(library: Any, frames: Tensor, ids: Tensor, mask: Tensor, videos: Tensor) -> Tensor:
    """Match logits and similarity of each text with each clip, (M, K, 3), one image at a time by the library's own forward."""
    rows = []
    for text, text_mask, video in zip(ids[:, None], mask[:, None], videos, strict=True):
        for image in frames[video]:
            match = library(input_ids=joint(text), pixel_values=image, attention_mask=text_mask).itm_score
            options = dict(attention_mask=text_mask, use_itm_head=False)
            rows.append(torch.cat([match, library(input_ids=text, pixel_values=image, **options).itm_score], dim=1))
    return torch.cat(rows).unflatten(0, (len(ids), -1))


def test_each_clip_is_scored_as_by_the_library(library: Any, batch: tuple[Tensor, ...]) -> None:
    frames, *texts = batch
    expected = library_scores(library, frames, *texts)
    assert expected.std() > 0.1
    model = build(library)
    tokens = model.encode_video(frames)
    with torch.no_grad():
        torch.testing.assert_close(model.score(tokens, *texts), expected, rtol=1e-4, atol=1e-5)
    # With gradients the encoder's plain forward runs, with padding.
    torch.testing.assert_close(model.score(tokens, *texts).detach(), expected, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_joined_clips_are_scored_as_one_sequence(library: Any, batch: tuple[Tensor, ...]) -> None:
    """BLIP's video protocol: matching reads the tokens of all frames, and the similarity is that of the mean vector."""
    frames, ids, mask, videos = batch
    model = build(library, clip_fusion=dict(type="ConcatClips"))
    scores = model.score(model.encode_video(frames), ids, mask, videos)
    assert scores.shape == (4, 1, 3)
    in_one_clip = build(library)  # whose frames the temporal fusion concatenates
    torch.testing.assert_close(
        in_one_clip.score(in_one_clip.encode_video(frames.transpose(1, 2)), ids, mask, videos), scores
    )
    for i, video in enumerate(videos):
        images = library.vision_model(frames[video][:, 0]).last_hidden_state  # (3, 17, 48)
        states = library.text_encoder(
            input_ids=joint(ids[i : i + 1]),
            attention_mask=mask[i : i + 1],
            encoder_hidden_states=images.flatten(0, 1)[None],
        ).last_hidden_state
        text = library.text_encoder(input_ids=ids[i : i + 1], attention_mask=mask[i : i + 1]).last_hidden_state
        vectors = library.vision_proj(images[:, 0]).mean(dim=0), library.text_proj(text[0, 0])
        expected = [*library.itm_head(states[0, 0]).tolist(), float(torch.cosine_similarity(*vectors, dim=0))]
        torch.testing.assert_close(scores[i, 0], torch.tensor(expected), rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_any_pairs_are_scored_as_one_by_one(library: Any, batch: tuple[Tensor, ...]) -> None:
    """Texts of several lengths with different numbers of videos, in passes of any size."""
    frames, ids, mask, _ = batch
    model = build(library)
    tokens = model.encode_video(frames)
    text_index, video_index = torch.tensor([3, 0, 0, 1, 2, 2, 1]), torch.tensor([1, 0, 1, 1, 0, 1, 0])
    expected = model.score(tokens, ids[text_index], mask[text_index], video_index)
    for tokens_per_pass in (1, 20, 10_000):
        pairs = model.pair_encoder(tokens_per_pass=tokens_per_pass)
        texts = pairs.encode_texts([text[: int(count)] for text, count in zip(ids, mask.sum(dim=1), strict=True)])
        scores = model.score_pairs(pairs, texts, tokens, text_index, video_index)
        torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    half = model.pair_encoder(precision="bf16")
    texts = half.encode_texts(list(ids[:1]))
    close = model.score_pairs(half, texts, tokens, torch.tensor([0]), torch.tensor([0]))
    torch.testing.assert_close(close, expected[1:2], rtol=0.05, atol=0.05)


def test_keys_and_values_are_computed_where_it_is_less_work() -> None:
    torch.manual_seed(0)
    encoder = CrossEncoder(vocab_size=10, hidden_size=32, num_layers=1, num_heads=4, visual_size=48, joint_token=1)
    attention = encoder.text.encoder.layer[0].crossattention.self
    tokens = torch.randn(2, 30, 48)
    for queries in (2, 40):
        states = torch.randn(2, queries, 32)
        plain, _ = attention(states, encoder_hidden_states=tokens)
        torch.testing.assert_close(cross_attention(attention, states, tokens), plain, rtol=1e-4, atol=1e-5)
    assert [is_cheaper_absorbed(queries, 30, 4, 8, 48) for queries in (2, 40)] == [True, False]


def test_scores_are_the_published_rank_and_log_odds(library: Any) -> None:
    head = build(library).head
    logits = torch.tensor([[1.0, 3.0, 0.5]])
    assert head.scores(logits).tolist() == [3.5]
    assert head.log_odds(logits).tolist() == [2.0]


def test_gradients_reach_every_parameter(library: Any, batch: tuple[Tensor, ...]) -> None:
    frames, *texts = batch
    model = build(library).train()
    model.encoder.requires_grad_(
        True
    )  # the projections to vectors too, which a ClipBert freezes where no loss reads them
    model.score(model.encode_video(frames), *texts).square().sum().backward()
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    # A shift of all keys of an attention changes no weight of it.
    assert [name for name in without if not re.search(r"key\.bias$", name)] == []


def test_a_text_that_is_too_long_is_refused(library: Any, batch: tuple[Tensor, ...]) -> None:
    model = build(library)
    ids = torch.full((1, 41), CLS)
    with pytest.raises(OptionError, match="CrossEncoder takes texts of at most 40 tokens, got 41"):
        model.score(model.encode_video(batch[0]), ids, torch.ones_like(ids), torch.tensor([0]))
