"""Scoring without a Runner: what search on a user's own videos calls."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.registry import MODELS
from clipbert_mm.retrieval import FeatureStore, PairScorer


@pytest.fixture
def scorer(model_config: dict) -> PairScorer:
    """A scorer of a small model."""
    del model_config["mlm_head"]
    model = MODELS.build(model_config)
    for parameter in model.head.parameters():
        torch.nn.init.normal_(parameter)
    return PairScorer(model)


def test_a_gallery_is_scored_in_memory(scorer: PairScorer, tmp_path: Path):
    frames = torch.randn(5, 3, 2, 3, 32, 32)  # 5 videos of 3 clips of 2 frames
    gallery = FeatureStore(tmp_path)
    names = [f"video {i}" for i in range(5)]
    for name, own in zip(names, frames, strict=True):
        gallery.add(name, scorer.encode_video(own), {})
    pieces = [np.arange(5, 5 + length) for length in (4, 9, 4)]
    done = []
    found = scorer.score_gallery(pieces, gallery, names, videos_at_once=2, progress=done.append)
    model = scorer.model
    wanted = np.empty((3, 5))
    with torch.no_grad():
        for i, ids in enumerate(pieces):
            text = torch.from_numpy(ids)[None]
            for j in range(5):
                states = model.fuse(
                    model.encode_video(frames[j][None]), text, torch.ones_like(text), torch.zeros(1, dtype=torch.long)
                )
                wanted[i, j] = model.head.scores(model.aggregator(model.head(model.encoder.pool(states))))
    assert found == pytest.approx(wanted, abs=1e-5)
    assert wanted.std() > 0.02
    assert done == [6, 6, 3]
    chosen = np.array([[1, 0, 0, 0, 1], [0, 0, 0, 0, 1], [0, 0, 0, 0, 0]], bool)
    part = scorer.score_gallery(pieces, gallery, names, wanted=chosen, videos_at_once=2)
    assert np.array_equal(~np.isnan(part), chosen)
    assert part[chosen] == pytest.approx(wanted[chosen], abs=1e-5)
    overviews = scorer.score_gallery(pieces, gallery, names, which="overview")
    one_clip = [model.encode_video(own.flatten(0, 1)[None, None]) for own in frames]  # of six frames
    for j, tokens in enumerate(one_clip):
        alone = scorer.score_block(scorer.encode_texts(pieces), tokens)
        assert overviews[:, j] == pytest.approx(alone[:, 0], abs=1e-5)
    assert np.abs(overviews - found).max() > 1e-3
    logits = scorer.clip_logits(
        scorer.encode_texts(pieces), gallery.read(names), torch.tensor([0, 2]), torch.tensor([3, 0])
    )
    assert logits.shape == (2, 3, 2)
    pooled = scorer.scores(logits).tolist()
    assert pooled == pytest.approx([wanted[0, 3], wanted[2, 0]], abs=1e-5)


def test_word_pieces_of_another_vocabulary_are_refused(scorer: PairScorer):
    with pytest.raises(ValueError, match=r"gave word piece 200, the model knows 200"):
        scorer.encode_texts([np.array([2, 200, 3])])
