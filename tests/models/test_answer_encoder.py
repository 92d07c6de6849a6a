"""BLIP's answers by likelihood, against the library's own text encoder and decoder."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from public_models import write_blip
from torch import Tensor
from transformers import BlipForQuestionAnswering

from clipbert_mm.checkpoint import build_model, load_weights
from clipbert_mm.checkpoint.public import read_public
from clipbert_mm.errors import OptionError
from clipbert_mm.structures import VideoTextSample

CLS, SEP = 2, 3
ANSWERS = [[CLS, 9, SEP], [CLS, 12, 13, SEP], [CLS, 15, SEP], [CLS, 20, 21, 22, SEP]]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    """Our model with its candidates, and the library's."""
    folder: Path = tmp_path_factory.mktemp("blip_vqa")
    library = write_blip(folder, BlipForQuestionAnswering, visual_size=32)  # its decoder needs one width
    public = read_public(str(folder))
    model: Any = build_model(public.model, public.weights.tensors, public.source)
    load_weights(model, public.weights.tensors, public.source, strict=True)
    model.encoder.set_answers([np.array(ids) for ids in ANSWERS])
    return model.eval(), library


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(1)
    frames = torch.randn(2, 3, 1, 3, 32, 32, generator=generator)
    ids = torch.randint(5, 40, (3, 7), generator=generator)
    ids[:, 0] = CLS
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    return frames, ids, mask, torch.tensor([0, 1, 1])


@torch.no_grad()
def expected_of(library: Any, frames: Tensor, text: Tensor, images: Tensor) -> list[float]:
    """Log-likelihood of each answer to one question, by the library, one answer at a time."""
    start = library.config.text_config.vocab_size - 2  # [DEC]
    joint = torch.cat([torch.tensor([start + 1]), text[1:]])[None]
    states = library.text_encoder(input_ids=joint, encoder_hidden_states=images).last_hidden_state
    found = []
    for answer in ANSWERS:
        read = torch.tensor([[start, *answer[1:-1]]])
        words = library.text_decoder(input_ids=read, encoder_hidden_states=states, use_cache=False).logits.log_softmax(
            dim=2
        )
        found.append(float(words[0, torch.arange(len(answer) - 1), torch.tensor(answer[1:])].sum()))
    return found


def test_likelihoods_are_the_library_s_clip_by_clip_and_joined(
    made: tuple[Any, Any], batch: tuple[Tensor, ...]
) -> None:
    (model, library), (frames, ids, mask, videos) = made, batch
    tokens = model.encode_video(frames)
    with torch.no_grad():
        joined = model.score(tokens, ids, mask, videos)
        pairs = model.pair_encoder()
        texts = pairs.encode_texts([text[: int(count)] for text, count in zip(ids, mask.sum(dim=1), strict=True)])
        clips = model.score_pairs(pairs, texts, tokens, torch.arange(3), videos)
    assert joined.shape == (3, 1, 4)
    assert clips.shape == (3, 3, 4)
    for i, video in enumerate(videos):
        text = ids[i][mask[i] == 1]
        images = library.vision_model(frames[video][:, 0]).last_hidden_state.detach()  # (3, 17, 48)
        torch.testing.assert_close(
            joined[i, 0],
            torch.tensor(expected_of(library, frames, text, images.flatten(0, 1)[None])),
            rtol=1e-4,
            atol=1e-4,
        )
        for k in range(3):
            expected = torch.tensor(expected_of(library, frames, text, images[k : k + 1]))
            torch.testing.assert_close(clips[i, k], expected, rtol=1e-4, atol=1e-4)
    # With gradients the encoder's plain forward runs, with padding.
    torch.testing.assert_close(model.score(tokens, ids, mask, videos).detach(), joined, rtol=1e-4, atol=1e-4)


def test_scores_compare_the_candidates(made: tuple[Any, Any], batch: tuple[Tensor, ...]) -> None:
    model, _ = made
    frames, *texts = batch
    with torch.no_grad():
        scores = model.pool_scores(model.score(model.encode_video(frames), *texts))
    torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(3))


def test_gradients_reach_every_parameter(made: tuple[Any, Any], batch: tuple[Tensor, ...]) -> None:
    model, _ = made
    frames, *texts = batch
    model.train()
    logits = model.aggregator(model.score(model.encode_video(frames), *texts))
    labels = [VideoTextSample(metainfo=dict(path="a.mp4"), answer_labels=np.array([i])) for i in (0, 1, 3)]
    model.head.loss(logits, labels)["loss_answer"].backward()
    without = {name for name, value in model.named_parameters() if value.grad is None}
    assert without == set()
    with pytest.raises(OptionError, match="LikelihoodHead has 4 candidate answers, got answer_labels from 0 to 4"):
        model.head.loss(
            logits, [*labels[:2], VideoTextSample(metainfo=dict(path="a.mp4"), answer_labels=np.array([4]))]
        )
    model.zero_grad()
    model.eval()


def test_without_candidates_it_says_what_to_give(made: tuple[Any, Any], batch: tuple[Tensor, ...]) -> None:
    model, _ = made
    frames, *texts = batch
    answers, model.encoder.answers = model.encoder.answers, []
    with pytest.raises(OptionError, match=r"none were set. Give options, or an answer vocabulary"):
        model.score(model.encode_video(frames), *texts)
    model.encoder.answers = answers
