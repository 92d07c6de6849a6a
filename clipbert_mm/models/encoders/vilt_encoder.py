"""ViLT's transformer over the tokens of a text followed by the patches of a clip (Kim et al., ICML 2021)."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn
from transformers import ViltConfig, ViltModel

from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders.attention import additive, joint_mask
from clipbert_mm.models.encoders.pair_encoder import PairEncoder
from clipbert_mm.registry import MODELS


class PatchPositions(nn.Module):
    """Add position embeddings to the patches of clips, after a class token with a position of its own.

    The positions are learnt for a square grid and interpolated for others, with corners aligned. The patches stay in the order
    of their rows, where the library permutes them at random in each call; attention does not see the order.

    Args:
        grid_size: Rows and columns of the grid whose positions are learnt.
        hidden_size: Width D.
        dropout: Dropout probability.
        std: Standard deviation of the initial embeddings.
    """

    def __init__(self, *, grid_size: int, hidden_size: int, dropout: float, std: float) -> None:
        super().__init__()
        self.grid_size = grid_size
        self.class_token = nn.Parameter(torch.empty(1, 1, hidden_size))
        self.positions = nn.Parameter(torch.empty(1, 1 + grid_size**2, hidden_size))
        self.dropout = nn.Dropout(dropout)
        nn.init.normal_(self.class_token, std=std)
        nn.init.normal_(self.positions, std=std)

    def forward(self, features: Tensor) -> Tensor:
        """Embed the patches of clips, (B, K, D, h, w), as tokens, (B, K, 1 + h·w, D); patches of zeros are padding and stay."""
        patches = (features + self._grid(features)).flatten(3).transpose(2, 3)  # (B, K, h·w, D)
        first = (self.class_token + self.positions[:, :1]).to(patches.dtype)  # (1, 1, D)
        return self.dropout(torch.cat([first.expand(*patches.shape[:2], 1, -1), patches], dim=2))

    def _grid(self, features: Tensor) -> Tensor:
        """Return the positions of the patches of clips, (1, D, h, w), or (B, K, D, h, w) if there is padding, where it is 0."""
        height, width = features.shape[3:]
        real = features.any(dim=2)  # (B, K, h, w)
        if real[..., -1, -1].all():  # padding is on the right and below
            return self._interpolate(height, width)
        shapes = torch.stack([real[..., 0].sum(dim=2), real[..., 0, :].sum(dim=2)], dim=2).flatten(0, 1).tolist()
        grids = {
            (rows, columns): F.pad(self._interpolate(rows, columns), (0, width - columns, 0, height - rows))
            for rows, columns in {tuple(shape) for shape in shapes}
        }
        return torch.cat([grids[tuple(shape)] for shape in shapes]).unflatten(0, features.shape[:2])

    def _interpolate(self, height: int, width: int) -> Tensor:
        """Return positions for a grid, (1, D, height, width)."""
        grid = self.positions[:, 1:].transpose(1, 2).unflatten(2, (self.grid_size, -1))  # (1, D, grid_size, grid_size)
        if (height, width) == (self.grid_size, self.grid_size):
            return grid
        return F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=True)


@MODELS.register_module()
class ViltEncoder(BaseModule):
    """ViLT's pre-norm transformer, whose last states go through a norm; padding of texts and clips is masked.

    Args:
        vocab_size: Number of tokens in the vocabulary.
        hidden_size: Width D.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        max_text_length: Longest text, in tokens.
        grid_size: Rows and columns of the grid of patches whose positions are learnt: 12 for 384 pixels by patches of 32.
        text_types: Token types of the text embeddings, of which the first is used.
        modality_types: Types that tell texts from clips, of which two are used.
        qkv_bias: Whether query, key and value have biases.
        dropout: Dropout probability of embeddings, layers and attention.
        layer_norm_eps: Epsilon of the LayerNorms.
        hidden_act: Activation of the feed-forward layers.
        initializer_range: Standard deviation of the initial weights.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        intermediate_size: int = 3072,
        max_text_length: int = 40,
        grid_size: int = 12,
        text_types: int = 2,
        modality_types: int = 2,
        qkv_bias: bool = True,
        dropout: float = 0.0,
        layer_norm_eps: float = 1e-12,
        hidden_act: str = "gelu",
        initializer_range: float = 0.02,
    ) -> None:
        super().__init__()
        self.text_config = ViltConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=max_text_length,
            type_vocab_size=text_types,
            modality_type_vocab_size=modality_types,
            qkv_bias=qkv_bias,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            layer_norm_eps=layer_norm_eps,
            hidden_act=hidden_act,
            initializer_range=initializer_range,
            image_size=1,  # patches are embedded by the backbone, and their positions here
            patch_size=1,
        )
        vilt = ViltModel(self.text_config)  # which initializes them
        self.text_embedding: Any = vilt.embeddings.text_embeddings
        self.type_embedding: Any = vilt.embeddings.token_type_embeddings
        self.visual_embedding = PatchPositions(
            grid_size=grid_size, hidden_size=hidden_size, dropout=dropout, std=initializer_range
        )
        self.transformer: Any = vilt.encoder
        self.norm: Any = vilt.layernorm
        self.pooler: Any = vilt.pooler

    pads_tokens = True
    """Whether visual tokens of zeros are padding."""
    layers = "transformer.layer"
    """Name of the list of layers, for activation checkpointing."""
    has_vectors = False

    @property
    def visual_size(self) -> int:
        """Width of the visual tokens."""
        return self.text_config.hidden_size

    @property
    def word_embeddings(self) -> Tensor:
        """The word embedding matrix, (vocab_size, D); the masked-language head decodes with it."""
        return self.text_embedding.word_embeddings.weight

    @property
    def max_text_length(self) -> int:
        """The longest text, in tokens."""
        return self.text_config.max_position_embeddings

    def grid(self, values: Tensor, frame_shape: Sequence[int]) -> Tensor:
        """Arrange a value per visual token of a clip, (S,), as patches lie on frames of (H, W) pixels, (h, w)."""
        height, width = frame_shape
        patches = values[1:]  # without the class token
        return patches.view(round(math.sqrt(len(patches) * height / width)), -1)

    def embed_clips(self, features: Tensor) -> Tensor:
        """Embed the patches of clips, (B, K, D, h, w), as visual tokens, (B, K, 1 + h·w, D), the class token first.

        Patches of zeros are padding, on the right and below, and become tokens of zeros, which the layers leave out.
        """
        real = F.pad(features.any(dim=2).flatten(2), (1, 0), value=True)  # (B, K, 1 + h·w)
        return self.visual_embedding(features) + self.type_embedding.weight[1] * real[..., None]

    def embed_texts(self, text_ids: Tensor) -> Tensor:
        """Embed token ids, int64 (M, L), as text tokens, (M, L, D).

        Raises:
            OptionError: If a text is longer than ``max_text_length``.
        """
        if text_ids.shape[1] > self.max_text_length:
            raise OptionError(
                f"ViltEncoder takes texts of at most {self.max_text_length} tokens, got {text_ids.shape[1]}. Lower max_length "
                "of Tokenize."
            )
        return self.text_embedding(input_ids=text_ids) + self.type_embedding.weight[0]

    def forward(self, text_ids: Tensor, text_mask: Tensor, visual_tokens: Tensor) -> Tensor:
        """Run the encoder over each text with each clip of its video.

        Args:
            text_ids: Token ids, int64 (M, L), [CLS] first.
            text_mask: 1 for tokens, 0 for padding, (M, L).
            visual_tokens: Tokens of the clips of the video of each text, (M, K, S, D); tokens of zeros are padding.

        Returns:
            Last states of the text tokens with each clip, (M, K, L, D).

        Raises:
            OptionError: If a text is longer than ``max_text_length``.
        """
        texts, clips = visual_tokens.shape[:2]
        text = self.embed_texts(text_ids)[:, None].expand(-1, clips, -1, -1)  # (M, K, L, D)
        states = torch.cat([text, visual_tokens.to(text.dtype)], dim=2).flatten(0, 1)  # (M·K, L+S, D)
        mask = additive(joint_mask(text_mask, visual_tokens), states.dtype)  # (M·K, 1, 1, L+S)
        states = self.transformer(states, attention_mask=mask).last_hidden_state
        return self.normalize(states.unflatten(0, (texts, clips))[:, :, : text_ids.shape[1]])  # (M, K, L, D)

    def normalize(self, states: Tensor) -> Tensor:
        """Normalize states after the last layer, (..., D)."""
        return self.norm(states)

    def pool(self, text_states: Tensor) -> Tensor:
        """Return pooled [CLS] states, (M, K, D), of text states (M, K, L, D)."""
        return self.pooler(text_states.flatten(0, 1)).unflatten(0, text_states.shape[:2])

    def pair_encoder(self, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> PairEncoder:
        """Return this encoder for many pairs at once; arguments as for :class:`PairEncoder`."""
        return PairEncoder(self, precision=precision, tokens_per_pass=tokens_per_pass)
