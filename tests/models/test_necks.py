"""The necks, against loops written out."""

import numpy as np
import pytest
import torch

from clipbert_mm.models import GridProjection, MeanFusion


def projected_by_hand(maps: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Convolve 3 x 3 with zeros around, take the largest of each 2 x 2, cut at zero."""
    count, _, height, width = maps.shape
    around = np.pad(maps, ((0, 0), (0, 0), (1, 1), (1, 1)))
    convolved = np.zeros((count, len(weight), height, width))
    for y in range(height):
        for x in range(width):
            window = around[:, :, y : y + 3, x : x + 3]
            convolved[:, :, y, x] = np.einsum("ncij,dcij->nd", window, weight)
    pooled = np.zeros((count, len(weight), height // 2, width // 2))
    for y in range(height // 2):
        for x in range(width // 2):
            pooled[:, :, y, x] = convolved[:, :, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].max(axis=(2, 3))
    return np.maximum(pooled, 0)


@pytest.mark.parametrize(("height", "width"), [(4, 6), (7, 5)])  # a row or column left over is dropped
def test_projection_by_hand(height: int, width: int):
    neck = GridProjection(in_channels=3, out_channels=4)
    maps = torch.randn(2, 3, height, width)
    wanted = projected_by_hand(maps.double().numpy(), neck.conv.weight.detach().double().numpy())
    assert neck(maps).detach().numpy() == pytest.approx(wanted, abs=1e-5)
    assert torch.equal(neck((torch.zeros(2, 1, 9, 9), maps)), neck(maps)), "of several maps the last counts"


def test_projection_gradients_reach_every_parameter(without_gradient):
    neck = GridProjection(in_channels=3, out_channels=4)
    neck(torch.randn(2, 3, 4, 4)).sum().backward()
    assert without_gradient(neck) == []


@pytest.mark.parametrize("shape", [(2, 5, 4, 4), (2, 3, 1, 4), (3, 4, 4)])
def test_projection_refuses_another_map(shape: tuple[int, ...]):
    with pytest.raises(
        ValueError, match=r"GridProjection expects a map of shape \(N, 3, >= 2, >= 2\), got \("
    ) as caught:
        GridProjection(in_channels=3, out_channels=4)(torch.zeros(shape))
    assert f"got {shape}. Set its in_channels" in str(caught.value)


def test_fusion_is_the_mean_over_the_frames_of_a_clip():
    features = np.random.default_rng(0).normal(size=(2, 3, 4, 5, 2, 2))
    wanted = np.array([[sum(clip) / 4 for clip in video] for video in features])
    assert MeanFusion()(torch.from_numpy(features)).numpy() == pytest.approx(wanted)


def test_fusion_of_one_frame_is_that_frame():
    features = torch.randn(2, 3, 1, 5, 2, 2)
    assert torch.equal(MeanFusion()(features), features[:, :, 0])
