"""Pooling over clips: Eq. 5 and 6 of the paper computed literally, and what holds for every aggregator."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from clipbert_mm.models import LogSumExpAggregator, MaxAggregator, MeanAggregator

AGGREGATORS = [MeanAggregator, MaxAggregator, LogSumExpAggregator]


@pytest.fixture
def clip_logits() -> torch.Tensor:
    """Logits of 5 texts, 4 clips, 3 classes."""
    return torch.randn(5, 4, 3, dtype=torch.float32, requires_grad=True)


def test_mean_and_max_by_hand():
    logits = torch.tensor([[[1.0, -2.0], [3.0, 0.0], [-1.0, 5.0]]])
    assert MeanAggregator()(logits).tolist() == [[1.0, 1.0]]
    assert MaxAggregator()(logits).tolist() == [[3.0, 5.0]]


def test_cross_entropy_of_logsumexp_is_equations_5_and_6(clip_logits: torch.Tensor):
    labels = torch.tensor([0, 2, 1, 1, 0])
    loss = F.cross_entropy(LogSumExpAggregator()(clip_logits), labels)
    # Eq. 5: element-wise exponential, summed over clips, divided by its own sum over the classes. Eq. 6: minus its logarithm.
    total = 0.0
    for j, label in enumerate(labels.tolist()):
        summed = np.exp(clip_logits[j].detach().double().numpy()).sum(axis=0)  # (C,)
        probability = summed / summed.sum()
        total -= np.log(probability[label])
    assert loss.item() == pytest.approx(total / len(labels), rel=1e-6)


def test_logsumexp_is_the_logarithm_of_a_mean_of_exponentials(clip_logits: torch.Tensor):
    wanted = np.log(np.exp(clip_logits.detach().double().numpy()).mean(axis=1))
    assert LogSumExpAggregator()(clip_logits).detach().numpy() == pytest.approx(wanted, abs=1e-6)


def test_logsumexp_lies_between_mean_and_max_and_survives_large_logits(clip_logits: torch.Tensor):
    pooled = {kind: kind()(clip_logits) for kind in AGGREGATORS}
    assert (pooled[MeanAggregator] <= pooled[LogSumExpAggregator]).all()
    assert (pooled[LogSumExpAggregator] <= pooled[MaxAggregator]).all()
    huge = LogSumExpAggregator()(torch.tensor([[[1e4], [1e4 + 1]]]))
    assert huge.item() == pytest.approx(1e4 + np.log((1 + np.e) / 2), rel=1e-6)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_one_clip_is_the_identity(aggregator: type, clip_logits: torch.Tensor):
    assert torch.equal(aggregator()(clip_logits[:, :1]), clip_logits[:, 0])


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_the_order_of_clips_does_not_matter(aggregator: type, clip_logits: torch.Tensor):
    shuffled = clip_logits[:, [2, 0, 3, 1]]
    torch.testing.assert_close(aggregator()(shuffled), aggregator()(clip_logits))


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_the_same_clip_twice_changes_nothing(aggregator: type, clip_logits: torch.Tensor):
    torch.testing.assert_close(aggregator()(clip_logits.repeat(1, 2, 1)), aggregator()(clip_logits))


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_gradients_by_hand(aggregator: type, clip_logits: torch.Tensor):
    aggregator()(clip_logits).sum().backward()
    values = clip_logits.detach()
    share = {
        MeanAggregator: torch.full_like(values, 1 / 4),
        MaxAggregator: (values == values.amax(dim=1, keepdim=True)).float(),
        LogSumExpAggregator: values.softmax(dim=1),
    }[aggregator]
    torch.testing.assert_close(clip_logits.grad, share)


@pytest.mark.parametrize("aggregator", AGGREGATORS)
def test_half_precision_is_pooled_in_single(aggregator: type):
    # In float16 the exponentials of 12 and the sum of many clips are out of range.
    logits = torch.full((1, 16, 1), 12.0).half()
    pooled = aggregator()(logits)
    assert pooled.dtype == torch.float32
    assert pooled.item() == pytest.approx(12.0, abs=1e-5)


@pytest.mark.parametrize("shape", [(2, 4), (2, 0, 4), (1, 2, 3, 4)])
def test_a_wrong_shape_is_refused(shape: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"MeanAggregator expects .* \(M, K, C\) .* got \(") as caught:
        MeanAggregator()(torch.zeros(shape))
    assert f"got {shape}. A single clip needs K = 1: logits[:, None]." in str(caught.value)
