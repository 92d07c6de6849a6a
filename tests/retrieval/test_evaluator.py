"""The scores of a block of texts and videos, against the joint encoder for each pair on its own."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.models import ClipBert
from clipbert_mm.registry import MODELS
from clipbert_mm.retrieval import FeatureStore
from clipbert_mm.retrieval.evaluator import score_block


@pytest.fixture
def model(model_config: dict) -> ClipBert:
    """A small model in eval mode."""
    del model_config["mlm_head"]
    model = MODELS.build(model_config).eval()
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter)
    return model


@torch.no_grad()
def test_a_block_is_scored_as_each_pair_on_its_own(model: ClipBert, tmp_path: Path):
    frames = torch.randn(5, 3, 2, 3, 32, 32)  # 5 videos of 3 clips of 2 frames
    store = FeatureStore(tmp_path)
    names = [f"video {i}" for i in range(5)]
    for name, video in zip(names, frames, strict=True):
        tokens = model.encode_with_coarse_tokens(video[None])
        store.add(name, {which: value[0] for which, value in tokens.items()}, {})
    token_ids = [np.arange(5, 5 + length) for length in (4, 9, 4)]
    pairs = model.pair_encoder()
    texts = pairs.encode_texts(token_ids)
    scores = score_block(model, pairs, texts, store.read(names))
    expected = np.empty((3, 5))
    for i, ids in enumerate(token_ids):
        text = torch.from_numpy(ids)[None]
        for j, video in enumerate(frames):
            states = model.fuse(
                model.encode_video(video[None]), text, torch.ones_like(text), torch.zeros(1, dtype=torch.long)
            )
            expected[i, j] = model.head.scores(model.aggregator(model.head(model.encoder.pool(states))))
    assert scores == pytest.approx(expected, abs=1e-5)
    assert expected.std() > 0.02
    selected = np.array([[1, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    part = score_block(model, pairs, texts, store.read(names), selected)
    assert np.array_equal(~np.isnan(part), selected)
    assert part[selected] == pytest.approx(expected[selected], abs=1e-5)
    coarse = score_block(model, pairs, texts, store.read(names, "coarse"))
    for j, video in enumerate(frames):  # one clip of its six frames
        tokens = model.encode_video(video.flatten(0, 1)[None, None])
        assert coarse[:, j] == pytest.approx(score_block(model, pairs, texts, tokens)[:, 0], abs=1e-5)
    assert np.abs(coarse - scores).max() > 1e-3
