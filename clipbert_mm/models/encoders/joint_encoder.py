"""Cross-modal fusion: BERT over the tokens of a text followed by those of a clip (Section 3, Figure 2 of the paper)."""

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from clipbert_mm.registry import MODELS


class VisualEmbedding(nn.Module):
    """Adds what tells a grid cell's place and kind: row, column and type embeddings, LayerNorm, dropout.

    Args:
        hidden_size: Width D.
        grid_size: Most rows and columns a grid may have.
        dropout: Dropout probability.
        pixel_sampling: Grid cells kept in training, drawn without replacement, one draw for the whole batch; None keeps
            all (pixel random sampling of Pixel-BERT, used by the paper in pre-training alone).
        layer_norm_eps: Epsilon of the LayerNorm.
        std: Standard deviation of the initial embeddings.
    """

    def __init__(
        self,
        *,
        hidden_size: int,
        grid_size: int,
        dropout: float,
        pixel_sampling: int | None,
        layer_norm_eps: float,
        std: float,
    ) -> None:
        super().__init__()
        self.row_embeddings = nn.Embedding(grid_size, hidden_size)
        self.column_embeddings = nn.Embedding(grid_size, hidden_size)
        self.type_embedding = nn.Embedding(1, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)
        self.dropout = nn.Dropout(dropout)
        self.pixel_sampling = pixel_sampling
        for embedding in (self.row_embeddings, self.column_embeddings, self.type_embedding):
            nn.init.normal_(embedding.weight, std=std)

    def forward(self, features: Tensor) -> Tensor:
        """Embed grid features of clips, (B, K, D, h, w), as visual tokens, (B, K, S, D) with S = h·w."""
        height, width = features.shape[-2:]
        limit = self.row_embeddings.num_embeddings
        if max(height, width) > limit:
            raise ValueError(
                f"JointEncoder has places for a grid of {limit} x {limit}, got {height} x {width}. Raise its grid_size "
                "or shrink the frames."
            )
        tokens = features.permute(0, 1, 3, 4, 2)  # (B, K, h, w, D)
        places = self.row_embeddings.weight[:height, None] + self.column_embeddings.weight[:width]  # (h, w, D)
        tokens = tokens + places + self.type_embedding.weight[0]
        tokens = self.dropout(self.norm(tokens)).flatten(2, 3)  # (B, K, S, D)
        if self.training and self.pixel_sampling is not None and self.pixel_sampling < tokens.shape[2]:
            kept = torch.randperm(tokens.shape[2], device=tokens.device)[: self.pixel_sampling]
            tokens = tokens[:, :, kept]  # (B, K, S', D)
        return tokens


@MODELS.register_module()
class JointEncoder(BaseModule):
    """BERT over text tokens followed by visual tokens; only text padding is masked.

    Args:
        vocab_size: Number of word pieces.
        hidden_size: Width D.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        max_text_length: Longest text, in word pieces.
        dropout: Dropout probability of embeddings, layers and attention.
        grid_size: Most rows and columns of a clip's grid.
        pixel_sampling: Visual tokens kept in training; None keeps all. 100 in the paper's pre-training.
        initializer_range: Standard deviation of the initial weights. BERT's 0.02 is for a width of 768; a narrow encoder
            learns far sooner from about 0.55 / sqrt(D), which lets each layer pass on as much.
        pretrained: A Hugging Face folder or name of a BERT to start from; it has to agree with the sizes above.
    """

    def __init__(
        self,
        *,
        vocab_size: int = 30522,
        hidden_size: int = 768,
        num_layers: int = 12,
        num_heads: int = 12,
        intermediate_size: int = 3072,
        max_text_length: int = 512,
        dropout: float = 0.1,
        grid_size: int = 100,
        pixel_sampling: int | None = None,
        initializer_range: float = 0.02,
        pretrained: str | None = None,
    ) -> None:
        super().__init__()
        config = BertConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=max_text_length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            initializer_range=initializer_range,
            attn_implementation="sdpa",
        )
        # A whole BertModel, since a BertEncoder built alone is not initialised as BERT is.
        self.bert = BertModel(config) if pretrained is None else BertModel.from_pretrained(pretrained, config=config)
        self.visual_embedding = VisualEmbedding(
            hidden_size=hidden_size,
            grid_size=grid_size,
            dropout=dropout,
            pixel_sampling=pixel_sampling,
            layer_norm_eps=config.layer_norm_eps,
            std=config.initializer_range,
        )

    @property
    def word_embeddings(self) -> Tensor:
        """The word embedding matrix, (vocab_size, D); the masked-language head decodes with it."""
        return self.bert.embeddings.word_embeddings.weight

    def embed_clips(self, features: Tensor) -> Tensor:
        """Embed grid features of clips, (B, K, D, h, w), as visual tokens, (B, K, S, D)."""
        return self.visual_embedding(features)

    def forward(self, text_ids: Tensor, text_mask: Tensor, visual_tokens: Tensor) -> Tensor:
        """Let each text and each clip of its video look at one another.

        Args:
            text_ids: Word pieces, int64 (M, L), [CLS] first.
            text_mask: 1 for word pieces, 0 for padding, (M, L).
            visual_tokens: Tokens of the clips of each text's video, (M, K, S, D).

        Returns:
            Last states of the text tokens, beside each clip: (M, K, L, D).

        Raises:
            ValueError: If a text is longer than ``max_text_length``.
        """
        texts, clips, cells, _ = visual_tokens.shape
        length = text_ids.shape[1]
        if length > self.bert.config.max_position_embeddings:
            raise ValueError(
                f"JointEncoder takes texts of at most {self.bert.config.max_position_embeddings} word pieces, got "
                f"{length}. Lower max_length of Tokenize or raise max_text_length of the encoder."
            )
        text = self.bert.embeddings(input_ids=text_ids)  # (M, L, D)
        text = text[:, None].expand(-1, clips, -1, -1)  # (M, K, L, D)
        states = torch.cat([text, visual_tokens.to(text.dtype)], dim=2).flatten(0, 1)  # (M·K, L+S, D)
        mask = torch.cat([text_mask, text_mask.new_ones(texts, cells)], dim=1)  # (M, L+S)
        # BertEncoder wants the additive mask; a boolean one is wrong in silence with some kinds of attention.
        bias = (1.0 - mask.to(states.dtype)) * torch.finfo(states.dtype).min
        bias = bias.repeat_interleave(clips, dim=0)[:, None, None]  # (M·K, 1, 1, L+S)
        states = self.bert.encoder(states, attention_mask=bias).last_hidden_state
        return states.unflatten(0, (texts, clips))[:, :, :length]  # (M, K, L, D)

    def pool(self, text_states: Tensor) -> Tensor:
        """Return BERT's pooled [CLS] states, (M, K, D), of text states (M, K, L, D)."""
        return self.bert.pooler(text_states.flatten(0, 1)).unflatten(0, text_states.shape[:2])
