"""Vectors of a joint encoder: by hand, without padding, and in the order of the texts."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from clipbert_mm.models import JointEncoder
from clipbert_mm.models.encoders.shortlist_vectors import TokenPooling


@pytest.fixture
def encoder() -> JointEncoder:
    return JointEncoder(
        vocab_size=50,
        hidden_size=16,
        num_layers=2,
        num_heads=4,
        intermediate_size=24,
        max_text_length=12,
        grid_size=5,
        dropout=0.0,
        initializer_range=0.3,
        vector_size=6,
    ).eval()


def test_tokens_are_pooled_by_hand():
    pooling = TokenPooling(hidden_size=8, vector_size=3).double()
    for value in pooling.parameters():
        nn.init.normal_(value)
    tokens, mask = torch.randn(2, 5, 8, dtype=torch.float64), torch.tensor([[1, 1, 1, 1, 1], [1, 1, 0, 0, 0]])
    norm, linear, _ = pooling.tokens
    for row, length in ((0, 5), (1, 2)):
        mapped = []
        for token in tokens[row, :length]:
            scaled = (token - token.mean()) / torch.sqrt(token.var(unbiased=False) + 1e-5) * norm.weight + norm.bias
            mapped.append(F.gelu(linear.weight @ scaled + linear.bias))
        vector = pooling.projection.weight @ (sum(mapped) / length) + pooling.projection.bias
        expected = vector / vector.norm()
        torch.testing.assert_close(pooling(tokens, mask)[row], expected)
        torch.testing.assert_close(pooling(tokens[row, :length]), expected)


def test_vectors_of_texts_and_clips(encoder: JointEncoder, without_gradient: Callable):
    ids = torch.randint(1, 50, (2, 7))
    mask = torch.ones_like(ids)
    ids[1, 4:] = mask[1, 4:] = 0
    texts, clips = encoder.text_vectors(ids, mask), encoder.clip_vectors(torch.randn(2, 3, 16, 16))
    assert (encoder.vector_size, texts.shape, clips.shape) == (6, (2, 6), (2, 3, 6))
    for vectors in (texts, clips):
        torch.testing.assert_close(vectors.norm(dim=-1), torch.ones(vectors.shape[:-1]))
    torch.testing.assert_close(texts[1:], encoder.text_vectors(ids[1:, :4], mask[1:, :4]), atol=1e-5, rtol=1e-5)
    assert (texts[0] - texts[1]).abs().max() > 0.01
    (texts.sum() + (clips * torch.randn_like(clips)).sum()).backward()
    assert without_gradient(encoder.vectors) == []


def test_the_pair_encoder_gives_the_vectors_in_the_order_of_the_texts(encoder: JointEncoder):
    rng = np.random.default_rng(0)
    texts = [rng.integers(1, 50, length) for length in (5, 3, 5, 9, 3)]
    vectors = encoder.pair_encoder().encode_texts(texts).vectors
    for text, vector in zip(texts, vectors, strict=True):
        ids = torch.from_numpy(text)[None]
        torch.testing.assert_close(vector[None], encoder.text_vectors(ids, torch.ones_like(ids)), atol=1e-5, rtol=1e-5)
    encoder.has_vectors = False
    assert encoder.pair_encoder().encode_texts(texts).vectors is None
