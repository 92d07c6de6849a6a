"""Pooling the predictions of the clips of a video: G in Eq. 4 of the paper, compared in its Table 3."""

import math

import torch
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.registry import MODELS


class ClipAggregator(nn.Module):
    """Check the clip logits; subclasses pool them. For one clip every aggregator is the identity."""

    def forward(self, clip_logits: Tensor) -> Tensor:
        """Pool over the clips, always in float32.

        Args:
            clip_logits: Logits of every text and clip, (M, K, C).

        Returns:
            Logits of every text and its whole video, (M, C).

        Raises:
            OptionError: If ``clip_logits`` does not have three dimensions, or has no clip.
        """
        if clip_logits.ndim != 3 or clip_logits.shape[1] == 0:
            raise OptionError(
                f"{type(self).__name__} expects clip_logits of shape (M, K, C) with K >= 1, got "
                f"{tuple(clip_logits.shape)}. A single clip needs K = 1: logits[:, None]."
            )
        return self.pool(clip_logits.float())

    def pool(self, clip_logits: Tensor) -> Tensor:
        """Pool (M, K, C) into (M, C)."""
        raise NotImplementedError


@MODELS.register_module()
class MeanAggregator(ClipAggregator):
    """The mean of the logits over the clips.

    >>> MeanAggregator()(torch.tensor([[[1.0], [3.0]]])).tolist()
    [[2.0]]
    """

    def pool(self, clip_logits: Tensor) -> Tensor:
        """Pool (M, K, C) into (M, C)."""
        return clip_logits.mean(dim=1)


@MODELS.register_module()
class MaxAggregator(ClipAggregator):
    """The largest logit of each class over the clips.

    >>> MaxAggregator()(torch.tensor([[[1.0], [3.0]]])).tolist()
    [[3.0]]
    """

    def pool(self, clip_logits: Tensor) -> Tensor:
        """Pool (M, K, C) into (M, C)."""
        return clip_logits.amax(dim=1)


@MODELS.register_module()
class LogSumExpAggregator(ClipAggregator):
    """The logarithm of the mean over the clips of the exponential of the logits (Eq. 5 of the paper).

    Eq. 5 then normalizes over the classes, as a softmax of these logits does; so the loss of Eq. 6 is plain cross entropy
    of the result. Using the mean instead of the sum of Eq. 5 shifts all classes equally, changes no probability, and
    makes pooling one clip the identity.

    >>> LogSumExpAggregator()(torch.tensor([[[0.0], [math.log(3)]]])).exp().round(decimals=4).tolist()
    [[2.0]]
    """

    def pool(self, clip_logits: Tensor) -> Tensor:
        """Pool (M, K, C) into (M, C)."""
        return torch.logsumexp(clip_logits, dim=1) - math.log(clip_logits.shape[1])


@MODELS.register_module()
class QueryWeightedAggregator(ClipAggregator):
    """The mean of the logits over the clips, weighted by a softmax of these logits over the clips.

    Of cosine similarities this is query scoring (Bain et al., "A CLIP-Hitchhiker's Guide to Long Video Retrieval", 2022): the
    similarity of the text and the mean of the clips' vectors, weighted by how similar each is to the text.

    Args:
        temperature: Divides the logits in the softmax: a small one approaches the maximum, a large one the mean.

    Raises:
        OptionError: If the temperature is not above 0.

    >>> round(
    ...     float(QueryWeightedAggregator(temperature=1.0)(torch.tensor([[[0.0], [math.log(3)]]]))), 4
    ... )  # 0.75 · log 3
    0.824
    """

    def __init__(self, *, temperature: float) -> None:
        super().__init__()
        if temperature <= 0:
            raise OptionError(f"QueryWeightedAggregator expects a temperature above 0, got {temperature}.")
        self.temperature = temperature

    def pool(self, clip_logits: Tensor) -> Tensor:
        """Pool (M, K, C) into (M, C)."""
        weights = (clip_logits / self.temperature).softmax(dim=1)
        return (weights * clip_logits).sum(dim=1)
