"""Does this text belong to this video? For retrieval (appendix B of the paper) and for image-text matching."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.errors import OptionError
from clipbert_mm.models.heads.task_head import TaskHead
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import LOG_ODDS, VideoTextSample

MATCHED = 1
"""The class for text and video that belong together."""


@MODELS.register_module()
class MatchingHead(TaskHead):
    """Two classes, not matched and matched, and their cross entropy.

    Args:
        in_channels: Width D of the encoder.
        hidden_channels: Width of the hidden layer, 2·D in the paper's release for retrieval; None for one linear layer, as in
            its pre-training.
        dropout: Dropout probability before the classifier.
        prior: Shares of matching pairs, in training and where the model is used, such as (0.2, 0.08) for four negatives a
            caption and a search in which one video in twelve is right. The scores are corrected by Bayes' rule for the
            second one: a constant is added to all log-odds, so that ranks stay. None corrects nothing.
        init_cfg: MMEngine's initialization config.
    """

    task = "retrieval"
    score_kind = LOG_ODDS

    def __init__(
        self,
        *,
        in_channels: int,
        hidden_channels: int | None,
        dropout: float = 0.1,
        prior: tuple[float, float] | None = None,
        init_cfg: dict | list | None = None,
    ) -> None:
        if prior is not None and (len(prior) != 2 or not all(0 < share < 1 for share in prior)):
            raise OptionError(
                "MatchingHead expects a prior of two shares between 0 and 1, of matching pairs in training and in use, got "
                f"{prior}."
            )
        super().__init__(
            in_channels=in_channels,
            out_channels=2,
            hidden_channels=hidden_channels,
            dropout=dropout,
            init_cfg=init_cfg,
        )
        trained, used = prior or (0.5, 0.5)
        self.shift = math.log(used / (1 - used)) - math.log(trained / (1 - trained))

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the cross entropy of pooled logits (Eq. 6 of the paper) and, for the log, the accuracy.

        Args:
            logits: Logits of every text and its video, pooled over clips, (M, 2).
            data_samples: The items with their ``match_labels``, M in all.

        Raises:
            OptionError: If a label is missing.
        """
        labels = self.labels_of(data_samples, "match_labels", logits)  # (M,)
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return {"loss_match": F.cross_entropy(logits, labels), "match_accuracy": accuracy}

    def scores(self, logits: Tensor) -> Tensor:
        """Return the log-odds of a match, (M,), of logits (M, 2): they keep the order where probabilities round to 1."""
        return self.log_odds(logits)

    def log_odds(self, logits: Tensor) -> Tensor:
        """Return the log-odds of a match, (M,), of logits (M, 2 or more)."""
        return logits[:, MATCHED] - logits[:, 1 - MATCHED] + self.shift


@MODELS.register_module()
class SimilarityMatchingHead(MatchingHead):
    """BLIP's matching: two classes, and the cosine similarity of text and clip that the encoder gives as one more channel.

    The scores are those by which BLIP ranks videos (Li et al., ICML 2022, Section 5.5): the logit of a match plus the
    similarity. They are no log-odds, which :meth:`MatchingHead.log_odds` gives.

    Args:
        in_channels: Width D of the encoder, without the channel of the similarity.
        hidden_channels: Width of the hidden layer; None for one linear layer, as in BLIP.
        dropout: Dropout probability before the classifier.
        init_cfg: MMEngine's initialization config.
    """

    score_kind = "logit + similarity"

    def __init__(
        self,
        *,
        in_channels: int,
        hidden_channels: int | None = None,
        dropout: float = 0.0,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(in_channels=in_channels, hidden_channels=hidden_channels, dropout=dropout, init_cfg=init_cfg)

    def forward(self, cls_states: Tensor) -> Tensor:
        """Return clip logits and similarities, (M, K, 3), of pooled states with a similarity each, (M, K, D + 1)."""
        return torch.cat([super().forward(cls_states[..., :-1]), cls_states[..., -1:]], dim=2)

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the cross entropy as :class:`MatchingHead` does; the similarity takes no part in it."""
        return super().loss(logits[:, :2], data_samples)

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logit of a match plus the similarity, (M,), of logits (M, 3)."""
        return logits[:, MATCHED] + logits[:, 2]
