"""Cross-modal fusion: BERT over the tokens of a text followed by those of a clip (Section 3, Figure 2 of the paper)."""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from mmengine.model import BaseModule
from torch import Tensor, nn
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel, PretrainedConfig
from transformers.models.bert.modeling_bert import BertPooler

from clipbert_mm.checkpoint.building import Bounded
from clipbert_mm.errors import CheckpointError, OptionError, printable, quoted
from clipbert_mm.models.encoders.attention import additive, joint_mask
from clipbert_mm.models.encoders.pair_encoder import PairEncoder
from clipbert_mm.models.encoders.shortlist_vectors import ShortlistVectors
from clipbert_mm.registry import MODELS
from clipbert_mm.trusted import check_text_model

MOST_BYTES, MOST_OPERATIONS = 2**36, 50_000
"""Limits for building a model of the sizes in a Hugging Face folder; a BERT-large takes 2**31 bytes and 2,000 operations."""


class VisualEmbedding(nn.Module):
    """Add row, column and type embeddings to grid features, then LayerNorm and dropout.

    Args:
        hidden_size: Width D.
        grid_size: Largest number of rows and columns of a grid.
        dropout: Dropout probability.
        pixel_sampling: Grid cells kept in training, drawn without replacement, one draw for the whole batch; None keeps
            all (pixel random sampling of Pixel-BERT, which the paper uses only in pre-training).
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
            raise OptionError(
                f"JointEncoder has position embeddings for a grid of {limit} x {limit}, got {height} x {width}. Raise its "
                "grid_size or shrink the frames."
            )
        tokens = features.permute(0, 1, 3, 4, 2)  # (B, K, h, w, D)
        positions = self.row_embeddings.weight[:height, None] + self.column_embeddings.weight[:width]  # (h, w, D)
        tokens = tokens + positions + self.type_embedding.weight[0]
        tokens = self.dropout(self.norm(tokens)).flatten(2, 3)  # (B, K, S, D)
        if self.training and self.pixel_sampling is not None and self.pixel_sampling < tokens.shape[2]:
            kept = torch.randperm(tokens.shape[2], device=tokens.device)[: self.pixel_sampling]
            tokens = tokens[:, :, kept]  # (B, K, S', D)
        return tokens


DROPOUTS = {"hidden_dropout_prob": "dropout", "attention_probs_dropout_prob": "attention_dropout"}
"""BERT's names of the dropout probabilities, and DistilBERT's."""


def build_text_model(architecture: str, sizes: dict[str, Any]) -> Any:  # noqa: ANN401
    """Build a BERT-like model of transformers with random weights.

    Args:
        architecture: A model type of transformers ("bert", "roberta", "electra", ...), or a Hugging Face folder or name whose
            config says type and sizes.
        sizes: Values that override those of its config.

    Raises:
        OptionError: If there is no such architecture, or it does not consist of embeddings and an encoder, as BERT does.
        CheckpointError: If the folder or name is another kind of model, or needs code of its own.
    """
    if architecture in CONFIG_MAPPING:
        try:
            config = AutoConfig.for_model(architecture, **sizes)
        except Exception as error:  # each architecture has its own checks
            raise OptionError(f"JointEncoder cannot use '{architecture}' with the sizes {sizes}: {error}") from error
    else:
        try:
            settings, _ = PretrainedConfig.get_config_dict(architecture)
            if not settings.keys() - {"_commit_hash"}:
                raise FileNotFoundError(architecture)
            check_text_model(settings, f"The architecture {printable(architecture)}")
            config = AutoConfig.from_pretrained(architecture, trust_remote_code=False)
        except CheckpointError:
            raise
        except (OSError, ValueError) as error:
            raise OptionError(
                f"The architecture '{architecture}' is neither a model type of transformers, nor a folder with a config.json, "
                "nor a name that Hugging Face knows. Give a type such as 'bert' with its sizes, or a folder."
            ) from error
        except Exception as error:  # transformers has many checks
            raise CheckpointError(
                f"The config.json of the architecture {printable(architecture)} is damaged: {quoted(str(error))}."
            ) from error
        config.update(sizes)
    for name, own_name in DROPOUTS.items():
        if name in sizes and hasattr(config, own_name):
            setattr(config, own_name, sizes[name])
    with nullcontext() if architecture in CONFIG_MAPPING else Bounded(MOST_BYTES, MOST_OPERATIONS):
        model = _from_config(config)
    positions = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    padding = getattr(positions, "padding_idx", None)
    if "max_position_embeddings" in sizes and padding is not None:
        # RoBERTa and its variants start positions after the index of the padding.
        config.max_position_embeddings += padding + 1
        model = _from_config(config)
    parts = {name for name, _ in model.named_children()}
    if parts == {"embeddings", "transformer"}:  # DistilBERT
        model.encoder = model._modules.pop("transformer")
    elif not {"embeddings", "encoder"} <= parts <= {"embeddings", "embeddings_project", "encoder", "pooler"}:
        raise OptionError(
            f"JointEncoder takes models that consist of embeddings and an encoder, as bert, roberta and electra do; "
            f"'{config.model_type}' has {', '.join(sorted(parts))}."
        )
    if "pooler" not in parts:  # ELECTRA and DistilBERT have none
        model.pooler = BertPooler(config)
        nn.init.normal_(model.pooler.dense.weight, std=config.initializer_range)
        nn.init.zeros_(model.pooler.dense.bias)
    return model


def _from_config(config: Any) -> Any:  # noqa: ANN401
    """Build a whole model of transformers, because an encoder built alone is not initialized the way BERT is."""
    for attention in ("sdpa", "eager"):  # not every model has the faster one
        try:
            # A config may ask for half precision, but the optimizer wrapper decides about mixed precision.
            return AutoModel.from_config(config, attn_implementation=attention).float()
        except Exception as error:  # settings may come from a file, and each architecture has its own errors
            reason = error
    raise OptionError(f"JointEncoder cannot use '{config.model_type}': {quoted(str(reason))}") from reason


@MODELS.register_module()
class JointEncoder(BaseModule):
    """BERT, or a model like it, over text tokens followed by visual tokens; padding of both is masked.

    The weights are random; ``load_from`` of the config loads those of a Hugging Face folder or name. Sizes that are None are
    the architecture's own: those of BERT-base for "bert".

    Args:
        architecture: A model type of transformers ("bert", "roberta", "electra", ...), or a Hugging Face folder or name whose
            config says type and sizes.
        vocab_size: Number of tokens in the vocabulary.
        hidden_size: Width D.
        num_layers: Transformer layers.
        num_heads: Attention heads.
        intermediate_size: Width of the feed-forward layers.
        max_text_length: Longest text, in tokens.
        dropout: Dropout probability of embeddings, layers and attention.
        grid_size: Largest number of rows and columns of a clip's grid.
        pixel_sampling: Visual tokens kept in training; None keeps all. 100 in the paper's pre-training.
        initializer_range: Standard deviation of the initial weights. BERT's 0.02 is for a width of 768; a narrow encoder
            learns much faster with about 0.55 / sqrt(D), which keeps the variance of each layer the same.
        attention: Implementation of attention: "sdpa" for torch's fused kernels ("eager" where the architecture has none),
            "eager", or "flash_attention_2" of the package flash-attn, on a GPU in mixed precision. All agree to rounding.
        vector_size: Width P of vectors of texts and clips to shortlist videos by, which a
            :class:`~clipbert_mm.models.vector_distillation.VectorDistillation` trains; None for none, as in the paper.

    Raises:
        OptionError: If the architecture cannot be used, or the attention is unknown or not installed.
    """

    def __init__(
        self,
        *,
        architecture: str = "bert",
        vocab_size: int | None = None,
        hidden_size: int | None = None,
        num_layers: int | None = None,
        num_heads: int | None = None,
        intermediate_size: int | None = None,
        max_text_length: int | None = None,
        dropout: float = 0.1,
        grid_size: int = 100,
        pixel_sampling: int | None = None,
        initializer_range: float = 0.02,
        attention: str = "sdpa",
        vector_size: int | None = None,
    ) -> None:
        super().__init__()
        sizes = dict(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            intermediate_size=intermediate_size,
            max_position_embeddings=max_text_length,
            hidden_dropout_prob=dropout,
            attention_probs_dropout_prob=dropout,
            initializer_range=initializer_range,
        )
        self.bert: Any = build_text_model(
            architecture, {key: value for key, value in sizes.items() if value is not None}
        )
        self.visual_embedding = VisualEmbedding(
            hidden_size=self.bert.config.hidden_size,
            grid_size=grid_size,
            dropout=dropout,
            pixel_sampling=pixel_sampling,
            layer_norm_eps=getattr(self.bert.config, "layer_norm_eps", 1e-12),
            std=initializer_range,
        )
        self.vector_size, self.has_vectors = vector_size, vector_size is not None
        self.vectors: Any = None
        if vector_size is not None:
            self.vectors = ShortlistVectors(hidden_size=self.bert.config.hidden_size, vector_size=vector_size)
        self.check_architecture()
        if attention != "sdpa":
            self._use_attention(attention)

    def _use_attention(self, attention: str) -> None:
        try:
            self.bert.set_attn_implementation(attention)
        except (ImportError, ValueError) as error:
            raise OptionError(
                f"JointEncoder cannot compute attention with '{attention}': {error} Set attention='sdpa', or install what is "
                "missing (pip install flash-attn for 'flash_attention_2')."
            ) from error

    @torch.no_grad()
    def check_architecture(self) -> None:
        """Check that the architecture runs as BERT does, and that masked tokens change nothing.

        Raises:
            OptionError: If it does not.
        """
        weight = self.word_embeddings
        if weight.is_meta:
            return
        ids = torch.tensor([[2, 3, 4]], device=weight.device)
        mask = torch.tensor([[1, 1, 0]], device=weight.device)
        cells = weight.new_ones(1, 1, 1, self.bert.config.hidden_size)
        was_training = self.training
        self.eval()
        try:
            padded, alone = self(ids, mask, cells)[:, :, :2], self(ids[:, :2], mask[:, :2], cells)
            reason = (
                None
                if torch.allclose(padded, alone, rtol=1e-3, atol=1e-3)
                else "its attention ignores the padding mask"
            )
        except Exception as error:  # each architecture has its own errors
            reason = str(error)
        self.train(was_training)
        if reason is not None:
            raise OptionError(f"JointEncoder cannot use '{self.bert.config.model_type}' in place of BERT: {reason}.")

    pads_tokens = False
    """Whether visual tokens of zeros are padding; the clips of this encoder all have the same number of tokens."""
    layers = "bert.encoder.layer"
    """Name of the list of layers, for activation checkpointing."""
    compares_vectors = False
    """Whether the visual tokens of a clip are its vector, and nothing else is compared."""

    @property
    def transformer(self) -> Any:  # noqa: ANN401
        """The layers, as one module."""
        return self.bert.encoder

    @property
    def visual_size(self) -> int:
        """Width of the visual tokens."""
        return self.bert.config.hidden_size

    @property
    def text_config(self) -> Any:  # noqa: ANN401
        """Sizes of the transformer, as transformers names them."""
        return self.bert.config

    @property
    def word_embeddings(self) -> Tensor:
        """The word embedding matrix, (vocab_size, D); the masked-language head decodes with it."""
        return self.bert.embeddings.word_embeddings.weight

    @property
    def max_text_length(self) -> int:
        """The longest text, in tokens; RoBERTa does not use the positions up to the index of its padding."""
        positions = getattr(self.bert.embeddings, "position_embeddings", None)
        if positions is None:  # the encoder adds positions itself
            return self.bert.config.max_position_embeddings
        return positions.num_embeddings - (0 if positions.padding_idx is None else positions.padding_idx + 1)

    def grid(self, values: Tensor, frame_shape: Sequence[int]) -> Tensor:
        """Arrange a value per visual token of a clip, (S,), as its cells lie on frames of (H, W) pixels, which are square."""
        side = math.isqrt(len(values))
        return values.view(side, side)

    def embed_clips(self, features: Tensor) -> Tensor:
        """Embed grid features of clips, (B, K, D, h, w), as visual tokens, (B, K, S, D)."""
        return self.visual_embedding(features)

    def embed_texts(self, text_ids: Tensor) -> Tensor:
        """Embed token ids, int64 (M, L), as text tokens, (M, L, D).

        Raises:
            OptionError: If a text is longer than ``max_text_length``.
        """
        if text_ids.shape[1] > self.max_text_length:
            raise OptionError(
                f"JointEncoder takes texts of at most {self.max_text_length} tokens, got {text_ids.shape[1]}. Lower "
                "max_length of Tokenize or raise max_text_length of the encoder."
            )
        text = self.bert.embeddings(input_ids=text_ids)
        if hasattr(self.bert, "embeddings_project"):  # narrow embeddings, as in ELECTRA-small
            text = self.bert.embeddings_project(text)
        return text

    def forward(self, text_ids: Tensor, text_mask: Tensor, visual_tokens: Tensor) -> Tensor:
        """Run the encoder over each text with each clip of its video.

        Args:
            text_ids: Token ids, int64 (M, L), [CLS] first.
            text_mask: 1 for tokens, 0 for padding, (M, L).
            visual_tokens: Tokens of the clips of the video of each text, (M, K, S, D).

        Returns:
            Last states of the text tokens with each clip, (M, K, L, D).

        Raises:
            OptionError: If a text is longer than ``max_text_length``.
        """
        texts, clips = visual_tokens.shape[:2]
        length = text_ids.shape[1]
        text = self.embed_texts(text_ids)  # (M, L, D)
        text = text[:, None].expand(-1, clips, -1, -1)  # (M, K, L, D)
        states = torch.cat([text, visual_tokens.to(text.dtype)], dim=2).flatten(0, 1)  # (M·K, L+S, D)
        mask = joint_mask(text_mask, visual_tokens)  # (M·K, L+S)
        if not self.bert.config._attn_implementation.startswith("flash"):  # flash attention removes masked tokens
            # BertEncoder needs an additive mask; with a boolean one some kinds of attention are silently wrong.
            mask = additive(mask, states.dtype)
        states = self.bert.encoder(states, attention_mask=mask).last_hidden_state
        return states.unflatten(0, (texts, clips))[:, :, :length]  # (M, K, L, D)

    def text_vectors(self, text_ids: Tensor, text_mask: Tensor) -> Tensor:
        """Return unit vectors of texts, (M, P), from their embedded tokens; arguments as for :meth:`forward`."""
        return self.vectors.text(self.embed_texts(text_ids), text_mask)

    def clip_vectors(self, visual_tokens: Tensor) -> Tensor:
        """Return unit vectors, (..., P), of clips, (..., S, D)."""
        return self.vectors.clip(visual_tokens.to(self.word_embeddings.dtype))

    def normalize(self, states: Tensor) -> Tensor:
        """Return states after the last layer, which ends with a norm, as they are."""
        return states

    def pool(self, text_states: Tensor) -> Tensor:
        """Return BERT's pooled [CLS] states, (M, K, D), of text states (M, K, L, D)."""
        return self.bert.pooler(text_states.flatten(0, 1)).unflatten(0, text_states.shape[:2])

    def pair_encoder(self, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> PairEncoder:
        """Return this encoder for many pairs at once; arguments as for :class:`PairEncoder`."""
        return PairEncoder(self, precision=precision, tokens_per_pass=tokens_per_pass)
