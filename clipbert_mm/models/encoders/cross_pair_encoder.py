"""The cross-attention encoder over many pairs of a text and a video, without padding and without what nobody reads."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.models.encoders.attention import PackedTokens, absorbed, attend, project
from clipbert_mm.models.encoders.base_pair_encoder import BasePairEncoder, EncodedTexts

if TYPE_CHECKING:
    from clipbert_mm.models.encoders.cross_encoder import CrossEncoder


@dataclass(frozen=True)
class Block:
    """Pairs of one text length in which each clip has the same number of texts.

    Args:
        length: Length L of the texts.
        texts: Texts of each clip, (c, t).
        clips: The clips, (c,), numbered over all videos.
        targets: Position of each pair in the result, (c, t).
    """

    length: int
    texts: Tensor
    clips: Tensor
    targets: Tensor


class CrossPairEncoder(BasePairEncoder):
    """Compute ``encoder.pool(encoder(...))`` of a CrossEncoder for any pairs of texts and videos at less cost.

    Texts are read once up to the first cross-attention, pairs are computed without padding, and the last layer for the first
    token alone. Most of a pair's work is to project the hundreds of tokens of a frame to keys and values in each layer: they
    are computed once for all texts of a clip in a pass, or not at all where that is less work
    (:func:`~clipbert_mm.models.encoders.attention.absorbed`).

    Args:
        encoder: A cross-attention encoder, in eval mode or without dropout.
        precision: What the layers compute in: "fp32" (the weights as they are), "bf16" or "fp16".
        tokens_per_pass: Most text tokens in one forward pass, which bounds memory; None for a default by device.

    Raises:
        OptionError: If the precision is unknown, or the encoder is in training mode and has dropout.
    """

    encoder: "CrossEncoder"
    first_alone = True
    """Whether :meth:`outputs` takes the state of the first token alone, so that the last layer computes no other."""

    def __init__(self, encoder: "CrossEncoder", *, precision: str = "fp32", tokens_per_pass: int | None = None) -> None:
        super().__init__(encoder, encoder.text.encoder.layer, precision, tokens_per_pass)

    def numbers_per_pass(self, cells: int) -> int:
        """Estimate the numbers that a forward pass keeps, with the attention of each head to all tokens of a clip."""
        attention = 2 * self.tokens_per_pass * self.encoder.text_config.num_attention_heads * cells
        return super().numbers_per_pass(cells) + attention

    def encode_texts(self, texts: Sequence[Tensor | np.ndarray]) -> EncodedTexts:
        """Read texts, int64 token ids (L,) each, [CLS] first, as far as they do not depend on a clip."""
        lengths, positions = torch.tensor([len(text) for text in texts]), torch.empty(len(texts), dtype=torch.long)
        groups = {}
        for indices, ids in self._by_length(texts):
            with self._gradients():
                states = self.encoder.text.embeddings(input_ids=self.encoder.joint_ids(ids)).to(self.dtype)  # (n, L, D)
                groups[ids.shape[1]] = self_attention(self.layers[0], states)
            positions[indices] = torch.arange(len(indices))
        return EncodedTexts(groups, lengths, positions, self._vectors(texts))

    def __call__(self, texts: EncodedTexts, visual_tokens: Tensor, text_index: Tensor, video_index: Tensor) -> Tensor:
        """Read each pair of a text and a video, one clip at a time.

        Args:
            texts: The M texts.
            visual_tokens: Visual tokens, (V, K, S, D'), on any device.
            text_index: Text of each pair, (P,), on the CPU.
            video_index: Video of each pair, (P,), on the CPU.

        Returns:
            States of the first token, (P, K, D), or (P, K, D + 1) with vectors, in the precision of the encoder's own weights.
        """
        clips, dtype = visual_tokens.shape[1], self.encoder.word_embeddings.dtype
        tokens = visual_tokens.flatten(0, 1)  # (V·K, S, D')
        text_of = text_index.repeat_interleave(clips)  # (P·K,)
        clip_of = (video_index[:, None] * clips + torch.arange(clips)).flatten()  # (P·K,)
        states = torch.empty(len(text_of), self.width, dtype=dtype, device=self.device)
        with self._gradients():
            for block in self._blocks(texts, text_of, clip_of):
                last = self._last_states(texts, tokens[block.clips].to(self.device, self.dtype), block)
                states[block.targets.to(self.device)] = self.outputs(last).to(dtype)  # (c, t, D)
            if texts.vectors is not None:
                vectors = self.encoder.clip_vectors(tokens.to(self.device))[clip_of.to(self.device)]  # (P·K, P)
                similarity = (vectors * texts.vectors[text_of.to(self.device)]).sum(dim=1, keepdim=True)
                states = torch.cat([states, similarity.to(dtype)], dim=1)
        return states.unflatten(0, (-1, clips))

    def _blocks(self, texts: EncodedTexts, text_of: Tensor, clip_of: Tensor) -> Iterator[Block]:
        """Divide pairs of a text and a clip, (N,) each, into passes that are rectangles of clips and texts of one length."""
        for length in texts.lengths[text_of].unique().tolist():
            same = (texts.lengths[text_of] == length).nonzero()[:, 0]
            same = same[clip_of[same].argsort(stable=True)]
            clips, counts = clip_of[same].unique_consecutive(return_counts=True)
            parts = same.split(counts.tolist())  # the pairs of each clip
            most = max(1, self.tokens_per_pass // length)  # texts in a pass
            for count in counts.unique().tolist():
                targets = torch.stack([part for part in parts if len(part) == count])  # (c, t)
                for columns in targets.split(most, dim=1):
                    rows = max(1, most // columns.shape[1])
                    for pairs, of in zip(columns.split(rows), clips[counts == count].split(rows), strict=True):
                        yield Block(length, text_of[pairs], of, pairs)

    @property
    def width(self) -> int:
        """Width of what :meth:`outputs` returns."""
        return self.encoder.text_config.hidden_size

    def outputs(self, states: Tensor) -> Tensor:
        """Return the states of the first token, (c, t, D), of the last states of texts, (c, t, 1 or L, D)."""
        return states[:, :, 0]

    def _last_states(self, texts: EncodedTexts, tokens: Tensor, block: Block) -> Tensor:
        """Return the last states of each text of a block with its clip, (c, S, D'): (c, t, 1, D), or (c, t, L, D) of all."""
        indices = texts.positions[block.texts].to(self.device)  # (c, t)
        states = texts.groups[block.length][indices]  # (c, t, L, D)
        for number, layer in enumerate(self.layers):
            is_last = self.first_alone and number == len(self.layers) - 1
            if number > 0:
                states = self_attention(layer, states.flatten(0, 1), first=is_last).unflatten(0, indices.shape)
            elif is_last:
                states = states[:, :, :1]
            context = cross_attention(layer.crossattention.self, states.flatten(1, 2), tokens)  # (c, t·L, D)
            states = layer.crossattention.output(context.view_as(states), states)
            states = layer.output(layer.intermediate(states), states)
        return states


def self_attention(layer: Any, states: Tensor, *, first: bool = False) -> Tensor:  # noqa: ANN401
    """Run the self-attention of a layer over texts of one length, (n, L, D), for all tokens or for the first one, (n, 1, D)."""
    attention, (count, length) = layer.attention.self, states.shape[:2]
    packed = PackedTokens(states.flatten(0, 1), ((count, length),), ())
    hidden = length - 1 if first else 0  # tokens at the end whose output is not computed
    context = attend(attention, packed, project(attention, packed.states), [hidden])
    return layer.attention.output(context.unflatten(0, (count, -1)), states[:, : length - hidden])


def cross_attention(attention: Any, queries: Tensor, tokens: Tensor) -> Tensor:  # noqa: ANN401
    """Attend to the tokens of clips.

    Args:
        attention: The inner module of a cross-attention.
        queries: States of all tokens of a clip's texts, (c, N, D).
        tokens: Visual tokens, (c, S, D').

    Returns:
        Attention output, (c, N, D).
    """
    heads = (attention.num_attention_heads, attention.attention_head_size)
    query = attention.query(queries).unflatten(2, heads)  # (c, N, H, D/H)
    if is_cheaper_absorbed(queries.shape[1], tokens.shape[1], *heads, tokens.shape[2]):
        return absorbed(attention, query, tokens)
    key, value = (part(tokens).unflatten(2, heads).transpose(1, 2) for part in (attention.key, attention.value))
    context = torch.nn.functional.scaled_dot_product_attention(query.transpose(1, 2), key, value)  # (c, H, N, D/H)
    return context.transpose(1, 2).flatten(2)


def is_cheaper_absorbed(queries: int, cells: int, heads: int, head_size: int, visual_size: int) -> bool:
    """Whether :func:`absorbed` takes fewer multiplications than keys and values of all tokens of a clip.

    >>> is_cheaper_absorbed(12, 577, 12, 64, 768), is_cheaper_absorbed(12 * 8, 577, 12, 64, 768)
    (True, False)
    """
    width = heads * head_size
    projected = cells * visual_size * width + queries * cells * width
    return queries * visual_size * width + queries * heads * cells * visual_size < projected
