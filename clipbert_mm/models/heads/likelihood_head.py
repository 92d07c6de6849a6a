"""Answers rated by their likelihood, for encoders that decode candidates."""

import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.errors import OptionError
from clipbert_mm.models.heads.task_head import BaseHead
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample
from clipbert_mm.structures.answer_vocabulary import CANDIDATES


@MODELS.register_module()
class LikelihoodHead(BaseHead):
    """Log-likelihoods of candidate answers, which the encoder gives, as logits; a softmax compares the candidates.

    Args:
        init_cfg: MMEngine's initialization config.
    """

    task = CANDIDATES
    score_kind = "log-probability"

    def __init__(self, *, init_cfg: dict | list | None = None) -> None:
        super().__init__(init_cfg)

    def forward(self, pooled_states: Tensor) -> Tensor:
        """Return the log-likelihoods, (M, K, A), as clip logits."""
        return pooled_states

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the cross entropy of the candidates and, for the log, the accuracy.

        Args:
            logits: Log-likelihoods of every question, pooled over clips, (M, A).
            data_samples: The items with their ``answer_labels``, one per question, M in all.

        Raises:
            OptionError: If a label is missing, or is none of the candidates.
        """
        labels = self.labels_of(data_samples, "answer_labels", logits)  # (M,)
        if int(labels.min()) < 0 or int(labels.max()) >= logits.shape[1]:
            raise OptionError(
                f"LikelihoodHead has {logits.shape[1]} candidate answers, got answer_labels from {int(labels.min())} to "
                f"{int(labels.max())}. Set the candidates to the answer vocabulary of the dataset."
            )
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return {"loss_answer": F.cross_entropy(logits, labels), "answer_accuracy": accuracy}

    def scores(self, logits: Tensor) -> Tensor:
        """Return the log-probability of each candidate among them, (M, A)."""
        return logits.log_softmax(dim=1)
