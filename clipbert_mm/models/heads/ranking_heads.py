"""Which text of a video ranks first? Retrieval by one logit per text, which orders and stands for no probability."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.errors import OptionError
from clipbert_mm.models.heads.matching_head import MATCHED
from clipbert_mm.models.heads.task_head import TaskHead
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample


class RankingHead(TaskHead):
    """One logit per text, trained to be higher for the texts that match a video than for its other texts.

    Args:
        in_channels: Width D of the encoder.
        hidden_channels: Width of the hidden layer; None for one linear layer.
        dropout: Dropout probability before the classifier.
        init_cfg: MMEngine's initialization config.
    """

    task = "retrieval"

    def __init__(
        self,
        *,
        in_channels: int,
        hidden_channels: int | None,
        dropout: float = 0.1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=1,
            hidden_channels=hidden_channels,
            dropout=dropout,
            init_cfg=init_cfg,
        )

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits, (M,), of logits (M, 1): they keep the order where their sigmoid rounds to 1."""
        return logits[:, 0]

    def by_video(self, logits: Tensor, data_samples: list[VideoTextSample]) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the logits of each video's texts that match it, (p,), and of those that do not, (n,).

        Args:
            logits: Logits of every text and its video, pooled over clips, (M, 1).
            data_samples: The items with their ``match_labels``, M in all.

        Raises:
            OptionError: If a label is missing, or a video lacks texts that match or texts that do not.
        """
        matches = self.labels_of(data_samples, "match_labels", logits) == MATCHED  # (M,)
        counts = [len(sample.match_labels) for sample in data_samples]
        for sample, each, match in zip(data_samples, logits[:, 0].split(counts), matches.split(counts), strict=True):
            if len(np.unique(sample.match_labels == MATCHED)) < 2:
                raise OptionError(
                    f"{type(self).__name__} compares texts that match a video with texts that do not, got match_labels "
                    f"{sample.match_labels.tolist()} for {sample.path}. Set num_negatives of the dataset to 1 or more."
                )
            yield each[match], each[~match]


@MODELS.register_module()
class MarginRankingHead(RankingHead):
    """A margin between the sigmoids of texts that match a video and of texts that do not.

    This is the variant of matching in the paper's release. Its loss for a matching text p and another text n of one video is
    max(0, margin + sigmoid(n) - sigmoid(p)), averaged over all such pairs in the batch.

    Args:
        in_channels: Width D of the encoder.
        hidden_channels: Width of the hidden layer; None for one linear layer.
        margin: The margin between two probabilities; 0.2 in the paper's release.
        dropout: Dropout probability before the classifier.
        init_cfg: MMEngine's initialization config.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        hidden_channels: int | None,
        margin: float = 0.2,
        dropout: float = 0.1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(in_channels=in_channels, hidden_channels=hidden_channels, dropout=dropout, init_cfg=init_cfg)
        self.margin = margin

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the ranking loss of pooled logits and, for the log, the share of pairs in the correct order.

        Args:
            logits: Logits of every text and its video, pooled over clips, (M, 1).
            data_samples: The items with their ``match_labels``, M in all.

        Raises:
            OptionError: If a label is missing, or a video lacks texts that match or texts that do not.
        """
        videos = self.by_video(logits.sigmoid(), data_samples)
        gap = torch.cat([(own[:, None] - others).flatten() for own, others in videos])  # (pairs,)
        return {"loss_rank": F.relu(self.margin - gap).mean(), "rank_accuracy": (gap.detach() > 0).float().mean()}


@MODELS.register_module()
class SoftmaxRankingHead(RankingHead):
    """A softmax over a text that matches a video and all of its texts that do not, as in ViLT's fine-tuning for retrieval.

    The loss is the cross entropy of each matching text against the others of its video, 15 of them in ViLT (Kim et al., ICML
    2021, Section 4.4), averaged over the matching texts of the batch.

    Args:
        in_channels: Width D of the encoder.
        hidden_channels: Width of the hidden layer; None for one linear layer, as in ViLT.
        dropout: Dropout probability before the classifier.
        init_cfg: MMEngine's initialization config.
    """

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the cross entropy of pooled logits and, for the log, the share of matching texts that rank first.

        Args:
            logits: Logits of every text and its video, pooled over clips, (M, 1).
            data_samples: The items with their ``match_labels``, M in all.

        Raises:
            OptionError: If a label is missing, or a video lacks texts that match or texts that do not.
        """
        losses, is_first = [], []
        for own, others in self.by_video(logits, data_samples):
            choice = torch.cat([own[:, None], others.expand(len(own), -1)], dim=1)  # (p, 1 + n)
            losses.append(F.cross_entropy(choice, choice.new_zeros(len(own), dtype=torch.long), reduction="none"))
            is_first.append(own.detach() > others.detach().max())
        return {"loss_rank": torch.cat(losses).mean(), "rank_accuracy": torch.cat(is_first).float().mean()}
