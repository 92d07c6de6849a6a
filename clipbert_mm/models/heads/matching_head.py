"""Does this text belong to this video? For retrieval (appendix B of the paper) and for image-text matching."""

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample

MATCHED = 1
"""The class that says that text and video belong together."""


@MODELS.register_module()
class MatchingHead(BaseModule):
    """Two-layer MLP on the pooled [CLS] state, two classes: not matched, matched.

    Args:
        in_channels: Width D of the encoder.
        hidden_channels: Width of the hidden layer; the paper's release has 2·D.
        dropout: Dropout probability before the MLP.
        init_cfg: MMEngine's initialisation config.
    """

    def __init__(
        self, *, in_channels: int, hidden_channels: int, dropout: float = 0.1, init_cfg: dict | list | None = None
    ) -> None:
        super().__init__(init_cfg or dict(type="Normal", layer="Linear", std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Sequential(
            nn.Linear(in_channels, hidden_channels), nn.ReLU(), nn.Linear(hidden_channels, 2)
        )

    def forward(self, cls_states: Tensor) -> Tensor:
        """Return clip logits (M, K, 2) of pooled [CLS] states (M, K, D)."""
        return self.classifier(self.dropout(cls_states))

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the cross entropy of pooled logits (Eq. 6 of the paper) and, for the log, the accuracy.

        Args:
            logits: Logits of every text and its video, pooled over clips, (M, 2).
            data_samples: The items with their ``match_labels``, M in all.

        Raises:
            ValueError: If a label is missing.
        """
        for sample in data_samples:
            if "match_labels" not in sample:
                raise ValueError(f"MatchingHead needs match_labels to train on, got none for {sample.path}.")
        match_labels = np.concatenate([sample.match_labels for sample in data_samples])
        labels = torch.from_numpy(match_labels).to(logits.device)  # (M,)
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return {"loss_match": F.cross_entropy(logits, labels), "match_accuracy": accuracy}

    def scores(self, logits: Tensor) -> Tensor:
        """Return the log-odds of a match, (M,), of logits (M, 2): order-true where probabilities round to 1."""
        return logits[:, MATCHED] - logits[:, 1 - MATCHED]
