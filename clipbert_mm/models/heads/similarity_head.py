"""Scores of models of two towers: the cosine similarity of a text and a clip."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.models.heads.matching_head import MATCHED
from clipbert_mm.models.heads.task_head import BaseHead
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import COSINE, VideoTextSample


class CosineHead(BaseHead):
    """The cosine similarity, which the encoder gives, is the only logit and the score; subclasses define the loss.

    Args:
        init_cfg: MMEngine's initialization config.
    """

    task = "retrieval"
    score_kind = COSINE

    def forward(self, pooled_states: Tensor) -> Tensor:
        """Return the similarities, (M, K, 1), as clip logits."""
        return pooled_states

    def scores(self, logits: Tensor) -> Tensor:
        """Return the similarities, (M,), of logits (M, 1)."""
        return logits[:, 0]


@MODELS.register_module()
class SimilarityHead(CosineHead):
    """Cosine similarity with CLIP's loss: a softmax over the texts of a video (Radford et al., ICML 2021).

    Its softmax compares texts of one batch, so that a score alone stands for no probability.

    Args:
        init_cfg: MMEngine's initialization config.
    """

    def __init__(self, *, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg)
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the cross entropy over the texts of each video and, for the log, how often a right one is first.

        Args:
            logits: Similarities of every text and its video, pooled over clips, (M, 1).
            data_samples: The items with their ``match_labels``, M in all.

        Raises:
            OptionError: If a label is missing, or a video lacks texts that match or texts that do not.
        """
        matches = self.labels_of(data_samples, "match_labels", logits) == MATCHED  # (M,)
        counts = [len(sample.match_labels) for sample in data_samples]
        scaled = logits[:, 0] * self.logit_scale.exp()  # (M,)
        losses, is_first = [], []
        for sample, texts, match in zip(data_samples, scaled.split(counts), matches.split(counts), strict=True):
            if len(np.unique(sample.match_labels == MATCHED)) < 2:
                raise OptionError(
                    f"SimilarityHead compares texts that match a video with texts that do not, got match_labels "
                    f"{sample.match_labels.tolist()} for {sample.path}. Set num_negatives of the dataset to 1 or more."
                )
            losses.append(texts.logsumexp(dim=0) - texts[match].logsumexp(dim=0))
            is_first.append(match[texts.detach().argmax()].float())
        return {"loss_match": torch.stack(losses).mean(), "match_accuracy": torch.stack(is_first).mean()}


@MODELS.register_module()
class SigmoidSimilarityHead(CosineHead):
    """Cosine similarity with SigLIP's loss: a sigmoid per pair of a text and a video (Zhai et al., ICCV 2023).

    By its training, the scaled and shifted similarity is the log-odds of a match.

    Args:
        init_cfg: MMEngine's initialization config.
    """

    def __init__(self, *, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg)
        self.logit_scale = nn.Parameter(torch.tensor([math.log(10)]))
        self.logit_bias = nn.Parameter(torch.tensor([-10.0]))

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the binary cross entropy of each pair and, for the log, the accuracy.

        Args:
            logits: Similarities of every text and its video, pooled over clips, (M, 1).
            data_samples: The items with their ``match_labels``, M in all.

        Raises:
            OptionError: If a label is missing.
        """
        matches = self.labels_of(data_samples, "match_labels", logits) == MATCHED  # (M,)
        odds = self.log_odds(logits)
        loss = F.binary_cross_entropy_with_logits(odds, matches.to(odds.dtype))
        return {"loss_match": loss, "match_accuracy": ((odds.detach() > 0) == matches).float().mean()}

    def log_odds(self, logits: Tensor) -> Tensor:
        """Return the log-odds of a match, (M,), of logits (M, 1)."""
        return logits[:, 0] * self.logit_scale.exp() + self.logit_bias
