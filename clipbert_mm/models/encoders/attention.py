"""Attention of BERT-like layers over sequences without padding, and without outputs, keys and values that nobody needs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PackedTokens:
    """Sequences of several lengths, one after the other without padding, so that token-wise layers run once for all of them.

    Args:
        states: States of all tokens, (tokens, D).
        sizes: Number and length of the sequences of each length, in their order.
        projections: Query, key and value of the first layer, (tokens, D) each; may be empty.
    """

    states: Tensor
    sizes: tuple[tuple[int, int], ...]
    projections: tuple[Tensor, ...]

    @classmethod
    def from_parts(cls, parts: Sequence[tuple[Tensor, ...]]) -> "PackedTokens":
        """Pack the results of :meth:`TokenBatch.concat_pairs`, one for each length."""
        sizes = tuple((part[0].shape[0], part[0].shape[1]) for part in parts)
        states, *projections = (torch.cat([each.flatten(0, 1) for each in kind]) for kind in zip(*parts, strict=True))
        return cls(states, sizes, tuple(projections))

    def unpack(self, tokens: Tensor) -> list[Tensor]:
        """Split (tokens, ...) into (n, N, ...) for each length."""
        parts = tokens.split([count * length for count, length in self.sizes])
        return [part.unflatten(0, size) for part, size in zip(parts, self.sizes, strict=True)]


def without_padding(text_ids: Tensor, text_mask: Tensor) -> list[Tensor]:
    """Return the token ids of each text, (L,) each, of padded ones and their mask, (M, L) each."""
    return [ids[:length] for ids, length in zip(text_ids, text_mask.sum(dim=1).tolist(), strict=True)]


def project(attention: Any, states: Tensor) -> tuple[Tensor, ...]:  # noqa: ANN401
    """Return query, key and value of states, for a BERT layer's self-attention."""
    return attention.query(states), attention.key(states), attention.value(states)


def attend(attention: Any, packed: PackedTokens, projections: Sequence[Tensor], cells: int = 0) -> Tensor:  # noqa: ANN401
    """Run self-attention within each sequence.

    Args:
        attention: Self-attention of a BERT layer.
        packed: The layout of the sequences.
        projections: Query, key and value, (tokens, D) each.
        cells: Tokens at the end of each sequence whose output is not computed.

    Returns:
        Attention output of the other tokens, (tokens, D).
    """
    heads = (attention.num_attention_heads, attention.attention_head_size)
    contexts = []
    for parts in zip(*(packed.unpack(each) for each in projections), strict=True):  # of one length
        query, key, value = (part.unflatten(2, heads).transpose(1, 2) for part in parts)  # (n, H, N, D/H)
        query = query[:, :, : query.shape[2] - cells]
        contexts.append(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(contexts)


def feed_forward(layer: Any, context: Tensor, states: Tensor) -> Tensor:  # noqa: ANN401
    """Run the rest of a BERT layer after its attention, on states and attention output of one shape."""
    states = layer.attention.output(context, states)
    return layer.output(layer.intermediate(states), states)


def last_text(layer: Any, packed: PackedTokens, cells: int) -> list[Tensor]:  # noqa: ANN401
    """Run a BERT layer without the outputs of the last ``cells`` tokens of each sequence.

    Returns:
        States of the other tokens after this layer, (n, N - cells, D) for each length.
    """
    attention = layer.attention.self
    texts = [part[:, : part.shape[1] - cells] for part in packed.unpack(packed.states)]
    context = attend(attention, packed, packed.projections or project(attention, packed.states), cells)
    states = feed_forward(layer, context, torch.cat([text.flatten(0, 1) for text in texts]))
    return PackedTokens(states, tuple((text.shape[0], text.shape[1]) for text in texts), ()).unpack(states)


def last_cls(layer: Any, packed: PackedTokens, states: Tensor) -> Tensor:  # noqa: ANN401
    """Run a BERT layer for the first token of each sequence alone, without computing keys and values of the other tokens.

    Args:
        layer: The last BERT layer.
        packed: The layout of the sequences.
        states: States of all tokens, (tokens, D).

    Returns:
        States of the first tokens after this layer, (P, D).
    """
    attention = layer.attention.self
    heads = (attention.num_attention_heads, attention.attention_head_size)
    sequences = packed.unpack(states)  # (n, N, D) of each length
    first = torch.cat([part[:, 0] for part in sequences])  # (P, D)
    queries = attention.query(first).unflatten(1, heads).split([len(part) for part in sequences])
    context = [absorbed(attention, query[:, None], part) for query, part in zip(queries, sequences, strict=True)]
    return feed_forward(layer, torch.cat(context)[:, 0], first)


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
    context = context.flatten(2) + attention.value.bias
    if torch.is_grad_enabled():
        # The bias of the keys has no effect, but distributed training expects a gradient of each parameter.
        context = context + 0.0 * attention.key.bias
    return context
