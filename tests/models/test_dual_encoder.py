"""The towers of CLIP and SigLIP against the library's own models: vectors, cosine similarities, losses and gradients."""

import math
import re
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.registry import DefaultScope
from torch import Tensor
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from clipbert_mm.errors import OptionError
from clipbert_mm.models.aggregators import QueryWeightedAggregator
from clipbert_mm.models.heads import SigmoidSimilarityHead, SimilarityHead
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample

BOS, EOS = 97, 98
VISION = dict(
    hidden_size=48, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64, image_size=32, patch_size=8
)
TEXT = dict(
    vocab_size=99,
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    intermediate_size=64,
    max_position_embeddings=12,
    bos_token_id=BOS,
    eos_token_id=EOS,
)
SIZES = dict(vocab_size=99, hidden_size=32, num_layers=2, num_heads=4, intermediate_size=64, max_text_length=12)
FRAMES = dict(image_size=32, patch_size=8, hidden_size=48, num_layers=2, num_heads=4, intermediate_size=64)


def clip() -> tuple[Any, dict[str, Any], dict[str, str]]:
    """Return CLIP with random weights, the config of ours, and how weights are renamed."""
    library = CLIPModel(CLIPConfig(text_config=TEXT, vision_config=VISION, projection_dim=16)).eval()
    parts = dict(
        backbone=dict(type="CLIPVision", **FRAMES, vector_size=16),
        encoder=dict(type="CLIPText", **SIZES, vector_size=16),
        head=dict(type="SimilarityHead"),
    )
    renamed = {
        "vision_model.": "backbone.vit.",
        "visual_projection.": "backbone.visual_projection.",
        "text_model.": "encoder.text.",
        "text_projection.": "encoder.text_projection.",
        "logit_": "head.logit_",
    }
    return library, parts, renamed


def siglip() -> tuple[Any, dict[str, Any], dict[str, str]]:
    """Return SigLIP with random weights, the config of ours, and how weights are renamed."""
    text = TEXT | dict(projection_size=48, pad_token_id=1)
    library = SiglipModel(SiglipConfig(text_config=text, vision_config=VISION)).eval()
    with torch.no_grad():
        library.logit_scale.fill_(1.5)
        library.logit_bias.fill_(-2)
    parts = dict(
        backbone=dict(type="SiglipVision", **FRAMES),
        encoder=dict(type="SiglipText", **SIZES, vector_size=48),
        head=dict(type="SigmoidSimilarityHead"),
    )
    return library, parts, {"vision_model.": "backbone.vit.", "text_model.": "encoder.text.", "logit_": "head.logit_"}


FAMILIES = {"CLIP": clip, "SigLIP": siglip}


@pytest.fixture(scope="module", params=FAMILIES)
def family(request: pytest.FixtureRequest) -> tuple[Any, dict[str, Any], dict[str, str]]:
    torch.manual_seed(0)
    return FAMILIES[request.param]()


def build(family: tuple[Any, dict[str, Any], dict[str, str]], **settings: Any) -> Any:
    library, parts, renamed = family
    config = dict(
        type="ClipBert",
        data_preprocessor=dict(type="VideoTextPreprocessor", mean=[0.0] * 3, std=[1.0] * 3, vocab_size=99),
        temporal_fusion=dict(type="MeanFusion"),
        aggregator=dict(type="MeanAggregator"),
        **parts,
    )
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        model = MODELS.build(config | settings)
    tensors = {}
    for name, tensor in library.state_dict().items():
        prefix = next(prefix for prefix in renamed if name.startswith(prefix))
        tensors[renamed[prefix] + name.removeprefix(prefix)] = tensor
    model.load_state_dict(tensors)
    return model.eval()


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, ...]:
    """Frames of two videos of three clips of two frames, and four texts of three lengths, two of each video."""
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(2, 3, 2, 3, 32, 32, generator=generator)
    ids = torch.randint(2, 90, (4, 9), generator=generator)
    lengths = torch.tensor([9, 5, 9, 7])
    mask = (torch.arange(9) < lengths[:, None]).long()
    ids[:, 0] = BOS
    ids = ids.masked_fill(mask == 0, 0)
    ids[torch.arange(4), lengths - 1] = EOS
    return frames, ids, mask, torch.tensor([0, 0, 1, 1])


@torch.no_grad()
def library_cosines(library: Any, frames: Tensor, ids: Tensor, mask: Tensor) -> Tensor:
    """Return the library's own similarities of all texts and frames, (M, N), from its logits."""
    if library.config.model_type == "siglip":
        padded = F.pad(ids.masked_fill(mask == 0, 1), (0, 12 - ids.shape[1]), value=1)
        logits = library(input_ids=padded, pixel_values=frames).logits_per_text - library.logit_bias
    else:
        logits = library(input_ids=ids, attention_mask=mask, pixel_values=frames).logits_per_text
    return logits / library.logit_scale.exp()


def test_frames_are_compared_as_by_the_library(family: Any, batch: tuple[Tensor, ...]) -> None:
    frames, ids, mask, videos = batch
    single = frames[:, :, :1]
    cosines = library_cosines(family[0], single.flatten(0, 2), ids, mask).unflatten(1, (2, 3))  # (M, B, K)
    assert cosines.std() > 0.01
    expected = cosines[torch.arange(4), videos][:, :, None]
    model = build(family)
    tokens = model.encode_video(single)
    with torch.no_grad():
        torch.testing.assert_close(model.score(tokens, ids, mask, videos), expected, rtol=0, atol=1e-5)
    # With gradients the encoder's plain forward runs, with padding.
    torch.testing.assert_close(model.score(tokens, ids, mask, videos).detach(), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_vectors_are_the_library_s(family: Any, batch: tuple[Tensor, ...]) -> None:
    frames, ids, mask, _ = batch
    library, model = family[0], build(family)
    images = library.get_image_features(pixel_values=frames.flatten(0, 2))
    images = images if isinstance(images, Tensor) else images.pooler_output  # in transformers 5
    units = F.normalize(images, dim=1).unflatten(0, (2, 3, 2)).mean(dim=2)  # (B, K, D)
    expected = F.normalize(units, dim=2)
    tokens = model.encode_video(frames)
    torch.testing.assert_close(tokens[:, :, 0], expected, rtol=0, atol=1e-5)
    padded = F.pad(ids.masked_fill(mask == 0, 1), (0, 3), value=1) if library.config.model_type == "siglip" else ids
    texts = library.get_text_features(input_ids=padded)
    texts = texts if isinstance(texts, Tensor) else texts.pooler_output
    vectors = model.pair_encoder().encode_texts([text[: m.sum()] for text, m in zip(ids, mask, strict=True)]).vectors
    torch.testing.assert_close(vectors, F.normalize(texts, dim=1), rtol=0, atol=1e-5)


@torch.no_grad()
def test_joined_clips_are_compared_by_their_mean_vector(family: Any, batch: tuple[Tensor, ...]) -> None:
    """CLIP4Clip's mean pooling: the mean of the frames' unit vectors, of unit length again."""
    frames, ids, mask, videos = batch
    model = build(family, clip_fusion=dict(type="MeanClips"))
    tokens = model.encode_video(frames)
    scores = model.score(tokens, ids, mask, videos)
    mean = tokens[videos][:, :, 0].mean(dim=1)  # (M, D)
    texts = model.encoder.text_vectors(ids, mask)
    torch.testing.assert_close(scores[:, 0, 0], torch.cosine_similarity(texts, mean), rtol=0, atol=1e-6)


@torch.no_grad()
def test_any_pairs_are_scored_as_one_by_one(family: Any, batch: tuple[Tensor, ...]) -> None:
    frames, ids, mask, _ = batch
    model = build(family)
    tokens = model.encode_video(frames)
    text_index, video_index = torch.tensor([3, 0, 0, 1, 2, 2, 1]), torch.tensor([1, 0, 1, 1, 0, 1, 0])
    expected = model.score(tokens, ids[text_index], mask[text_index], video_index)
    unpadded = [text[: int(count)] for text, count in zip(ids, mask.sum(dim=1), strict=True)]
    for tokens_per_pass in (1, 20, 10_000):
        pairs = model.pair_encoder(tokens_per_pass=tokens_per_pass)
        scores = model.score_pairs(pairs, pairs.encode_texts(unpadded), tokens, text_index, video_index)
        torch.testing.assert_close(scores, expected, rtol=0, atol=1e-6)
    half = model.pair_encoder(precision="bf16")
    close = model.score_pairs(half, half.encode_texts(unpadded), tokens, text_index, video_index)
    torch.testing.assert_close(close, expected, rtol=0, atol=0.02)


def samples(*labels: list[int]) -> list[VideoTextSample]:
    return [VideoTextSample(metainfo=dict(path="a.mp4"), match_labels=np.array(each)) for each in labels]


def test_gradients_reach_every_parameter(family: Any, batch: tuple[Tensor, ...]) -> None:
    frames, *texts = batch
    model = build(family).train()
    logits = model.aggregator(model.score(model.encode_video(frames), *texts))
    model.head.loss(logits, samples([1, 0], [0, 1]))["loss_match"].backward()
    # A shift of all keys of an attention changes no weight of it; the fused projection of SigLIP's pooling holds its keys too.
    without = [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()]
    assert [name for name in without if not re.search(r"k_proj\.bias$", name)] == []


def test_a_text_that_is_too_long_is_refused(family: Any, batch: tuple[Tensor, ...]) -> None:
    model = build(family)
    ids = torch.full((1, 13), 5)
    with pytest.raises(OptionError, match=r"(CLIP|Siglip)Text takes texts of at most 12 tokens, got 13"):
        model.score(model.encode_video(batch[0]), ids, torch.ones_like(ids), torch.tensor([0]))


def test_losses_are_those_of_the_papers() -> None:
    cosines = torch.tensor([[0.3], [0.1], [0.2], [0.4]])
    contrast = SimilarityHead()
    with torch.no_grad():
        contrast.logit_scale.fill_(math.log(10))
    first, second = (-math.log(math.exp(a) / (math.exp(a) + math.exp(b))) for a, b in ((3, 1), (2, 4)))
    losses = contrast.loss(cosines, samples([1, 0], [1, 0]))
    assert losses["loss_match"].item() == pytest.approx((first + second) / 2, abs=1e-6)
    assert losses["match_accuracy"].item() == 0.5
    assert contrast.scores(cosines).tolist() == cosines[:, 0].tolist()
    assert contrast.log_odds(cosines) is None
    with pytest.raises(OptionError, match=r"texts that do not, got match_labels \[1, 1\] for a\.mp4"):
        contrast.loss(cosines[:2], samples([1, 1]))
    sigmoid = SigmoidSimilarityHead()
    with torch.no_grad():
        sigmoid.logit_scale.fill_(math.log(10))
        sigmoid.logit_bias.fill_(-2)
    torch.testing.assert_close(sigmoid.log_odds(cosines), torch.tensor([1.0, -1.0, 0.0, 2.0]))
    expected = sum(math.log(1 + math.exp(-x)) for x in (1, 1, 0, -2)) / 4  # right, right, even, wrong
    assert sigmoid.loss(cosines, samples([1, 0], [1, 0]))["loss_match"].item() == pytest.approx(expected, abs=1e-6)
    assert sigmoid.scores(cosines).tolist() == cosines[:, 0].tolist()


def test_the_weighted_similarity_is_that_of_the_weighted_mean_of_vectors() -> None:
    vectors, text = F.normalize(torch.randn(5, 8), dim=1), F.normalize(torch.randn(8), dim=0)
    cosines = vectors @ text
    weights = (cosines / 0.1).softmax(dim=0)
    pooled = QueryWeightedAggregator(temperature=0.1)(cosines[None, :, None])
    torch.testing.assert_close(pooled[0, 0], (weights @ vectors) @ text)
    sharp = QueryWeightedAggregator(temperature=1e-4)(cosines[None, :, None])
    torch.testing.assert_close(sharp[0, 0], cosines.max())
    with pytest.raises(OptionError, match="expects a temperature above 0, got 0"):
        QueryWeightedAggregator(temperature=0)


def test_the_tower_of_transformers_4_is_unwrapped() -> None:
    from clipbert_mm import compat

    tower = object()
    assert compat.bare_tower(SimpleNamespace(text_model=tower)) is tower
    assert compat.bare_tower(SimpleNamespace(vision_model=tower)) is tower
    assert compat.bare_tower(tower) is tower
