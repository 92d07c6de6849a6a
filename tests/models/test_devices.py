"""Nothing is left on the CPU: the meta device stands for a GPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from one_device import OneDevice

from clipbert_mm.models import ClipBert
from clipbert_mm.registry import MODELS
from clipbert_mm.retrieval.evaluator import score_block
from clipbert_mm.structures import VideoTextSample

HEADS = dict(
    matching=(dict(type="MatchingHead", hidden_channels=32), dict(match_labels=np.array([1, 0]))),
    ranking=(dict(type="MarginRankingHead", hidden_channels=None), dict(match_labels=np.array([1, 0]))),
    open_ended=(dict(type="OpenEndedHead", hidden_channels=32, num_answers=5), dict(answer_labels=np.array([3, 1]))),
    soft=(
        dict(type="SoftAnswerHead", hidden_channels=32, num_answers=5),
        dict(answer_scores=np.ones((2, 5), np.float32)),
    ),
    choice=(dict(type="MultipleChoiceHead", hidden_channels=32), dict(answer_labels=np.array([1]))),
    count=(dict(type="CountHead", hidden_channels=32), dict(counts=np.array([2, 3], np.float32))),
)
"""Config of each head, and the labels of an item of two texts."""


@pytest.fixture(params=HEADS)
def batch(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Name of a head, and a collated batch of two items of two texts with labels for it."""
    labels = HEADS[request.param][1]
    texts = [np.array([2, 5, 3]), np.array([2, 7, 8, 3])]
    inputs = dict(
        frames=torch.zeros(2, 2, 1, 32, 32, 3, dtype=torch.uint8),
        text_ids=[texts, texts],
        mlm_labels=[[np.full_like(text, 5) for text in texts]] * 2,
    )
    samples = [VideoTextSample(path=f"{i}.mp4", texts=["a", "b"], broken=None, **labels) for i in range(2)]
    return request.param, dict(inputs=inputs, data_samples=samples)


@pytest.mark.parametrize("operation", [
    lambda meta, cpu: meta + cpu,
    lambda meta, cpu: F.linear(meta, cpu),
    lambda meta, cpu: F.embedding(torch.zeros(2, dtype=torch.long), meta),
    lambda meta, cpu: F.cross_entropy(meta, torch.zeros(3, dtype=torch.long)),
    lambda meta, cpu: cpu[torch.zeros(2, dtype=torch.long, device="meta")],
])  # fmt: skip
def test_tensors_of_two_devices_are_noticed(operation: Callable):
    with OneDevice(), pytest.raises(RuntimeError):
        operation(torch.empty(3, 3, device="meta"), torch.ones(3, 3))


@pytest.mark.parametrize("options", [{}, dict(clip_sequential=True), dict(frozen=["visual_encoder"])])
def test_a_model_is_on_its_device_in_training_and_testing(batch: tuple, model_config: dict[str, Any], options: dict):
    name, data = batch
    head = HEADS[name][0]
    if name != "matching":
        del model_config["mlm_head"]
    model = MODELS.build(model_config | dict(head=dict(head, in_channels=16)) | options).to("meta")
    with OneDevice():
        prepared = model.data_preprocessor(data)
        assert {value.device.type for value in prepared["inputs"].values()} == {"meta"}
        losses = model.train()(**prepared, mode="loss")
        sum(value for key, value in losses.items() if key.startswith("loss")).backward()
        with torch.no_grad():
            (sample, other) = model.eval()(**prepared, mode="predict")
            logits = model(**prepared, mode="tensor")
    assert all(value.device.type == "meta" for value in losses.values())
    assert all(value.grad is not None and value.grad.is_meta for value in model.parameters() if value.requires_grad)
    assert sample.clip_logits.is_meta
    assert other.scores.is_meta
    assert logits.is_meta


@pytest.mark.parametrize(("architecture", "precision"), [("bert", "fp32"), ("distilbert", "bf16")])
def test_pairs_are_scored_on_the_device(model_config: dict[str, Any], architecture: str, precision: str):
    del model_config["mlm_head"]
    model_config["encoder"].update(architecture=architecture)
    model: ClipBert = MODELS.build(model_config).to("meta").eval()
    rows, columns = torch.tensor([0, 2]), torch.tensor([1, 0])
    with OneDevice(), torch.no_grad():
        frames = model.data_preprocessor.normalize(torch.zeros(2, 2, 1, 32, 32, 3, dtype=torch.uint8, device="meta"))
        tokens = model.encode_with_coarse_tokens(frames)
        pairs = model.pair_encoder(precision=precision)
        texts = pairs.encode_texts([np.array([2, 5, 3]), np.array([2, 7, 8, 3]), torch.tensor([2, 6, 3])])
        logits = model.score_pairs(pairs, texts, tokens["coarse"], rows, columns)
        assert model.pool_scores(logits).is_meta
        stored = torch.zeros(2, 2, 16, 16)  # visual tokens from the disk are on the CPU
        selected = np.array([[0, 1], [0, 0], [1, 0]], bool)
        scores = score_block(model, pairs, texts, stored, selected)
    assert (pairs.device.type, logits.device.type, logits.shape) == ("meta", "meta", (2, 1, 2))
    assert np.array_equal(scores == 1, selected), "on the CPU, where each number is a one"
