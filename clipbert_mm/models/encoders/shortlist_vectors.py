"""Vectors for a joint encoder, whose paper has none: of texts and of clips, to choose which pairs it scores."""

import torch.nn.functional as F
from torch import Tensor, nn


class TokenPooling(nn.Module):
    """Map tokens one by one, average them, and project the mean to a unit vector.

    Args:
        hidden_size: Width D of the tokens.
        vector_size: Width P of the vector.
    """

    def __init__(self, *, hidden_size: int, vector_size: int) -> None:
        super().__init__()
        self.tokens = nn.Sequential(nn.LayerNorm(hidden_size), nn.Linear(hidden_size, 2 * hidden_size), nn.GELU())
        self.projection = nn.Linear(2 * hidden_size, vector_size)

    def forward(self, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return unit vectors, (..., P).

        Args:
            tokens: Tokens, (..., N, D).
            mask: 1 for tokens, 0 for padding, (..., N); None for no padding.
        """
        values = self.tokens(tokens)  # (..., N, 2·D)
        if mask is None:
            mean = values.mean(dim=-2)
        else:
            weights = mask.to(values.dtype) / mask.sum(dim=-1, keepdim=True)
            mean = (weights[..., None] * values).sum(dim=-2)
        return F.normalize(self.projection(mean), dim=-1)


class ShortlistVectors(nn.Module):
    """A projection of the embedded tokens of a text and one of the visual tokens of a clip, to unit vectors of one space.

    Neither reads the other, nor are tokens compared: the vector of a text knows which words are there and at which places, and
    hardly what belongs to what. That is enough to choose which pairs the joint encoder scores.

    Args:
        hidden_size: Width D of the tokens.
        vector_size: Width P of the vectors.
    """

    def __init__(self, *, hidden_size: int, vector_size: int) -> None:
        super().__init__()
        self.text = TokenPooling(hidden_size=hidden_size, vector_size=vector_size)
        self.clip = TokenPooling(hidden_size=hidden_size, vector_size=vector_size)
