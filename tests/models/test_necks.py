"""The necks, against loops written out."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.models import Conv2Plus1DFusion, Conv3DFusion, GridProjection, MeanFusion

CONVOLUTIONAL = [Conv3DFusion, Conv2Plus1DFusion]


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


def conv3d_by_hand(fusion: Conv3DFusion, clip: Tensor) -> Tensor:
    """Fuse one clip (T, D, h, w): each frame sees itself, the one before and the one after, zeros outside."""
    weight, nothing = fusion.conv.weight, torch.zeros_like(clip[0])
    total = torch.zeros_like(clip[0])
    for t in range(len(clip)):
        for step in (-1, 0, 1):
            frame = clip[t + step] if 0 <= t + step < len(clip) else nothing
            total = total + F.conv2d(frame[None], weight[:, :, step + 1], padding=1)[0]
    return total / len(clip)


def conv2plus1d_by_hand(fusion: Conv2Plus1DFusion, clip: Tensor) -> Tensor:
    """Fuse one clip (T, D, h, w): 3 x 3 over each frame, cut at zero, then each cell over three frames."""
    space, _, time = fusion.conv
    seen = F.conv2d(clip, space.weight[:, :, 0], padding=1).clamp(min=0)
    total = torch.zeros_like(clip[0])
    for t in range(len(clip)):
        for step in (-1, 0, 1):
            if 0 <= t + step < len(clip):
                total = total + torch.einsum("di,ihw->dhw", time.weight[:, :, step + 1, 0, 0], seen[t + step])
    return total / len(clip)


@pytest.mark.parametrize("length", [1, 2, 3])
@pytest.mark.parametrize(
    ("kind", "by_hand"), [(Conv3DFusion, conv3d_by_hand), (Conv2Plus1DFusion, conv2plus1d_by_hand)]
)
def test_convolutional_fusion_by_hand(kind: type, by_hand: Callable[..., Tensor], length: int):
    fusion = kind(channels=5).double()
    features = torch.randn(2, 3, length, 5, 4, 3, dtype=torch.float64)  # 2 videos, 3 clips
    wanted = torch.stack([torch.stack([by_hand(fusion, clip) for clip in video]) for video in features])
    torch.testing.assert_close(fusion(features), wanted)


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_a_clip_does_not_look_at_another(kind: type):
    fusion = kind(channels=5)
    features = torch.randn(2, 3, 2, 5, 4, 3)
    changed = features.clone()
    changed[0, 1] += 1
    same = fusion(changed).isclose(fusion(features)).flatten(2).all(dim=2)
    assert same.tolist() == [[True, False, True], [True, True, True]]


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_convolutional_fusion_sees_the_order_of_frames_and_the_mean_does_not(kind: type):
    features = torch.randn(1, 1, 3, 5, 4, 3)
    turned = features[:, :, [1, 0, 2]]
    fusion = kind(channels=5)
    assert (fusion(turned) - fusion(features)).abs().max() > 1e-3
    torch.testing.assert_close(MeanFusion()(turned), MeanFusion()(features))


def test_the_separable_convolution_has_the_parameters_of_the_full_one():
    full, separable = (sum(value.numel() for value in kind(channels=48).parameters()) for kind in CONVOLUTIONAL)
    assert full == 27 * 48**2
    assert 0.99 * full < separable <= full


@pytest.mark.parametrize("kind", CONVOLUTIONAL)
def test_convolutional_fusion_gradients_reach_every_parameter(kind: type, without_gradient: Callable):
    fusion = kind(channels=4)
    fusion.init_weights()
    fusion(torch.randn(1, 2, 3, 4, 3, 3)).pow(2).sum().backward()
    assert without_gradient(fusion) == []
