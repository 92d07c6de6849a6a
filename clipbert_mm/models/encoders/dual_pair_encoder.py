"""Many pairs of a text and a video by two towers: each text is read once, and all pairs are one product of matrices."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.models.encoders.base_pair_encoder import BasePairEncoder, EncodedTexts

if TYPE_CHECKING:
    from clipbert_mm.models.encoders.dual_encoder import DualEncoder


class DualPairEncoder(BasePairEncoder):
    """Compute ``encoder.pool(encoder(...))`` of a DualEncoder for any pairs of texts and videos at less cost.

    Args:
        encoder: An encoder of two towers, in eval mode or without dropout.
        precision: What the text tower computes in: "fp32" (the weights as they are), "bf16" or "fp16". Vectors are compared in
            float32.
        tokens_per_pass: Most text tokens in one forward pass, which bounds memory; None for a default by device.

    Raises:
        OptionError: If the precision is unknown, or the encoder is in training mode and has dropout.
    """

    encoder: "DualEncoder"

    def __init__(self, encoder: "DualEncoder", *, precision: str = "fp32", tokens_per_pass: int | None = None) -> None:
        super().__init__(encoder, encoder, precision, tokens_per_pass)

    def encode_texts(self, texts: Sequence[Tensor | np.ndarray]) -> EncodedTexts:
        """Read texts, int64 token ids (L,) each: their unit vectors are all that is kept."""
        lengths = torch.tensor([len(text) for text in texts])
        order, vectors = [], []
        for indices, ids in self._by_length(texts):
            with self._gradients():
                for part in ids.split(max(1, self.tokens_per_pass // ids.shape[1])):
                    vectors.append(self.layers.text_vectors(part, torch.ones_like(part)))
            order.append(indices)
        by_text = torch.cat(vectors)[torch.cat(order).argsort().to(self.device)]  # (M, D)
        return EncodedTexts({}, lengths, torch.arange(len(texts)), by_text)

    def __call__(self, texts: EncodedTexts, visual_tokens: Tensor, text_index: Tensor, video_index: Tensor) -> Tensor:
        """Compare the text and each clip of the video of each pair.

        Args:
            texts: The M texts.
            visual_tokens: Visual tokens, (V, K, S, D), on any device.
            text_index: Text of each pair, (P,), on the CPU.
            video_index: Video of each pair, (P,), on the CPU.

        Returns:
            Cosine similarities, (P, K, 1), in the precision of the encoder's own weights.
        """
        assert texts.vectors is not None
        with self._gradients():
            clips = self.encoder.clip_vectors(visual_tokens.to(self.device))  # (V, K, D)
            cosines = (texts.vectors @ clips.flatten(0, 1).T).unflatten(1, clips.shape[:2])  # (M, V, K)
            pairs = cosines[text_index.to(self.device), video_index.to(self.device)]
        return pairs[:, :, None].to(self.encoder.word_embeddings.dtype)
