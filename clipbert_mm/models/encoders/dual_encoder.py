"""Text towers of models of two towers: one unit vector per text, one per clip, and their cosine similarity."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, SiglipTextConfig, SiglipTextModel

from clipbert_mm import compat
from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders.dual_pair_encoder import DualPairEncoder
from clipbert_mm.registry import MODELS


class DualEncoder(BaseModule):
    """Compare the vectors of texts and clips; subclasses have the text tower.

    The clips come as vectors from the backbone, one token per clip. The state of a pair has one channel: the cosine similarity.
    """

    text: Any
    """The text tower of transformers."""
    has_vectors = True
    compares_vectors = True
    """Whether the visual tokens of a clip are its vector, and nothing else is compared."""
    layers = "text.encoder.layers"
    """Name of the list of layers, for activation checkpointing."""

    @abstractmethod
    def pooled_texts(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Return the vectors of texts, (M, D), which may have any length; arguments as for :meth:`forward`."""

    @property
    @abstractmethod
    def visual_size(self) -> int:
        """Width D of the visual tokens, which are vectors."""

    @property
    def vector_size(self) -> int:
        """Width D of the vectors of texts and clips."""
        return self.visual_size

    @property
    def text_config(self) -> Any:  # noqa: ANN401
        """Sizes of the text tower, as transformers names them."""
        return self.text.config

    @property
    def word_embeddings(self) -> Tensor:
        """The word embedding matrix, (vocab_size, hidden_size)."""
        return self.text.embeddings.token_embedding.weight

    @property
    def max_text_length(self) -> int:
        """The longest text, in tokens."""
        return self.text.config.max_position_embeddings

    def grid(self, values: Tensor, frame_shape: Sequence[int]) -> Tensor:
        """Return one cell of 0, (1, 1): a vector does not say which part of a frame it is from."""
        return torch.zeros_like(values[:1, None])

    def embed_clips(self, features: Tensor) -> Tensor:
        """Return the mean vectors of the frames of clips, (B, K, D, h, w), as visual tokens of length 1, (B, K, 1, D)."""
        return self.clip_vectors(features.flatten(3).transpose(2, 3))[:, :, None]

    def text_vectors(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Return unit vectors, (M, D), of texts; arguments as for :meth:`forward`.

        Raises:
            OptionError: If a text is longer than ``max_text_length``.
        """
        if text_ids.shape[1] > self.max_text_length:
            raise OptionError(
                f"{type(self).__name__} takes texts of at most {self.max_text_length} tokens, got {text_ids.shape[1]}. Lower "
                "max_length of Tokenize."
            )
        return F.normalize(self.pooled_texts(text_ids, text_mask).float(), dim=-1)

    def clip_vectors(self, visual_tokens: Tensor) -> Tensor:
        """Return unit vectors, (..., D), of clips, (..., S, D): of the mean of their tokens."""
        return F.normalize(visual_tokens.float().mean(dim=-2), dim=-1)

    def forward(self, text_ids: Tensor, text_mask: Tensor, visual_tokens: Tensor) -> Tensor:
        """Compare each text with each clip of its video.

        Args:
            text_ids: Token ids, int64 (M, L).
            text_mask: 1 for tokens, 0 for padding, (M, L).
            visual_tokens: Tokens of the clips of the video of each text, (M, K, S, D).

        Returns:
            Cosine similarities, (M, K, 1, 1).

        Raises:
            OptionError: If a text is longer than ``max_text_length``.
        """
        texts = self.text_vectors(text_ids, text_mask)  # (M, D)
        return (self.clip_vectors(visual_tokens) * texts[:, None]).sum(dim=-1)[:, :, None, None]

    def pool(self, text_states: Tensor) -> Tensor:
        """Return the similarities, (M, K, 1), of states (M, K, 1, 1)."""
        return text_states[:, :, 0]

    def pair_encoder(self, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> DualPairEncoder:
        """Return this encoder for many pairs at once; arguments as for :class:`DualPairEncoder`."""
        return DualPairEncoder(self, precision=precision, tokens_per_pass=tokens_per_pass)


@MODELS.register_module()
class CLIPText(DualEncoder):
    """The text tower of CLIP (Radford et al., ICML 2021), for frames of a CLIPVision.

    The vector of a text is that of its last token, which stands for its end. The tower is causal, so padding never changes it.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        hidden_size: Width of the transformer.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        max_text_length: Longest text, in tokens.
        vector_size: Width D of the vectors.
        layer_norm_eps: Epsilon of the LayerNorms.
        hidden_act: Activation of the feed-forward layers; "quick_gelu" in OpenAI's checkpoints, "gelu" in most others.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 49408,
        hidden_size: int = 512,
        num_layers: int = 12,
        num_heads: int = 8,
        intermediate_size: int = 2048,
        max_text_length: int = 77,
        vector_size: int = 512,
        layer_norm_eps: float = 1e-5,
        hidden_act: str = "quick_gelu",
    ) -> None:
        super().__init__()
        tower: Any = CLIPTextModelWithProjection(
            CLIPTextConfig(
                vocab_size=vocab_size,
                hidden_size=hidden_size,
                num_hidden_layers=num_layers,
                num_attention_heads=num_heads,
                intermediate_size=intermediate_size,
                max_position_embeddings=max_text_length,
                projection_dim=vector_size,
                layer_norm_eps=layer_norm_eps,
                hidden_act=hidden_act,
                bos_token_id=None,  # not used here, and not in every vocabulary
                eos_token_id=2,  # the library's own pooling, which is not used, then takes the largest id
                attn_implementation="sdpa",
            )
        )
        self.text = tower.text_model
        self.text_projection = tower.text_projection

    @property
    def visual_size(self) -> int:
        """Width D of the visual tokens, which are vectors."""
        return self.text_projection.out_features

    def pooled_texts(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Return the projected states of the last tokens, (M, D)."""
        states = self.text(input_ids=text_ids).last_hidden_state  # (M, L, hidden_size)
        last = text_mask.sum(dim=1) - 1  # (M,)
        return self.text_projection(states[torch.arange(len(states), device=states.device), last])


@MODELS.register_module()
class SiglipText(DualEncoder):
    """The text tower of SigLIP (Zhai et al., ICCV 2023) and of SigLIP 2, for frames of a SiglipVision.

    It was trained on texts that are padded to the longest length, without a mask, and so it always reads them.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        hidden_size: Width of the transformer.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        max_text_length: Length of all texts, in tokens.
        vector_size: Width D of the vectors, which is the width of the vision tower.
        padding_token: Id of the token that pads texts: 1 for SigLIP, 0 for SigLIP 2.
        layer_norm_eps: Epsilon of the LayerNorms.
        hidden_act: Activation of the feed-forward layers.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 32000,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        intermediate_size: int = 3072,
        max_text_length: int = 64,
        vector_size: int = 768,
        padding_token: int = 1,
        layer_norm_eps: float = 1e-6,
        hidden_act: str = "gelu_pytorch_tanh",
    ) -> None:
        super().__init__()
        self.text = compat.bare_tower(
            SiglipTextModel(
                SiglipTextConfig(
                    vocab_size=vocab_size,
                    hidden_size=hidden_size,
                    num_hidden_layers=num_layers,
                    num_attention_heads=num_heads,
                    intermediate_size=intermediate_size,
                    max_position_embeddings=max_text_length,
                    projection_size=vector_size,
                    layer_norm_eps=layer_norm_eps,
                    hidden_act=hidden_act,
                    pad_token_id=padding_token,
                    bos_token_id=None,  # not used here, and not in every vocabulary
                    eos_token_id=None,
                    attn_implementation="sdpa",
                )
            )
        )
        self.padding_token = padding_token

    @property
    def visual_size(self) -> int:
        """Width D of the visual tokens, which are vectors."""
        return self.text.head.out_features

    def pooled_texts(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Return the projected states of the last place, (M, D), of texts that are padded to the longest length."""
        padded = text_ids.masked_fill(text_mask == 0, self.padding_token)
        padded = F.pad(padded, (0, self.max_text_length - padded.shape[1]), value=self.padding_token)
        return self.text(input_ids=padded).pooler_output
