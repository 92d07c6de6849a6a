"""The text tower of the Perception Encoder, by open_clip's layers."""

from typing import Any

import torch
from torch import Tensor
from transformers import CLIPTextConfig

from clipbert_mm.extras import require_extra
from clipbert_mm.models.encoders.dual_encoder import DualEncoder
from clipbert_mm.registry import MODELS


@MODELS.register_module()
class PEText(DualEncoder):
    """The text tower of PE-Core (Bolya et al., 2025, arXiv 2504.13181), for frames of a PEVision.

    The vector of a text is that of its last token, which stands for its end. The tower is causal, so padding never changes it.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        hidden_size: Width of the transformer.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        max_text_length: Longest text, in tokens.
        vector_size: Width D of the vectors.

    Raises:
        BackendError: If open_clip is not installed.
    """

    layers = "text.transformer.resblocks"

    def __init__(
        self,
        *,
        vocab_size: int = 49408,
        hidden_size: int = 1024,
        num_layers: int = 24,
        num_heads: int = 16,
        intermediate_size: int = 4096,
        max_text_length: int = 32,
        vector_size: int = 1024,
    ) -> None:
        super().__init__()
        require_extra("open_clip", "open-clip", "PEText")
        from open_clip.transformer import TextTransformer

        self.text = TextTransformer(
            context_length=max_text_length,
            vocab_size=vocab_size,
            width=hidden_size,
            heads=num_heads,
            layers=num_layers,
            mlp_ratio=intermediate_size / hidden_size,
            output_dim=vector_size,
        )
        self._config = CLIPTextConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=max_text_length,
            projection_dim=vector_size,
            hidden_act="gelu",
            bos_token_id=None,  # not used here, and not in every vocabulary
            eos_token_id=None,
        )

    @property
    def text_config(self) -> Any:  # noqa: ANN401
        """Sizes of the text tower, as transformers names them."""
        return self._config

    @property
    def word_embeddings(self) -> Tensor:
        """The word embedding matrix, (vocab_size, hidden_size)."""
        return self.text.token_embedding.weight

    @property
    def max_text_length(self) -> int:
        """The longest text, in tokens."""
        return self.text.context_length

    @property
    def visual_size(self) -> int:
        """Width D of the visual tokens, which are vectors."""
        return self.text.text_projection.shape[1]

    def pooled_texts(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Return the projected states of the last tokens, (M, D)."""
        text, length = self.text, text_ids.shape[1]
        embedded = text.token_embedding(text_ids) + text.positional_embedding[:length]  # (M, L, hidden_size)
        # The library reads texts of the longest length alone; its mask is cut here.
        states = text.ln_final(text.transformer(embedded, attn_mask=text.attn_mask[:length, :length]))
        last = text_mask.sum(dim=1) - 1  # (M,)
        return states[torch.arange(len(states), device=states.device), last] @ text.text_projection
