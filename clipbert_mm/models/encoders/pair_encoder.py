"""The joint encoder over many pairs of a text and a video, without padding and without what nobody reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.models.encoders.attention import (
    PackedTokens,
    attend,
    feed_forward,
    last_cls,
    last_text,
    project,
    without_padding,
)
from clipbert_mm.models.encoders.base_pair_encoder import BasePairEncoder, EncodedTexts

if TYPE_CHECKING:
    from clipbert_mm.models.encoders.joint_encoder import JointEncoder

KNOWN_LAYERS = ("bert", "electra", "roberta")
"""Architectures with BERT's layers, where pairs share projections of the first layer and the last layer computes only [CLS]."""


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


class PairEncoder(BasePairEncoder):
    """Compute ``encoder.pool(encoder(...))`` for any pairs of texts and videos at less cost; gradients in training mode only.

    Texts are embedded once, and sequences are packed without padding, so no mask is needed. The first layer's query, key and
    value are computed once per text and once per clip instead of once per pair, and the last layer for [CLS] alone, or for the
    text alone if the states of its tokens are asked for (:meth:`text_states`). The weights are those of the encoder's own
    modules, copied only for another precision. An encoder whose layers are not of :data:`KNOWN_LAYERS` runs its own layers, one
    sequence length at a time; ``shares_layers`` is False then.

    Args:
        encoder: A joint encoder, in eval mode or without dropout.
        precision: What the layers compute in: "fp32" (the weights as they are), "bf16" or "fp16".
        tokens_per_pass: Most tokens in one forward pass, which bounds memory; None for a default by device.

    Raises:
        OptionError: If the precision is unknown, or the encoder is in training mode and has dropout.
    """

    encoder: "JointEncoder"

    def __init__(self, encoder: "JointEncoder", *, precision: str = "fp32", tokens_per_pass: int | None = None) -> None:
        super().__init__(encoder, encoder.bert.encoder, precision, tokens_per_pass)
        config = encoder.bert.config
        position_type = getattr(config, "position_embedding_type", None) or "absolute"
        self.shares_layers = config.model_type in KNOWN_LAYERS and position_type == "absolute"

    def encode_texts(self, texts: Sequence[Tensor | np.ndarray]) -> EncodedTexts:
        """Embed texts, int64 token ids (L,) each, [CLS] first."""
        lengths, positions = torch.tensor([len(text) for text in texts]), torch.empty(len(texts), dtype=torch.long)
        groups = {}
        for indices, ids in self._by_length(texts):
            with self._gradients():
                groups[ids.shape[1]] = self._batch(self.encoder.embed_texts(ids))
            positions[indices] = torch.arange(len(indices))
        return EncodedTexts(groups, lengths, positions)

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
