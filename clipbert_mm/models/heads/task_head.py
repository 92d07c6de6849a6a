"""The base classes of task heads: what each head defines, access to the labels, and the classifier on a pooled state."""

from abc import abstractmethod

import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.structures import VideoTextSample


class BaseHead(BaseModule):
    """What each head defines: clip logits of pooled states, losses, and what its scores mean."""

    task: str
    """The task in words, which checkpoints store."""
    score_kind = "rank"
    """The kind of the scores, such as "cosine" or "count"; "log-odds" and "log-probability" stand for probabilities, and a
    "rank" only orders."""

    @abstractmethod
    def forward(self, pooled_states: Tensor) -> Tensor:
        """Return clip logits (M, K, C) of the encoder's pooled states (M, K, D)."""

    @abstractmethod
    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute losses, and figures for the log, from logits pooled over clips, (M, C)."""

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """Turn logits pooled over clips, (M, C), into scores."""

    def log_odds(self, logits: Tensor) -> Tensor | None:
        """Return the log-odds of a match, (M,), of logits pooled over clips, (M, C); None if the model has none."""
        return None

    def labels_of(self, data_samples: list[VideoTextSample], field: str, logits: Tensor) -> Tensor:
        """Concatenate a field of the samples, one entry per row of the logits, on the device of the logits.

        Raises:
            OptionError: If a sample lacks the field, or there are more or fewer entries than rows.
        """
        labels = self.concatenate(data_samples, field, logits.device)
        if len(labels) != len(logits):
            raise OptionError(
                f"{type(self).__name__} needs {field} for each of {len(logits)} texts, got {len(labels)}."
            )
        return labels

    def concatenate(self, data_samples: list[VideoTextSample], field: str, device: torch.device) -> Tensor:
        """Concatenate a field of the samples along its first axis.

        Raises:
            OptionError: If a sample lacks the field.
        """
        for sample in data_samples:
            if field not in sample:
                raise OptionError(f"{type(self).__name__} needs {field} to train on, got none for {sample.path}.")
        return torch.from_numpy(np.concatenate([sample.get(field) for sample in data_samples])).to(device)


class TaskHead(BaseHead):
    """A classifier on pooled [CLS] states; subclasses define what its outputs mean.

    Args:
        in_channels: Width D of the encoder.
        out_channels: Outputs C.
        hidden_channels: Width of the hidden layer of a two-layer MLP, 2·D in the paper's release; None for one linear layer,
            as in its pre-training.
        dropout: Dropout probability before the classifier.
        init_cfg: MMEngine's initialization config.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        out_channels: int,
        hidden_channels: int | None,
        dropout: float,
        init_cfg: dict | list | None,
    ) -> None:
        super().__init__(init_cfg or dict(type="Normal", layer="Linear", std=0.02))
        self.dropout = nn.Dropout(dropout)
        self.classifier: nn.Module
        if hidden_channels is None:
            self.classifier = nn.Linear(in_channels, out_channels)
        else:
            self.classifier = nn.Sequential(
                nn.Linear(in_channels, hidden_channels), nn.ReLU(), nn.Linear(hidden_channels, out_channels)
            )

    def forward(self, cls_states: Tensor) -> Tensor:
        """Return clip logits (M, K, C) of pooled [CLS] states (M, K, D)."""
        return self.classifier(self.dropout(cls_states))
