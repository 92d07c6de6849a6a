"""BLIP's text encoder, which reads the visual tokens of a clip by cross-attention (Li et al., ICML 2022)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from transformers import BlipTextConfig
from transformers.models.blip.modeling_blip_text import BlipTextModel

from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders.cross_pair_encoder import CrossPairEncoder
from clipbert_mm.registry import MODELS


@MODELS.register_module()
class CrossEncoder(BaseModule):
    """BERT with cross-attention to the visual tokens of a clip in each layer, and vectors of texts and clips.

    A clip may have any number of tokens, those of several frames for instance, each frame with its class token first. With
    vectors the states have one more channel: the cosine similarity of the text and the clip, the same for all tokens.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        hidden_size: Width D.
        num_layers: Transformer layers.
        num_heads: Attention heads; the published checkpoints have 12, where the default of transformers is 8.
        intermediate_size: Width of the feed-forward layers.
        max_text_length: Longest text, in tokens.
        visual_size: Width of the visual tokens.
        frame_tokens: Visual tokens of a frame, its class token among them.
        vector_size: Width of the vectors; None for a model without vectors.
        joint_token: Id that replaces [CLS] where a text is read together with a clip: BLIP's [ENC], with which it was trained
            and which the library's own class leaves out; None replaces nothing. The vector of a text is always that of [CLS].
        dropout: Dropout probability of embeddings, layers and attention.
        layer_norm_eps: Epsilon of the LayerNorms.
        hidden_act: Activation of the feed-forward layers.
        initializer_range: Standard deviation of the initial weights.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 30524,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        intermediate_size: int = 3072,
        max_text_length: int = 512,
        visual_size: int = 768,
        frame_tokens: int = 577,
        vector_size: int | None = 256,
        joint_token: int | None = 30523,
        dropout: float = 0.0,
        layer_norm_eps: float = 1e-12,
        hidden_act: str = "gelu",
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__()
        config = BlipTextConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            encoder_hidden_size=visual_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=max_text_length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            layer_norm_eps=layer_norm_eps,
            hidden_act=hidden_act,
            initializer_range=initializer_range,
            bos_token_id=None,  # not used here, and not in every vocabulary
            sep_token_id=None,
            is_decoder=True,  # which only means that it has cross-attention
            use_cache=False,
            attn_implementation="eager",
        )
        self.text: Any = BlipTextModel(config, add_pooling_layer=False)
        self.frame_tokens, self.joint_token = frame_tokens, joint_token
        self.vector_size, self.has_vectors = vector_size, vector_size is not None
        if vector_size is not None:
            self.text_projection = nn.Linear(hidden_size, vector_size)
            self.visual_projection = nn.Linear(visual_size, vector_size)

    compares_vectors = False
    """Whether the visual tokens of a clip are its vector, and nothing else is compared."""
    layers = "text.encoder.layer"
    """Name of the list of layers, for activation checkpointing."""

    @property
    def visual_size(self) -> int:
        """Width of the visual tokens."""
        return self.text.config.encoder_hidden_size

    @property
    def text_config(self) -> BlipTextConfig:
        """Sizes of the text encoder, as transformers names them."""
        return self.text.config

    @property
    def word_embeddings(self) -> Tensor:
        """The word embedding matrix, (vocab_size, D)."""
        return self.text.embeddings.word_embeddings.weight

    @property
    def max_text_length(self) -> int:
        """The longest text, in tokens."""
        return self.text.config.max_position_embeddings

    def grid(self, values: Tensor, frame_shape: Sequence[int]) -> Tensor:
        """Arrange a value per visual token of a clip, (S,), as patches lie on square frames; the mean of several frames."""
        patches = values.view(-1, self.frame_tokens)[:, 1:].mean(dim=0)  # without the class token
        side = math.isqrt(len(patches))
        return patches.view(side, side)

    def embed_clips(self, features: Tensor) -> Tensor:
        """Return the token sequences of clips, (B, K, D', h, w), as visual tokens, (B, K, S, D') with S = h·w."""
        return features.flatten(3).transpose(2, 3)

    def joint_ids(self, text_ids: Tensor) -> Tensor:
        """Replace the first token of texts, (M, L), by the token that stands for reading them together with a clip.

        Raises:
            OptionError: If a text is longer than ``max_text_length``.
        """
        if text_ids.shape[1] > self.max_text_length:
            raise OptionError(
                f"CrossEncoder takes texts of at most {self.max_text_length} tokens, got {text_ids.shape[1]}. Lower max_length "
                "of Tokenize."
            )
        if self.joint_token is None:
            return text_ids
        return torch.cat([torch.full_like(text_ids[:, :1], self.joint_token), text_ids[:, 1:]], dim=1)

    def text_vectors(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Return unit vectors, (M, P), of texts that are read without a clip; arguments as for :meth:`forward`."""
        states = self.text(input_ids=text_ids, attention_mask=text_mask).last_hidden_state
        return F.normalize(self.text_projection(states[:, 0]), dim=-1)

    def clip_vectors(self, visual_tokens: Tensor) -> Tensor:
        """Return unit vectors, (..., P), of clips, (..., S, D'): of the mean of their frames' projected class tokens."""
        frames = visual_tokens[..., :: self.frame_tokens, :]  # (..., T, D')
        return F.normalize(self.visual_projection(frames.to(self.word_embeddings.dtype)).mean(dim=-2), dim=-1)

    def forward(self, text_ids: Tensor, text_mask: Tensor, visual_tokens: Tensor) -> Tensor:
        """Read each text with each clip of its video.

        Args:
            text_ids: Token ids, int64 (M, L), [CLS] first.
            text_mask: 1 for tokens, 0 for padding, (M, L).
            visual_tokens: Tokens of the clips of the video of each text, (M, K, S, D').

        Returns:
            Last states of the text tokens with each clip, (M, K, L, D), or (M, K, L, D + 1) with vectors.

        Raises:
            OptionError: If a text is longer than ``max_text_length``.
        """
        clips = visual_tokens.shape[1]
        states = self.text(
            input_ids=self.joint_ids(text_ids).repeat_interleave(clips, dim=0),  # (M·K, L)
            attention_mask=text_mask.repeat_interleave(clips, dim=0),
            encoder_hidden_states=visual_tokens.to(self.word_embeddings.dtype).flatten(0, 1),  # (M·K, S, D')
        ).last_hidden_state.unflatten(0, (-1, clips))  # (M, K, L, D)
        if not self.has_vectors:
            return states
        texts = self.text_vectors(text_ids, text_mask)  # (M, P)
        similarity = (self.clip_vectors(visual_tokens) * texts[:, None]).sum(dim=-1)  # (M, K)
        return torch.cat([states, similarity[..., None, None].expand(*states.shape[:3], 1)], dim=3)

    def pool(self, text_states: Tensor) -> Tensor:
        """Return the states of the first token, (M, K, D), of text states (M, K, L, D)."""
        return text_states[:, :, 0]

    def pair_encoder(self, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> CrossPairEncoder:
        """Return this encoder for many pairs at once; arguments as for :class:`CrossPairEncoder`."""
        return CrossPairEncoder(self, precision=precision, tokens_per_pass=tokens_per_pass)
