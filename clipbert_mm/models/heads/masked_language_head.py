"""Masked language modeling, the second objective of pre-training (Section 3 of the paper)."""

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import IGNORED


@MODELS.register_module()
class MaskedLanguageHead(BaseModule):
    """BERT's head over masked tokens; its decoder is the word embedding matrix of the encoder.

    Args:
        in_channels: Width D of the encoder.
        vocab_size: Number of tokens in the vocabulary.
        tied: Whether the decoder is the word embedding matrix; ViLT's authors trained one of its own.
        layer_norm_eps: Epsilon of the LayerNorm.
        init_cfg: MMEngine's initialization config.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        vocab_size: int,
        tied: bool = True,
        layer_norm_eps: float = 1e-12,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(init_cfg or dict(type="Normal", layer="Linear", std=0.02))
        self.transform = nn.Sequential(
            nn.Linear(in_channels, in_channels), nn.GELU(), nn.LayerNorm(in_channels, eps=layer_norm_eps)
        )
        self.decoder = None if tied else nn.Parameter(nn.init.normal_(torch.empty(vocab_size, in_channels), std=0.02))
        self.bias = nn.Parameter(Tensor(vocab_size).zero_())

    def forward(self, states: Tensor, word_embeddings: Tensor) -> Tensor:
        """Return logits (N, vocab_size) of token states (N, D).

        Raises:
            OptionError: If the word embeddings have another width than D.
        """
        if word_embeddings.shape[1] != states.shape[-1]:
            raise OptionError(
                f"MaskedLanguageHead decodes with the word embeddings of the encoder and expects its width {states.shape[-1]}, "
                f"got {word_embeddings.shape[1]}. Use an encoder without a projection after its embeddings."
            )
        return F.linear(self.transform(states), word_embeddings if self.decoder is None else self.decoder, self.bias)

    def loss(self, text_states: Tensor, word_embeddings: Tensor, mlm_labels: Tensor) -> dict[str, Tensor]:
        """Compute the cross entropy over the masked tokens and, for the log, the accuracy.

        Args:
            text_states: Last states of the text tokens, (M, K, L, D); each clip predicts the tokens on its own.
            word_embeddings: Word embedding matrix, (vocab_size, D).
            mlm_labels: Original token ids, ``IGNORED`` where nothing is predicted, (M, L).
        """
        logits, labels = self._masked(text_states, word_embeddings, mlm_labels)
        # The sum over max(count, 1) is finite, with gradient zero, for a batch without masked tokens.
        count = max(len(labels), 1)
        accuracy = (logits.detach().argmax(dim=1) == labels).float().sum() / count
        return {"loss_mlm": F.cross_entropy(logits, labels, reduction="sum") / count, "mlm_accuracy": accuracy}

    def is_correct(self, text_states: Tensor, word_embeddings: Tensor, mlm_labels: Tensor) -> Tensor:
        """Return which masked tokens are predicted correctly, bool (masked tokens,); arguments as for :meth:`loss`."""
        logits, labels = self._masked(text_states, word_embeddings, mlm_labels)
        return logits.argmax(dim=1) == labels

    def _masked(self, text_states: Tensor, word_embeddings: Tensor, mlm_labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (masked tokens, vocab_size) and labels (masked tokens,)."""
        labels = mlm_labels[:, None].expand(text_states.shape[:3])  # (M, K, L)
        masked = labels != IGNORED
        return self(text_states[masked], word_embeddings).float(), labels[masked]
