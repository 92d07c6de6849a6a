"""The joint encoder over many pairs of a text and a video, for their pooled [CLS] states alone: for testing and search."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.models.encoders.joint_encoder import JointEncoder

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What the layers may compute in, by name."""
KNOWN_LAYERS = ("bert", "electra", "roberta")
"""Architectures whose layers are one build, known here: the first is shared among pairs, the last computed for [CLS] alone."""
TOKENS_PER_PASS = {"cpu": 1024, "cuda": 65536}
"""Tokens of a forward pass by the device's type: on a CPU what its caches hold, on a GPU what keeps it busy."""


@dataclass(frozen=True)
class Side:
    """Texts of one length, or clips, ready to be one side of pairs.

    Args:
        states: Embedded tokens, (n, N, D).
        projections: Query, key and value of the first layer, (n, N, D) each, which do not depend on the other side; empty
            where the layers are of another build.
    """

    states: Tensor
    projections: tuple[Tensor, ...]

    def beside(self, other: "Side", own: Tensor, others: Tensor) -> "Side":
        """Put sequences ``own`` (P,) of this side in front of sequences ``others`` (P,) of the other."""
        left, right = ((side.states, *side.projections) for side in (self, other))
        states, *projections = (
            torch.cat([a[own], b[others]], dim=1)
            for a, b in zip(left, right, strict=True)  # (P, L+S, D)
        )
        return Side(states, tuple(projections))


@dataclass(frozen=True)
class EncodedTexts:
    """Texts, embedded once, sorted into groups of the very same length, so that there is no padding and no mask.

    Args:
        groups: The texts of each length.
        lengths: Length of each text, (M,).
        places: Place of each text in its group, (M,).
    """

    groups: dict[int, Side]
    lengths: Tensor
    places: Tensor


class PairEncoder:
    """Gives what ``encoder.pool(encoder(...))`` gives, for any pairs of texts and videos, at less cost.

    Texts are embedded once and grouped by length. The first layer's query, key and value are computed once a text and once a
    clip instead of once a pair; the last layer is computed for [CLS] alone. The weights stay those of the encoder's own
    modules, copied where the precision is another. Encoders of another build run as they are (see ``shares_layers``).

    Args:
        encoder: A joint encoder in eval mode.
        precision: What the layers compute in: "fp32" (the weights as they are), "bf16" or "fp16".
        tokens_per_pass: Tokens in one forward pass; bounds memory. None for :data:`TOKENS_PER_PASS`.

    Raises:
        ValueError: If the precision is none of these, or the encoder trains.
    """

    def __init__(self, encoder: JointEncoder, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> None:
        if precision not in PRECISIONS:
            raise ValueError(f"PairEncoder expects a precision of {', '.join(PRECISIONS)}, got {precision!r}.")
        if encoder.training:
            raise ValueError("PairEncoder leaves dropout out, so it needs an encoder in eval mode.")
        device = encoder.word_embeddings.device.type
        self.encoder = encoder
        self.precision = precision
        self.dtype = encoder.word_embeddings.dtype if precision == "fp32" else PRECISIONS[precision]
        self.tokens_per_pass = tokens_per_pass or TOKENS_PER_PASS.get(device, TOKENS_PER_PASS["cuda"])
        layers: Any = encoder.bert.encoder
        self.layers = layers if precision == "fp32" else copy.deepcopy(layers).to(self.dtype)
        config = encoder.bert.config
        places = getattr(config, "position_embedding_type", None) or "absolute"
        self.shares_layers = config.model_type in KNOWN_LAYERS and places == "absolute"

    def encode_texts(self, texts: Sequence[Tensor]) -> EncodedTexts:
        """Embed texts, each int64 (L,), [CLS] first."""
        lengths = [len(text) for text in texts]
        groups, places = {}, torch.empty(len(texts), dtype=torch.long)
        for length in sorted(set(lengths)):
            own = [i for i, other in enumerate(lengths) if other == length]
            groups[length] = self._side(self.encoder.embed_texts(torch.stack([texts[i] for i in own])))
            places[own] = torch.arange(len(own))
        return EncodedTexts(groups, torch.tensor(lengths), places)

    def __call__(self, texts: EncodedTexts, visual_tokens: Tensor, text_index: Tensor, video_index: Tensor) -> Tensor:
        """Let the text and each clip of each pair look at one another.

        Args:
            texts: The M texts.
            visual_tokens: Visual tokens, (V, K, S, D).
            text_index: Which text each pair has, (P,), on the CPU.
            video_index: Which video, (P,), on the CPU.

        Returns:
            Pooled [CLS] states, (P, K, D), in the precision of the encoder's own weights.
        """
        _, clips, cells, width = visual_tokens.shape
        videos = self._side(visual_tokens.flatten(0, 1))
        own_dtype, device = self.encoder.word_embeddings.dtype, visual_tokens.device
        cls = torch.empty(len(text_index), clips, width, dtype=own_dtype, device=device)
        for length, group in texts.groups.items():
            pairs = (texts.lengths[text_index] == length).nonzero()[:, 0]  # (p,)
            rows = texts.places[text_index[pairs]].repeat_interleave(clips)  # (p·K,)
            columns = (video_index[pairs, None] * clips + torch.arange(clips)).flatten()  # (p·K,)
            step = max(1, self.tokens_per_pass // (length + cells))
            parts = [
                self._cls_states(group.beside(videos, own.to(device), others.to(device)))
                for own, others in zip(rows.split(step), columns.split(step), strict=True)
            ]
            if parts:
                cls[pairs.to(device)] = torch.cat(parts).unflatten(0, (-1, clips)).to(own_dtype)
        return self.encoder.pool(cls[:, :, None])  # (P, K, D)

    def _side(self, states: Tensor) -> Side:
        """Embedded tokens (n, N, D), with what of the first layer is theirs alone."""
        states = states.to(self.dtype)
        if not self.shares_layers or len(self.layers.layer) == 1:
            return Side(states, ())
        attention = self.layers.layer[0].attention.self
        return Side(states, (attention.query(states), attention.key(states), attention.value(states)))

    def _cls_states(self, pair: Side) -> Tensor:
        """Return the last [CLS] states (P, D) of joint sequences (P, L+S, D)."""
        states = pair.states
        if not self.shares_layers:
            nothing_hidden = states.new_zeros(len(states), 1, 1, states.shape[1])
            return self.layers(states, attention_mask=nothing_hidden).last_hidden_state[:, 0]
        projections = pair.projections
        for layer in self.layers.layer[:-1]:
            attention = layer.attention.self
            heads = (attention.num_attention_heads, attention.attention_head_size)
            projections = projections or tuple(f(states) for f in (attention.query, attention.key, attention.value))
            query, key, value = (each.unflatten(2, heads).transpose(1, 2) for each in projections)  # (P, H, N, D/H)
            context = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)  # (P, N, D)
            states, projections = feed_forward(layer, context, states), ()
        return last_cls(self.layers.layer[-1], states)


def feed_forward(layer: Any, context: Tensor, states: Tensor) -> Tensor:  # noqa: ANN401
    """Do what a BERT layer does after its attention, on states and context of one shape."""
    states = layer.attention.output(context, states)
    return layer.output(layer.intermediate(states), states)


def last_cls(layer: Any, states: Tensor) -> Tensor:  # noqa: ANN401
    """Run a BERT layer for its first token alone, without keys and values of the others.

    A score q·(W x + b) is (Wᵀ q)·x plus what all tokens have in common, which the softmax drops; and a mean of values is the
    value of the mean. So the matrices meet one vector a head instead of every token.

    Args:
        layer: The last BERT layer.
        states: States of all tokens, (P, N, D).

    Returns:
        Its states of the first token, (P, D).
    """
    attention = layer.attention.self
    heads = (attention.num_attention_heads, attention.attention_head_size)
    query = attention.query(states[:, 0]).unflatten(1, heads)  # (P, H, D/H)
    wanted = torch.einsum("phc,hcd->phd", query, attention.key.weight.unflatten(0, heads))  # (P, H, D)
    weights = (wanted @ states.transpose(1, 2) * heads[1] ** -0.5).softmax(dim=2)  # (P, H, N)
    mixed = weights @ states  # (P, H, D)
    context = torch.einsum("phd,hcd->phc", mixed, attention.value.weight.unflatten(0, heads))  # (P, H, D/H)
    return feed_forward(layer, context.flatten(1) + attention.value.bias, states[:, 0])
