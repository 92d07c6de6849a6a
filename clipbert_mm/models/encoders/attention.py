"""Attention over sequences without padding, and without outputs, keys and values that nobody needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.models.encoders.layer_kinds import LayerKind


@dataclass(frozen=True)
class PackedTokens:
    """Sequences of several shapes, one after the other without padding, so that token-wise layers run once for all of them.

    Args:
        states: States of all tokens, (tokens, D).
        sizes: Number and length of the sequences of each shape, in their order.
        projections: Query, key and value of the first layer, (tokens, D) each; may be empty.
    """

    states: Tensor
    sizes: tuple[tuple[int, int], ...]
    projections: tuple[Tensor, ...]

    @classmethod
    def from_parts(cls, parts: Sequence[tuple[Tensor, ...]]) -> "PackedTokens":
        """Pack the results of :meth:`~clipbert_mm.models.encoders.pair_encoder.TokenBatch.concat_pairs`, one for each shape."""
        sizes = tuple((part[0].shape[0], part[0].shape[1]) for part in parts)
        states, *projections = (torch.cat([each.flatten(0, 1) for each in kind]) for kind in zip(*parts, strict=True))
        return cls(states, sizes, tuple(projections))

    def unpack(self, tokens: Tensor) -> list[Tensor]:
        """Split (tokens, ...) into (n, N, ...) for each shape."""
        parts = tokens.split([count * length for count, length in self.sizes])
        return [part.unflatten(0, size) for part, size in zip(parts, self.sizes, strict=True)]


def without_padding(text_ids: Tensor, text_mask: Tensor) -> list[Tensor]:
    """Return the token ids of each text, (L,) each, of padded ones and their mask, (M, L) each."""
    return [ids[:length] for ids, length in zip(text_ids, text_mask.sum(dim=1).tolist(), strict=True)]


def real_tokens(visual_tokens: Tensor) -> Tensor:
    """Return which visual tokens, (..., S, D), are no padding, bool (..., S).

    Clips with fewer tokens than others of a batch are padded by tokens of zeros. An encoder adds position or type embeddings to
    each token, so a real token is never all zeros.
    """
    return visual_tokens.any(dim=-1)


def joint_mask(text_mask: Tensor, visual_tokens: Tensor) -> Tensor:
    """Return which tokens of each text with each clip of its video are no padding.

    Args:
        text_mask: 1 for tokens, 0 for padding, (M, L).
        visual_tokens: Tokens of the clips of the video of each text, (M, K, S, D).

    Returns:
        1 for tokens, 0 for padding, (M·K, L+S).
    """
    texts = text_mask[:, None].expand(-1, visual_tokens.shape[1], -1)  # (M, K, L)
    return torch.cat([texts, real_tokens(visual_tokens).to(text_mask.dtype)], dim=2).flatten(0, 1)


def additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what to add to the scores of an attention, (n, 1, 1, N), for a mask of 1 for tokens and 0 for padding, (n, N)."""
    return ((1.0 - mask.to(dtype)) * torch.finfo(dtype).min)[:, None, None]


def project(attention: Any, states: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
    """Return query, key and value of what a self-attention reads, (..., D) each."""
    return attention.query(states), attention.key(states), attention.value(states)


def attend(
    attention: Any,  # noqa: ANN401
    packed: PackedTokens,
    projections: Sequence[Tensor],
    hidden: Sequence[int] | None = None,
) -> Tensor:
    """Run self-attention within each sequence.

    Args:
        attention: The module with the projections of a self-attention.
        packed: The layout of the sequences.
        projections: Query, key and value, (tokens, D) each.
        hidden: Tokens at the end of the sequences of each shape whose output is not computed; None for none.

    Returns:
        Attention output of the other tokens, (tokens, D).
    """
    heads = (attention.num_attention_heads, attention.attention_head_size)
    contexts = []
    unpacked = zip(*(packed.unpack(each) for each in projections), strict=True)
    for parts, count in zip(unpacked, hidden or [0] * len(packed.sizes), strict=True):  # of one shape
        query, key, value = (part.unflatten(2, heads).transpose(1, 2) for part in parts)  # (n, H, N, D/H)
        query = query[:, :, : query.shape[2] - count]
        contexts.append(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(contexts)


def run_layer(layer: LayerKind, packed: PackedTokens) -> PackedTokens:
    """Run a layer for all tokens."""
    projections = packed.projections or project(layer.attention, layer.read(packed.states))
    context = attend(layer.attention, packed, projections)
    return PackedTokens(layer.finish(context, packed.states), packed.sizes, ())


def last_text(layer: LayerKind, packed: PackedTokens, cells: Sequence[int]) -> list[Tensor]:
    """Run a layer without the outputs of the last tokens of each sequence.

    Args:
        layer: The last layer.
        packed: The sequences.
        cells: Number of these tokens in the sequences of each shape.

    Returns:
        States of the other tokens after this layer, (n, N - cells, D) for each shape.
    """
    texts = [part[:, : part.shape[1] - count] for part, count in zip(packed.unpack(packed.states), cells, strict=True)]
    projections = packed.projections or project(layer.attention, layer.read(packed.states))
    context = attend(layer.attention, packed, projections, cells)
    states = layer.finish(context, torch.cat([text.flatten(0, 1) for text in texts]))
    return PackedTokens(states, tuple((text.shape[0], text.shape[1]) for text in texts), ()).unpack(states)


def last_cls(layer: LayerKind, packed: PackedTokens) -> Tensor:
    """Run a layer for the first token of each sequence alone, without computing keys and values of the other tokens.

    Returns:
        States of the first tokens after this layer, (P, D).
    """
    attention = layer.attention
    heads = (attention.num_attention_heads, attention.attention_head_size)
    sequences = packed.unpack(layer.read(packed.states))  # (n, N, D) of each shape
    queries = attention.query(torch.cat([part[:, 0] for part in sequences])).unflatten(1, heads)  # (P, H, D/H)
    context = [
        absorbed(attention, query[:, None], part)
        for query, part in zip(queries.split([len(part) for part in sequences]), sequences, strict=True)
    ]
    first = torch.cat([part[:, 0] for part in packed.unpack(packed.states)])  # (P, D)
    return layer.finish(torch.cat(context)[:, 0], first)


def absorbed(attention: Any, query: Tensor, tokens: Tensor) -> Tensor:  # noqa: ANN401
    """Attend to tokens without computing their keys and values.

    A score q·(W x + b) is (Wᵀ q)·x plus a term that all tokens share, which the softmax drops; and a mean of values is the
    value of the mean. So the matrices multiply one vector per query and head instead of one per token.

    Args:
        attention: The inner module of an attention.
        query: Queries, (c, N, H, D/H).
        tokens: Tokens, (c, S, D').

    Returns:
        Attention output, (c, N, D).
    """
    heads = query.shape[2:]
    query = torch.einsum("cnhe,hed->cnhd", query, attention.key.weight.unflatten(0, heads)) * heads[1] ** -0.5
    weights = (query.flatten(1, 2) @ tokens.transpose(1, 2)).softmax(dim=2)  # (c, N·H, S)
    mixed = (weights @ tokens).unflatten(1, query.shape[1:3])  # (c, N, H, D')
    context = torch.einsum("cnhd,hed->cnhe", mixed, attention.value.weight.unflatten(0, heads))
    context = context.flatten(2)
    if attention.value.bias is None:  # of a model without these biases
        return context
    context = context + attention.value.bias
    if torch.is_grad_enabled():
        # The bias of the keys has no effect, but distributed training expects a gradient of each parameter.
        context = context + 0.0 * attention.key.bias
    return context
