"""The joint encoder over many pairs of a text and a video, for their pooled [CLS] states alone: for testing and search."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders.joint_encoder import JointEncoder

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""What the layers may compute in, by name."""
KNOWN_LAYERS = ("bert", "electra", "roberta")
"""Architectures whose layers are one build, known here; the first is shared among pairs, the last computed for [CLS] alone."""
TOKENS_PER_PASS = {"cpu": 1024, "cuda": 65536}
"""Tokens of a forward pass by the device's type; on a CPU what its caches hold, on a GPU what keeps it busy."""


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

    def beside(self, other: "Side", own: Tensor, others: Tensor) -> tuple[Tensor, ...]:
        """Put sequences ``own`` (P,) of this side in front of sequences ``others`` (P,) of the other.

        Returns:
            Joint states, and joint projections where there are any, (P, L+S, D) each.
        """
        left, right = ((side.states, *side.projections) for side in (self, other))
        return tuple(torch.cat([a[own], b[others]], dim=1) for a, b in zip(left, right, strict=True))


@dataclass(frozen=True)
class PackedTokens:
    """Sequences of several lengths, one after the other without padding: what is done token by token is done for all at once.

    Args:
        states: States of all tokens, (tokens, D).
        sizes: Number and length of the sequences of each length, in their order.
        projections: Query, key and value of the first layer, (tokens, D) each; or none.
    """

    states: Tensor
    sizes: tuple[tuple[int, int], ...]
    projections: tuple[Tensor, ...]

    @classmethod
    def of(cls, parts: Sequence[tuple[Tensor, ...]]) -> "PackedTokens":
        """Pack what :meth:`Side.beside` returned, for each length."""
        sizes = tuple((part[0].shape[0], part[0].shape[1]) for part in parts)
        states, *projections = (torch.cat([each.flatten(0, 1) for each in kind]) for kind in zip(*parts, strict=True))
        return cls(states, sizes, tuple(projections))

    def unpack(self, tokens: Tensor) -> list[Tensor]:
        """Take (tokens, ...) apart into (n, N, ...) for each length."""
        parts = tokens.split([count * length for count, length in self.sizes])
        return [part.unflatten(0, size) for part, size in zip(parts, self.sizes, strict=True)]


@dataclass(frozen=True)
class EncodedTexts:
    """Texts, embedded once, sorted into groups of the very same length.

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

    Texts are embedded once, and sequences are packed without padding, so that there is no mask either. The first layer's
    query, key and value are computed once a text and once a clip instead of once a pair; the last layer is computed for [CLS]
    alone. The weights stay those of the encoder's own modules, copied where the precision is another. Encoders of another
    build run as they are, one length at a time; ``shares_layers`` says so.

    Args:
        encoder: A joint encoder in eval mode.
        precision: What the layers compute in: "fp32" (the weights as they are), "bf16" or "fp16".
        tokens_per_pass: Tokens in one forward pass; bounds memory. None for :data:`TOKENS_PER_PASS`.

    Raises:
        OptionError: If the precision is none of these, or the encoder trains.
    """

    def __init__(self, encoder: JointEncoder, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> None:
        if precision not in PRECISIONS:
            raise OptionError(f"PairEncoder expects a precision of {', '.join(PRECISIONS)}, got {precision!r}.")
        if encoder.training:
            raise OptionError("PairEncoder leaves dropout out, so it needs an encoder in eval mode.")
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
        cls = torch.empty(len(text_index) * clips, width, dtype=own_dtype, device=device)
        text_of = text_index.repeat_interleave(clips)  # (P·K,)
        clip_of = (video_index[:, None] * clips + torch.arange(clips)).flatten()  # (P·K,)
        for places in self._passes(texts.lengths[text_of] + cells):
            lengths = texts.lengths[text_of[places]]
            parts = [
                texts.groups[length].beside(videos, texts.places[text_of[own]].to(device), clip_of[own].to(device))
                for length, own in ((int(length), places[lengths == length]) for length in lengths.unique())
            ]
            cls[places.to(device)] = self._cls_states(PackedTokens.of(parts)).to(own_dtype)
        return self.encoder.pool(cls.unflatten(0, (-1, clips))[:, :, None])  # (P, K, D)

    def _passes(self, lengths: Tensor) -> list[Tensor]:
        """Divide sequences of such lengths, (n,), into forward passes: places of sequences, the shortest first."""
        order = lengths.argsort(stable=True)
        passes = (lengths[order].cumsum(dim=0) - 1) // self.tokens_per_pass  # which pass a sequence ends in
        return list(order.split(passes.unique_consecutive(return_counts=True)[1].tolist()))

    def _side(self, states: Tensor) -> Side:
        """Embedded tokens (n, N, D), with what of the first layer is theirs alone."""
        states = states.to(self.dtype)
        if not self.shares_layers or len(self.layers.layer) == 1:
            return Side(states, ())
        attention = self.layers.layer[0].attention.self
        return Side(states, (attention.query(states), attention.key(states), attention.value(states)))

    def _cls_states(self, packed: PackedTokens) -> Tensor:
        """Return the last [CLS] states (P, D) of packed sequences."""
        if not self.shares_layers:
            parts = packed.unpack(packed.states)
            hidden = [part.new_zeros(len(part), 1, 1, part.shape[1]) for part in parts]  # nothing is
            return torch.cat(
                [
                    self.layers(part, attention_mask=mask).last_hidden_state[:, 0]
                    for part, mask in zip(parts, hidden, strict=True)
                ]
            )
        states, projections = packed.states, packed.projections
        for layer in self.layers.layer[:-1]:
            attention = layer.attention.self
            projections = projections or tuple(f(states) for f in (attention.query, attention.key, attention.value))
            states, projections = feed_forward(layer, attend(attention, packed, projections), states), ()
        return last_cls(self.layers.layer[-1], packed, states)


def attend(attention: Any, packed: PackedTokens, projections: Sequence[Tensor]) -> Tensor:  # noqa: ANN401
    """Let the tokens of each sequence look at one another.

    Args:
        attention: Self-attention of a BERT layer.
        packed: Where the sequences are.
        projections: Query, key and value, (tokens, D) each.

    Returns:
        What each token saw, (tokens, D).
    """
    heads = (attention.num_attention_heads, attention.attention_head_size)
    contexts = []
    for parts in zip(*(packed.unpack(each) for each in projections), strict=True):  # of one length
        query, key, value = (part.unflatten(2, heads).transpose(1, 2) for part in parts)  # (n, H, N, D/H)
        contexts.append(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).flatten(0, 1))
    return torch.cat(contexts)


def feed_forward(layer: Any, context: Tensor, states: Tensor) -> Tensor:  # noqa: ANN401
    """Do what a BERT layer does after its attention, on states and context of one shape."""
    states = layer.attention.output(context, states)
    return layer.output(layer.intermediate(states), states)


def last_cls(layer: Any, packed: PackedTokens, states: Tensor) -> Tensor:  # noqa: ANN401
    """Run a BERT layer for the first token of each sequence alone, without keys and values of the others.

    A score q·(W x + b) is (Wᵀ q)·x plus what all tokens have in common, which the softmax drops; and a mean of values is the
    value of the mean. So the matrices meet one vector a head instead of every token.

    Args:
        layer: The last BERT layer.
        packed: Where the sequences are.
        states: States of all tokens, (tokens, D).

    Returns:
        Its states of the first tokens, (P, D).
    """
    attention = layer.attention.self
    heads = (attention.num_attention_heads, attention.attention_head_size)
    sequences = packed.unpack(states)  # (n, N, D) of each length
    first = torch.cat([part[:, 0] for part in sequences])  # (P, D)
    query = attention.query(first).unflatten(1, heads)  # (P, H, D/H)
    wanted = torch.einsum("phc,hcd->phd", query, attention.key.weight.unflatten(0, heads))  # (P, H, D)
    mixed = []
    for part, own in zip(sequences, wanted.split([len(part) for part in sequences]), strict=True):
        weights = (own @ part.transpose(1, 2) * heads[1] ** -0.5).softmax(dim=2)  # (n, H, N)
        mixed.append(weights @ part)  # (n, H, D)
    context = torch.einsum("phd,hcd->phc", torch.cat(mixed), attention.value.weight.unflatten(0, heads))  # (P, H, D/H)
    return feed_forward(layer, context.flatten(1) + attention.value.bias, first)
