"""The joint encoder over many pairs of a text and a video, without padding and without what nobody reads."""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders.joint_encoder import JointEncoder

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Data types that the layers may compute in, by name."""
KNOWN_LAYERS = ("bert", "electra", "roberta")
"""Architectures with BERT's layers, where pairs share projections of the first layer and the last layer computes only [CLS]."""
TOKENS_PER_PASS = {"cpu": 1024, "cuda": 65536}
"""Tokens of a forward pass by device type, on a CPU as many as its caches hold, on a GPU enough to keep it busy."""


@dataclass(frozen=True)
class TokenBatch:
    """Embedded texts of one length, or embedded clips, ready to be paired.

    Args:
        states: Embedded tokens, (n, N, D).
        projections: Query, key and value of the first layer, (n, N, D) each, which do not depend on the other half of the
            pair; empty for encoders whose layers are not of :data:`KNOWN_LAYERS`.
    """

    states: Tensor
    projections: tuple[Tensor, ...]

    def concat_pairs(self, other: "TokenBatch", index: Tensor, other_index: Tensor) -> tuple[Tensor, ...]:
        """Concatenate sequences of this batch with sequences of another one.

        Args:
            other: The batch of the second halves.
            index: Sequence of this batch in each pair, (P,).
            other_index: Sequence of the other batch in each pair, (P,).

        Returns:
            Joint states, followed by the joint projections if there are any, (P, L+S, D) each.
        """
        left, right = ((batch.states, *batch.projections) for batch in (self, other))
        return tuple(torch.cat([a[index], b[other_index]], dim=1) for a, b in zip(left, right, strict=True))


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


@dataclass(frozen=True)
class EncodedTexts:
    """Texts that are embedded once, in groups of equal length.

    Args:
        groups: The texts of each length.
        lengths: Length of each text, (M,).
        positions: Position of each text in its group, (M,).
    """

    groups: dict[int, TokenBatch]
    lengths: Tensor
    positions: Tensor


class PairEncoder:
    """Compute ``encoder.pool(encoder(...))`` for any pairs of texts and videos at less cost; gradients in training mode only.

    Texts are embedded once, and sequences are packed without padding, so no mask is needed. The first layer's query, key and
    value are computed once per text and once per clip instead of once per pair, and the last layer for [CLS] alone, or for the
    text alone if the states of its tokens are asked for (:meth:`text_states`). The weights are those of the encoder's own
    modules, copied only for another precision. An encoder whose layers are not of :data:`KNOWN_LAYERS` runs its own layers, one
    sequence length at a time; ``shares_layers`` is False then.

    Args:
        encoder: A joint encoder, in eval mode or without dropout.
        precision: What the layers compute in: "fp32" (the weights as they are), "bf16" or "fp16".
        tokens_per_pass: Most tokens in one forward pass, which bounds memory; None for :data:`TOKENS_PER_PASS`.

    Raises:
        OptionError: If the precision is unknown, or the encoder is in training mode and has dropout.
    """

    def __init__(self, encoder: JointEncoder, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> None:
        if precision not in PRECISIONS:
            raise OptionError(f"PairEncoder expects a precision of {', '.join(PRECISIONS)}, got {precision!r}.")
        if any(isinstance(part, nn.Dropout) and part.training and part.p for part in encoder.modules()):
            raise OptionError(
                "PairEncoder applies no dropout, so it needs an encoder in eval mode or one without dropout. Call model.eval()."
            )
        self.encoder = encoder
        self.precision = precision
        self.dtype = encoder.word_embeddings.dtype if precision == "fp32" else PRECISIONS[precision]
        self.tokens_per_pass = tokens_per_pass or TOKENS_PER_PASS.get(self.device.type, TOKENS_PER_PASS["cuda"])
        layers: Any = encoder.bert.encoder
        self.layers = layers if precision == "fp32" else copy.deepcopy(layers).to(self.dtype)
        config = encoder.bert.config
        position_type = getattr(config, "position_embedding_type", None) or "absolute"
        self.shares_layers = config.model_type in KNOWN_LAYERS and position_type == "absolute"

    @property
    def device(self) -> torch.device:
        """The device of the encoder's weights."""
        return self.encoder.word_embeddings.device

    def encode_texts(self, texts: Sequence[Tensor | np.ndarray]) -> EncodedTexts:
        """Embed texts, int64 token ids (L,) each, [CLS] first."""
        lengths = [len(text) for text in texts]
        groups, positions = {}, torch.empty(len(texts), dtype=torch.long)
        for length in sorted(set(lengths)):
            members = [i for i, other in enumerate(lengths) if other == length]
            ids = torch.stack([torch.as_tensor(texts[i], device=self.device) for i in members])  # (n, L)
            with self._gradients():
                groups[length] = self._batch(self.encoder.embed_texts(ids))
            positions[members] = torch.arange(len(members))
        return EncodedTexts(groups, torch.tensor(lengths), positions)

    def __call__(self, texts: EncodedTexts, visual_tokens: Tensor, text_index: Tensor, video_index: Tensor) -> Tensor:
        """Encode each pair of a text and a video, one clip at a time.

        Args:
            texts: The M texts.
            visual_tokens: Visual tokens, (V, K, S, D), on any device.
            text_index: Text of each pair, (P,), on the CPU.
            video_index: Video of each pair, (P,), on the CPU.

        Returns:
            Pooled [CLS] states, (P, K, D), in the precision of the encoder's own weights.
        """
        with self._gradients():
            return self._encode(texts, visual_tokens, text_index, video_index)

    def _encode(self, texts: EncodedTexts, visual_tokens: Tensor, text_index: Tensor, video_index: Tensor) -> Tensor:
        clips, width, dtype = visual_tokens.shape[1], visual_tokens.shape[3], self.encoder.word_embeddings.dtype
        cls = torch.empty(len(text_index) * clips, width, dtype=dtype, device=self.device)
        for indices, packed in self._packed(texts, visual_tokens, text_index, video_index):
            cls[indices.to(self.device)] = self._cls_states(packed).to(dtype)
        return self.encoder.pool(cls.unflatten(0, (-1, clips))[:, :, None])  # (P, K, D)

    def text_states(self, text_ids: Tensor, text_mask: Tensor, visual_tokens: Tensor, video_index: Tensor) -> Tensor:
        """Encode each text with each clip of its video, as a call of the joint encoder does.

        Args:
            text_ids: Token ids, int64 (M, L), [CLS] first.
            text_mask: 1 for tokens, 0 for padding, (M, L).
            visual_tokens: Visual tokens, (B, K, S, D).
            video_index: Video of each text, (M,).

        Returns:
            Last states of the text tokens with each clip, (M, K, L, D); zero at padding.
        """
        (texts, length), (clips, cells) = text_ids.shape, visual_tokens.shape[1:3]
        order, padded = [], []
        with self._gradients():
            encoded = self.encode_texts(without_padding(text_ids, text_mask))
            for indices, packed in self._packed(encoded, visual_tokens, torch.arange(texts), video_index.cpu()):
                order.append(indices)
                padded += [F.pad(part, (0, 0, 0, length - part.shape[1])) for part in self._text_states(packed, cells)]
            positions = torch.cat(order).argsort().to(self.device)
            return torch.cat(padded)[positions].to(self.encoder.word_embeddings.dtype).unflatten(0, (texts, clips))

    def _packed(
        self, texts: EncodedTexts, visual_tokens: Tensor, text_index: Tensor, video_index: Tensor
    ) -> Iterator[tuple[Tensor, "PackedTokens"]]:
        """Yield forward passes: which sequences, of all pairs with each clip, and their tokens, both the shortest first."""
        clips, cells = visual_tokens.shape[1:3]
        clip_tokens = self._batch(visual_tokens.to(self.device).flatten(0, 1))  # (V·K, S, D)
        text_of = text_index.repeat_interleave(clips)  # (P·K,)
        clip_of = (video_index[:, None] * clips + torch.arange(clips)).flatten()  # (P·K,)
        for indices in self._passes(texts.lengths[text_of] + cells):
            lengths = texts.lengths[text_of[indices]]
            parts = [
                texts.groups[length].concat_pairs(
                    clip_tokens, texts.positions[text_of[same]].to(self.device), clip_of[same].to(self.device)
                )
                for length, same in ((int(length), indices[lengths == length]) for length in lengths.unique())
            ]
            yield indices, PackedTokens.from_parts(parts)

    def _gradients(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.encoder.training)

    def _passes(self, lengths: Tensor) -> list[Tensor]:
        """Divide sequences of these lengths, (n,), into forward passes: the indices of each, the shortest sequences first."""
        order = lengths.argsort(stable=True)
        passes = (lengths[order].cumsum(dim=0) - 1) // self.tokens_per_pass  # the pass in which each sequence ends
        return list(order.split(passes.unique_consecutive(return_counts=True)[1].tolist()))

    def _batch(self, states: Tensor) -> TokenBatch:
        """Compute what embedded tokens, (n, N, D), need of the first layer before they are paired."""
        states = states.to(self.dtype)
        if not self.shares_layers or len(self.layers.layer) == 1:
            return TokenBatch(states, ())
        return TokenBatch(states, project(self.layers.layer[0].attention.self, states))

    def _cls_states(self, packed: PackedTokens) -> Tensor:
        """Return the last [CLS] states, (P, D), of packed sequences."""
        if not self.shares_layers:
            return torch.cat([part[:, 0] for part in self._by_own_layers(packed)])
        packed = self._before_last(packed)
        return last_cls(self.layers.layer[-1], packed, packed.states)

    def _text_states(self, packed: PackedTokens, cells: int) -> list[Tensor]:
        """Return the last states of the text tokens, (n, N - cells, D) for each length."""
        if not self.shares_layers:
            return [part[:, : part.shape[1] - cells] for part in self._by_own_layers(packed)]
        return last_text(self.layers.layer[-1], self._before_last(packed), cells)

    def _by_own_layers(self, packed: PackedTokens) -> list[Tensor]:
        """Return the last states of packed sequences, (n, N, D) for each length, by the layers' own forward methods."""
        parts = packed.unpack(packed.states)
        masks = [part.new_zeros(len(part), 1, 1, part.shape[1]) for part in parts]  # additive: zero hides nothing
        return [
            self.layers(part, attention_mask=mask).last_hidden_state for part, mask in zip(parts, masks, strict=True)
        ]

    def _before_last(self, packed: PackedTokens) -> PackedTokens:
        """Run all layers but the last one."""
        for layer in self.layers.layer[:-1]:
            attention = layer.attention.self
            states, projections = packed.states, packed.projections or project(attention, packed.states)
            packed = PackedTokens(feed_forward(layer, attend(attention, packed, projections), states), packed.sizes, ())
        return packed


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

    A score q·(W x + b) is (Wᵀ q)·x plus a term that all tokens share, which the softmax drops; and a mean of values is the
    value of the mean. So the matrices multiply one vector per head instead of one per token.

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
    query = attention.query(first).unflatten(1, heads)  # (P, H, D/H)
    query = torch.einsum("phc,hcd->phd", query, attention.key.weight.unflatten(0, heads))  # Wᵀ q, (P, H, D)
    mixed = []
    for part, part_query in zip(sequences, query.split([len(part) for part in sequences]), strict=True):
        weights = (part_query @ part.transpose(1, 2) * heads[1] ** -0.5).softmax(dim=2)  # (n, H, N)
        mixed.append(weights @ part)  # (n, H, D)
    context = torch.einsum("phd,hcd->phc", torch.cat(mixed), attention.value.weight.unflatten(0, heads))  # (P, H, D/H)
    context = context.flatten(1) + attention.value.bias
    if torch.is_grad_enabled():
        # The bias of the keys has no effect, but distributed training expects a gradient of each parameter.
        context = context + 0.0 * attention.key.bias
    return feed_forward(layer, context, first)
