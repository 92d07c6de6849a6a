"""A joint encoder over many pairs of a text and a video, without padding and without what nobody reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.models.encoders.attention import (
    PackedTokens,
    last_cls,
    last_text,
    project,
    real_tokens,
    run_layer,
    without_padding,
)
from clipbert_mm.models.encoders.base_pair_encoder import BasePairEncoder, EncodedTexts
from clipbert_mm.models.encoders.layer_kinds import LAYER_KINDS

if TYPE_CHECKING:
    from clipbert_mm.models.encoders.joint_encoder import JointEncoder
    from clipbert_mm.models.encoders.vilt_encoder import ViltEncoder


@dataclass(frozen=True)
class TokenBatch:
    """Embedded texts of one length, or embedded clips, ready to be paired.

    Args:
        states: Embedded tokens, (n, N, D).
        projections: Query, key and value of the first layer, (n, N, D) each, which do not depend on the other half of the
            pair; empty for encoders whose layers are not of :data:`~clipbert_mm.models.encoders.layer_kinds.LAYER_KINDS`.
    """

    states: Tensor
    projections: tuple[Tensor, ...]

    def select(self, index: Tensor, real: Tensor, count: int) -> "TokenBatch":
        """Return some sequences without their padding.

        Args:
            index: The sequences, (P,).
            real: Which tokens are no padding, bool (n, N).
            count: Number of these in each of the sequences.
        """
        states, *projections = (
            each[index] if count == each.shape[1] else each[index][real[index]].unflatten(0, (len(index), count))
            for each in (self.states, *self.projections)
        )
        return TokenBatch(states, tuple(projections))

    def concat_pairs(self, other: "TokenBatch", index: Tensor) -> tuple[Tensor, ...]:
        """Concatenate sequences of this batch with those of another one.

        Args:
            other: The second half of each pair, P sequences.
            index: Sequence of this batch in each pair, (P,).

        Returns:
            Joint states, followed by the joint projections if there are any, (P, L+S, D) each.
        """
        left, right = ((batch.states, *batch.projections) for batch in (self, other))
        return tuple(torch.cat([a[index], b], dim=1) for a, b in zip(left, right, strict=True))


class PairEncoder(BasePairEncoder):
    """Compute ``encoder.pool(encoder(...))`` for any pairs of texts and videos at less cost; gradients in training mode only.

    Texts are embedded once, and sequences are packed without padding, so no mask is needed. The first layer's query, key and
    value are computed once per text and once per clip instead of once per pair, and the last layer for [CLS] alone, or for the
    text alone if the states of its tokens are asked for (:meth:`text_states`). Visual tokens of zeros are padding, which is
    left out. The weights are those of the encoder's own modules, copied only for another precision. An encoder whose layers are
    not of :data:`~clipbert_mm.models.encoders.layer_kinds.LAYER_KINDS` runs its own layers, one sequence length at a time;
    ``shares_layers`` is False then.

    Args:
        encoder: A joint encoder, in eval mode or without dropout.
        precision: What the layers compute in: "fp32" (the weights as they are), "bf16" or "fp16".
        tokens_per_pass: Most tokens in one forward pass, which bounds memory; None for a default by device.

    Raises:
        OptionError: If the precision is unknown, or the encoder is in training mode and has dropout.
    """

    encoder: Union["JointEncoder", "ViltEncoder"]

    def __init__(
        self,
        encoder: Union["JointEncoder", "ViltEncoder"],
        *,
        precision: str = "fp32",
        tokens_per_pass: int | None = None,
    ) -> None:
        super().__init__(encoder, encoder.transformer, precision, tokens_per_pass)
        config = encoder.text_config
        position_type = getattr(config, "position_embedding_type", None) or "absolute"
        self.shares_layers = config.model_type in LAYER_KINDS and position_type == "absolute"
        kind = LAYER_KINDS.get(config.model_type)
        self._sharing = [kind(layer) for layer in self.layers.layer] if kind is not None else []

    def encode_texts(self, texts: Sequence[Tensor | np.ndarray]) -> EncodedTexts:
        """Embed texts, int64 token ids (L,) each, [CLS] first."""
        lengths, positions = torch.tensor([len(text) for text in texts]), torch.empty(len(texts), dtype=torch.long)
        groups = {}
        for indices, ids in self._by_length(texts):
            with self._gradients():
                groups[ids.shape[1]] = self._batch(self.encoder.embed_texts(ids))
            positions[indices] = torch.arange(len(indices))
        return EncodedTexts(groups, lengths, positions, self._vectors(texts))

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
        for indices, packed, _ in self._packed(texts, visual_tokens, text_index, video_index):
            cls[indices.to(self.device)] = self._cls_states(packed).to(dtype)
        return self.encoder.pool(self.encoder.normalize(cls).unflatten(0, (-1, clips))[:, :, None])  # (P, K, D)

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
        (texts, length), clips, dtype = text_ids.shape, visual_tokens.shape[1], self.encoder.word_embeddings.dtype
        order, padded = [], []
        with self._gradients():
            encoded = self.encode_texts(without_padding(text_ids, text_mask))
            for indices, packed, cells in self._packed(encoded, visual_tokens, torch.arange(texts), video_index.cpu()):
                order.append(indices)
                for part in self._text_states(packed, cells):
                    padded.append(F.pad(self.encoder.normalize(part.to(dtype)), (0, 0, 0, length - part.shape[1])))
            positions = torch.cat(order).argsort().to(self.device)
            return torch.cat(padded)[positions].unflatten(0, (texts, clips))

    def _packed(
        self, texts: EncodedTexts, visual_tokens: Tensor, text_index: Tensor, video_index: Tensor
    ) -> Iterator[tuple[Tensor, PackedTokens, list[int]]]:
        """Yield forward passes: which sequences, of all pairs with each clip, their tokens, and the visual ones of each shape.

        The shortest sequences come first.
        """
        clips = visual_tokens.shape[1]
        visual_tokens = visual_tokens.flatten(0, 1)
        everything = torch.ones(visual_tokens.shape[:2], dtype=torch.bool)
        real = real_tokens(visual_tokens) if self.encoder.pads_tokens else everything  # (V·K, S)
        counts, real = real.sum(dim=1).cpu(), real.to(self.device)
        clip_tokens = self._batch(visual_tokens.to(self.device))  # (V·K, S, D)
        text_of = text_index.repeat_interleave(clips)  # (P·K,)
        clip_of = (video_index[:, None] * clips + torch.arange(clips)).flatten()  # (P·K,)
        shapes = torch.stack([texts.lengths[text_of], counts[clip_of]], dim=1)  # (P·K, 2)
        for indices in self._passes(shapes.sum(dim=1)):
            order, parts, cells = [], [], []
            for length, count in shapes[indices].unique(dim=0).tolist():
                same = indices[(shapes[indices] == torch.tensor([length, count])).all(dim=1)]
                selected = clip_tokens.select(clip_of[same].to(self.device), real, count)
                positions = texts.positions[text_of[same]].to(self.device)
                order.append(same)
                parts.append(texts.groups[length].concat_pairs(selected, positions))
                cells.append(count)
            yield torch.cat(order), PackedTokens.from_parts(parts), cells

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
        first = self._sharing[0]
        return TokenBatch(states, project(first.attention, first.read(states)))

    def _cls_states(self, packed: PackedTokens) -> Tensor:
        """Return the states of [CLS] after the last layer, (P, D), of packed sequences."""
        if not self.shares_layers:
            return torch.cat([part[:, 0] for part in self._by_own_layers(packed)])
        return last_cls(self._sharing[-1], self._before_last(packed))

    def _text_states(self, packed: PackedTokens, cells: Sequence[int]) -> list[Tensor]:
        """Return the states of the text tokens after the last layer, (n, N - cells, D) for each shape."""
        if not self.shares_layers:
            parts = zip(self._by_own_layers(packed), cells, strict=True)
            return [part[:, : part.shape[1] - count] for part, count in parts]
        return last_text(self._sharing[-1], self._before_last(packed), cells)

    def _by_own_layers(self, packed: PackedTokens) -> list[Tensor]:
        """Return the last states of packed sequences, (n, N, D) for each shape, by the layers' own forward methods."""
        parts = packed.unpack(packed.states)
        masks = [part.new_zeros(len(part), 1, 1, part.shape[1]) for part in parts]  # additive: zero hides nothing
        return [
            self.layers(part, attention_mask=mask).last_hidden_state for part, mask in zip(parts, masks, strict=True)
        ]

    def _before_last(self, packed: PackedTokens) -> PackedTokens:
        """Run all layers but the last one."""
        for layer in self._sharing[:-1]:
            packed = run_layer(layer, packed)
        return packed
