"""Vectors that learn from the joint encoder: the loss by hand, what learns, and what stays to the bit."""

import copy
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from mmengine.optim import build_optim_wrapper
from torch import nn

from clipbert_mm.errors import OptionError
from clipbert_mm.models import VectorDistillation
from clipbert_mm.models.vector_distillation import score_clips
from clipbert_mm.registry import MODELS


@pytest.fixture
def with_vectors(model_config: dict[str, Any]) -> dict[str, Any]:
    """A ClipBert whose vectors learn, with batch norms and dropout that would show in its weights and scores."""
    del model_config["mlm_head"]
    model_config["encoder"] |= dict(vector_size=8, dropout=0.3)
    model_config["head"]["dropout"] = 0.3
    model_config["temporal_fusion"] = dict(type="Conv2Plus1DFusion", channels=16)
    model_config["backbone"] = dict(
        type="mmpretrain.ResNet",
        depth=18,
        base_channels=4,
        stem_channels=4,
        num_stages=2,
        strides=(1, 2),
        dilations=(1, 1),
        out_indices=(1,),
        norm_eval=False,
    )
    return model_config | dict(distillation=dict(type="VectorDistillation"))


def test_the_loss_is_written_out():
    torch.manual_seed(3)
    texts = F.normalize(torch.randn(3, 4), dim=1)
    clips = F.normalize(torch.randn(2, 2, 4), dim=2)
    scores = 3 * torch.randn(3, 2, 2)
    losses = VectorDistillation(temperature=0.1, teacher_temperature=2.0)(texts, clips, scores)
    flat = clips.flatten(0, 1)
    mine = [[float(text @ clip) / 0.1 for clip in flat] for text in texts]
    theirs = (scores.flatten(1) / 2.0).tolist()

    def divergence(rows: list[list[float]], targets: list[list[float]]) -> float:
        total = 0.0
        for row, target in zip(rows, targets, strict=True):
            of_row, of_target = (math.log(sum(map(math.exp, each))) for each in (row, target))
            total += sum(
                math.exp(t - of_target) * ((t - of_target) - (r - of_row)) for r, t in zip(row, target, strict=True)
            )
        return total / len(rows)

    assert losses["loss_of_texts"].item() == pytest.approx(divergence(mine, theirs), rel=1e-4)
    turned = [list(map(list, zip(*each, strict=True))) for each in (mine, theirs)]
    assert losses["loss_of_clips"].item() == pytest.approx(divergence(*turned), rel=1e-4)
    same = [row.index(max(row)) == target.index(max(target)) for row, target in zip(mine, theirs, strict=True)]
    assert losses["same_first"].item() == pytest.approx(sum(same) / 3)


def test_equal_rankings_have_no_loss():
    texts, clips = F.normalize(torch.randn(5, 4), dim=1), F.normalize(torch.randn(3, 2, 4), dim=2)
    scores = torch.einsum("mp,bkp->mbk", texts, clips) / 0.1
    losses = VectorDistillation()(texts, clips, scores)
    assert losses["loss_of_texts"].item() == pytest.approx(0, abs=1e-5)
    assert losses["loss_of_clips"].item() == pytest.approx(0, abs=1e-5)
    assert losses["same_first"] == 1


@pytest.mark.parametrize("fusion", [None, dict(type="ConcatClips")])
def test_the_teacher_is_the_model_as_it_is_tested(with_vectors: dict, fusion: dict | None, make_batch: Callable):
    model = MODELS.build(with_vectors | dict(clip_fusion=fusion)).train()
    inputs = model.data_preprocessor(make_batch(texts=(2, 1, 1), size=64))["inputs"]
    with torch.no_grad():
        tokens = model.clip_fusion(model.encode_video(inputs["frames"]))
        scores = score_clips(model, tokens, inputs["text_ids"], inputs["text_mask"])  # (M, B, K)
        model.eval()
        assert scores.shape == (4, 3, 2 if fusion is None else 1)
        for b in range(3):
            logits = model.head(
                model.encoder.pool(
                    model.encoder(inputs["text_ids"], inputs["text_mask"], tokens[b].expand(4, -1, -1, -1))
                )
            )  # (M, K, C)
            torch.testing.assert_close(scores[:, b], logits[..., 1] - logits[..., 0], atol=1e-4, rtol=1e-4)


def test_the_vectors_learn_and_all_else_stays_to_the_bit(
    with_vectors: dict, make_batch: Callable, without_gradient: Callable
):
    model = MODELS.build(with_vectors).train()
    before = copy.deepcopy(model.state_dict())
    adam = dict(type="AdamW", lr=0.01, weight_decay=0.1)  # a decay would move what has no gradient
    wrapper = build_optim_wrapper(model, dict(type="AccumulatingOptimWrapper", optimizer=adam))
    first = None
    for _ in range(30):
        loss, log = model.parse_losses(model(**model.data_preprocessor(make_batch(size=64)), mode="loss"))
        first = first or loss.item()
        wrapper.zero_grad()
        wrapper.backward(loss)
        assert without_gradient(model) == []
        wrapper.step()
    assert {"loss_of_texts", "loss_of_clips", "same_first"} < set(log)
    assert loss.item() < 0.7 * first
    learning = ("encoder.vectors.", "distillation.")
    for name, value in model.state_dict().items():  # with the statistics of batch norms
        assert torch.equal(value, before[name]) != name.startswith(learning), name
    assert all(value.requires_grad == name.startswith(learning) for name, value in model.named_parameters())


def test_nothing_but_what_learns_is_in_training_mode(with_vectors: dict):
    model = MODELS.build(with_vectors)
    for _ in range(2):
        model.train()
        modes = {name: module.training for name, module in model.named_modules() if not list(module.children())}
        assert {name for name, training in modes.items() if training} == {
            name for name in modes if name.startswith(("encoder.vectors.", "distillation"))
        }
        model.eval()
        assert not any(module.training for module in model.modules())


def test_a_model_without_vectors_has_the_weights_that_it_had(model_config: dict):
    model = MODELS.build(model_config)
    assert not model.encoder.has_vectors
    assert not [name for name in model.state_dict() if "vectors" in name or "distillation" in name]
    model_config["encoder"]["vector_size"] = 8
    assert MODELS.build(model_config).encoder.has_vectors


def test_a_single_video_is_refused():
    with pytest.raises(OptionError, match=r"expects 2 or more, got 1\. Raise batch_size of the train_dataloader"):
        VectorDistillation()(torch.zeros(2, 4), torch.zeros(1, 2, 4), torch.zeros(2, 1, 2))


@pytest.mark.parametrize("options", [dict(temperature=2.0), dict(temperature=0.001), dict(teacher_temperature=0.0)])
def test_a_temperature_out_of_range_is_refused(options: dict):
    with pytest.raises(OptionError, match=r"expects a temperature from 0\.01 to 1 and a positive teacher_temperature"):
        VectorDistillation(**options)


def test_what_a_model_cannot_do_with_it(with_vectors: dict, joined_config: dict):
    negatives = dict(type="HardNegatives")
    with pytest.raises(OptionError, match=r"either hard_negatives, .* or a distillation"):
        MODELS.build(with_vectors | dict(hard_negatives=negatives))
    with pytest.raises(OptionError, match=r"it does not go with clip_sequential\. Leave one of the two out"):
        MODELS.build(with_vectors | dict(clip_sequential=True))
    with pytest.raises(OptionError, match=r"which this CrossEncoder does not have\. Set vector_size of a JointEncoder"):
        MODELS.build(joined_config | dict(distillation=with_vectors["distillation"]))
    del with_vectors["encoder"]["vector_size"]
    with pytest.raises(OptionError, match=r"which this JointEncoder does not have\. Set vector_size"):
        MODELS.build(with_vectors)


def test_a_joint_encoder_with_vectors_may_choose_hard_negatives(with_vectors: dict, make_batch: Callable):
    model: nn.Module = MODELS.build(with_vectors | dict(distillation=None, hard_negatives=dict(type="HardNegatives")))
    data = make_batch(texts=(1, 1, 1), size=64)
    for sample in data["data_samples"]:
        sample.match_labels[:] = 1
    losses = model(**model.data_preprocessor(data), mode="loss")
    assert {"loss_contrast", "loss_match"} < set(losses)
