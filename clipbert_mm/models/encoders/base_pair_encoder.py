"""What the encoders of many pairs have in common: precision, memory of a pass, and texts in groups of equal length."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from clipbert_mm.errors import OptionError

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""Data types that the layers may compute in, by name."""
TOKENS_PER_PASS = {"cpu": 1024, "cuda": 65536}
"""Tokens of a forward pass by device type, on a CPU as many as its caches hold, on a GPU enough to keep it busy."""


@dataclass(frozen=True)
class EncodedTexts:
    """Texts that are read once as far as they do not depend on a clip, in groups of equal length.

    Args:
        groups: What an encoder keeps of the texts of each length.
        lengths: Length of each text, (M,).
        positions: Position of each text in its group, (M,).
        vectors: Unit vectors of the texts, (M, P); None without vectors.
    """

    groups: dict[int, Any]
    lengths: Tensor
    positions: Tensor
    vectors: Tensor | None = None


class BasePairEncoder(ABC):
    """Base of the encoders that compute ``encoder.pool(encoder(...))`` for many pairs of a text and a video at less cost.

    Args:
        encoder: The encoder, in eval mode or without dropout.
        layers: Its layers; the weights are those of these modules, copied only for another precision.
        precision: What the layers compute in: "fp32" (the weights as they are), "bf16" or "fp16".
        tokens_per_pass: Most tokens in one forward pass, which bounds memory; None for :data:`TOKENS_PER_PASS`.

    Raises:
        OptionError: If the precision is unknown, or the encoder is in training mode and has dropout.
    """

    def __init__(self, encoder: Any, layers: Any, precision: str, tokens_per_pass: int | None) -> None:  # noqa: ANN401
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
        self.layers = layers if precision == "fp32" else copy.deepcopy(layers).to(self.dtype)

    shares_layers = True
    """Whether the layers compute only what depends on a pair."""

    @abstractmethod
    def encode_texts(self, texts: Sequence[Tensor | np.ndarray]) -> EncodedTexts:
        """Read texts, int64 token ids (L,) each, [CLS] first, as far as they do not depend on a clip."""

    @abstractmethod
    def __call__(self, texts: EncodedTexts, visual_tokens: Tensor, text_index: Tensor, video_index: Tensor) -> Tensor:
        """Encode each pair of a text and a video, one clip at a time.

        Args:
            texts: The M texts.
            visual_tokens: Visual tokens, (V, K, S, D), on any device.
            text_index: Text of each pair, (P,), on the CPU.
            video_index: Video of each pair, (P,), on the CPU.

        Returns:
            Pooled states, (P, K, D), in the precision of the encoder's own weights.
        """

    def text_states(self, text_ids: Tensor, text_mask: Tensor, visual_tokens: Tensor, video_index: Tensor) -> Tensor:
        """Encode each text with each clip of its video, and return the last states of its tokens, (M, K, L, D).

        Raises:
            OptionError: If this encoder gives the states of the first token alone.
        """
        raise OptionError(
            f"pack_pairs of ClipBert does not give the states of all tokens of a {type(self.encoder).__name__}, which an "
            "mlm_head needs. Set pack_pairs=False."
        )

    @property
    def device(self) -> torch.device:
        """The device of the encoder's weights."""
        return self.encoder.word_embeddings.device

    def numbers_per_pass(self, cells: int) -> int:
        """Estimate the numbers that a forward pass keeps, for clips of ``cells`` visual tokens."""
        config = self.encoder.text_config
        return self.tokens_per_pass * (2 * config.intermediate_size + 8 * config.hidden_size)

    def _gradients(self) -> torch.set_grad_enabled:
        return torch.set_grad_enabled(torch.is_grad_enabled() and self.encoder.training)

    def _vectors(self, texts: Sequence[Tensor | np.ndarray]) -> Tensor | None:
        """Return the unit vectors of texts, (M, P); None if the encoder has none."""
        if not self.encoder.has_vectors:
            return None
        order, vectors = [], []
        for indices, ids in self._by_length(texts):
            with self._gradients():
                vectors.append(self.encoder.text_vectors(ids, torch.ones_like(ids)))
            order.append(indices)
        return torch.cat(vectors)[torch.cat(order).argsort().to(self.device)]

    def _by_length(self, texts: Sequence[Tensor | np.ndarray]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the texts of each length, the shortest first: their indices, (n,), and token ids, (n, L)."""
        lengths = torch.tensor([len(text) for text in texts])
        for length in lengths.unique():
            indices = (lengths == length).nonzero()[:, 0]
            yield indices, torch.stack([torch.as_tensor(texts[i], device=self.device) for i in indices])
