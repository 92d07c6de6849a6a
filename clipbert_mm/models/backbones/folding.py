"""Frozen batch norms folded into the preceding convolution, which saves their pass over the maps and their activations."""

import itertools
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn


class FoldedConv2d(nn.Conv2d):
    """A convolution that applies the frozen batch norm after it through its weights; the names of the weights stay."""

    frozen_norm: tuple["FoldedNorm"]
    """The batch norm; the tuple keeps torch from registering it twice."""

    def forward(self, maps: Tensor) -> Tensor:
        """Convolve and normalize maps (N, C, H, W)."""
        (norm,) = self.frozen_norm
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)  # (C',)
        shift = norm.bias - norm.running_mean * scale
        if self.bias is not None:
            shift = shift + self.bias * scale
        return self._conv_forward(maps, self.weight * scale[:, None, None, None], shift)


class FoldedNorm(nn.Module):
    """The statistics, scales and shifts of a batch norm that the preceding convolution applies.

    It does not inherit from a batch norm, so that no tool converts it into another kind of batch norm.
    """

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor
    eps: float

    def forward(self, maps: Tensor) -> Tensor:
        """Return the maps as they are."""
        return maps

    def train(self, mode: bool = True) -> "FoldedNorm":
        """Stay in eval mode, as all frozen modules do."""
        return super().train(False)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any) -> None:  # noqa: ANN401
        """Ignore the number of batches seen, which some libraries save and frozen statistics do not need."""
        state_dict.pop(f"{prefix}num_batches_tracked", None)
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def fold_frozen_norms(resnet: nn.Module) -> int:
    """Fold the frozen batch norms of a ResNet into the preceding convolutions.

    Args:
        resnet: A ResNet of mmpretrain, with ``norm_eval=True``. In its blocks ``bn1`` follows ``conv1`` and so on.

    Returns:
        The number of folded norms. Norms with trainable scales or shifts stay as they are.
    """
    count = 0
    for conv, norm in _pairs(resnet):
        if any(parameter.requires_grad for parameter in norm.parameters()):
            continue
        conv.__class__, norm.__class__ = FoldedConv2d, FoldedNorm  # type: ignore[assignment]
        conv.frozen_norm = (norm,)  # type: ignore[assignment]
        del norm.num_batches_tracked
        count += 1
    return count


def _pairs(resnet: nn.Module) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    """Find each convolution with the batch norm that directly follows it."""
    for module in resnet.modules():
        if isinstance(module, nn.Sequential):
            pairs: list[tuple[Any, Any]] = list(itertools.pairwise(module))
        else:
            pairs = [(getattr(module, f"conv{i}", None), getattr(module, f"bn{i}", None)) for i in (1, 2, 3)]
        for conv, norm in pairs:
            if type(conv) is nn.Conv2d and type(norm) is nn.BatchNorm2d:
                yield conv, norm
