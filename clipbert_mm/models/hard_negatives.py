"""Hard negatives in the batch, chosen by vectors of texts and videos (Li et al., ALBEF, NeurIPS 2021, Section 3.2)."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample

MAX_SCALE = 100.0
"""Largest factor of the similarities, as in CLIP, so that a learnt temperature does not fall below 0.01."""
Pairs = tuple[Tensor, Tensor, Tensor]


@MODELS.register_module()
class HardNegatives(BaseModule):
    """A contrastive loss that trains the vectors, and the negatives that the vectors hold for the most likely matches.

    Each item comes with captions of its own only. The joint encoder then scores these, one text of another item per video, and
    one video of another item per text; both are drawn with the probabilities of the contrastive loss, from torch's global
    generator. In a distributed training each process draws from its own part of the batch. A text is no negative of a video if
    the batch has an equal text for that video, or if both are of one file.

    Args:
        temperature: What similarities are divided by; 0.07 at first in ALBEF, BLIP and CLIP.
        learnt: Whether the temperature is learnt, as in these; otherwise it is fixed.
    """

    def __init__(self, *, temperature: float = 0.07, learnt: bool = True) -> None:
        super().__init__()
        if not 1 / MAX_SCALE <= temperature <= 1:
            raise OptionError(f"HardNegatives expects a temperature from {1 / MAX_SCALE:g} to 1, got {temperature}.")
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)), requires_grad=learnt)

    def loss(self, model: Any, inputs: dict[str, Tensor], data_samples: list[VideoTextSample]) -> dict[str, Tensor]:  # noqa: ANN401
        """Compute the losses of a batch: the contrastive one, and that of the head on the chosen pairs.

        Args:
            model: The ClipBert that this is a part of.
            inputs: As of :meth:`~clipbert_mm.models.ClipBert.forward`.
            data_samples: The items, all of whose texts match.
        """
        tokens = model.encode_video(inputs["frames"])  # (B, K, S, D)
        texts = inputs["text_ids"], inputs["text_mask"], inputs["video_index"]
        vectors = model.encoder.text_vectors(*texts[:2]), model.encoder.clip_vectors(model.clip_fusion(tokens))
        losses, pairs, data_samples = self(*vectors, *texts, data_samples)
        return losses | model.head.loss(model.aggregator(model.score(tokens, *pairs)), data_samples)

    def forward(
        self,
        text_vectors: Tensor,
        clip_vectors: Tensor,
        text_ids: Tensor,
        text_mask: Tensor,
        video_index: Tensor,
        data_samples: list[VideoTextSample],
    ) -> tuple[dict[str, Tensor], Pairs, list[VideoTextSample]]:
        """Compute the contrastive loss and choose the pairs for the joint encoder.

        Args:
            text_vectors: Unit vectors of the texts, (M, P).
            clip_vectors: Unit vectors of the clips, (B, K, P).
            text_ids: Token ids, (M, L).
            text_mask: 1 for tokens, 0 for padding, (M, L).
            video_index: Index of the video of each text, (M,).
            data_samples: The B items, all of whose texts match.

        Returns:
            The loss, and for the log how often the right video is the most similar one; ``text_ids``, ``text_mask`` and
            ``video_index`` of the pairs, those of a video one after the other; and samples with the ``match_labels`` of these.

        Raises:
            OptionError: If an item has negatives already, or there is only one item.
        """
        expect_own_texts(data_samples)
        videos = F.normalize(clip_vectors.float().mean(dim=1), dim=-1)  # (B, P)
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        similarity = scale * text_vectors.float() @ videos.T  # (M, B)
        matches = matching(text_ids * text_mask, video_index, [sample.path for sample in data_samples])  # (M, B)
        losses = self.contrast(similarity, matches, video_index)
        chances = similarity.detach().masked_fill(matches, -torch.inf)
        video, for_text = draw(chances)  # of each text
        text, for_video = draw(chances.T)  # of each video
        own = torch.arange(len(text_ids), device=video_index.device)
        texts = torch.cat([own, for_text, text])
        index = torch.cat([video_index, video, for_video])
        labels = torch.cat([torch.ones_like(own), own.new_zeros(len(video) + len(text))])
        order = index.argsort(stable=True)
        texts, index, labels = texts[order], index[order], labels[order]
        counts = index.bincount(minlength=len(data_samples)).tolist()
        samples = []
        for sample, match_labels in zip(data_samples, labels.cpu().split(counts), strict=True):
            chosen = VideoTextSample(metainfo=dict(path=sample.path))
            chosen.match_labels = match_labels.numpy()
            samples.append(chosen)
        return losses, (text_ids[texts], text_mask[texts], index), samples

    @staticmethod
    def contrast(similarity: Tensor, matches: Tensor, video_index: Tensor) -> dict[str, Tensor]:
        """Compute the mean cross entropy of each own pair among the other videos, and among the other texts.

        Args:
            similarity: Scaled similarities, (M, B).
            matches: Which pairs match, (M, B).
            video_index: Index of the video of each text, (M,).
        """
        own = torch.arange(len(similarity), device=similarity.device)
        of_texts = matches.scatter(1, video_index[:, None], value=False)  # what matches too takes no part, (M, B)
        loss_videos = F.cross_entropy(similarity.masked_fill(of_texts, -torch.inf), video_index)
        # For the video of each text, which other texts match it too, (M, M).
        of_videos = matches.T[video_index] & ~torch.eye(len(own), dtype=torch.bool, device=own.device)
        loss_texts = F.cross_entropy(similarity.T[video_index].masked_fill(of_videos, -torch.inf), own)
        is_first = matches[own, similarity.detach().argmax(dim=1)]
        return {"loss_contrast": (loss_videos + loss_texts) / 2, "contrast_accuracy": is_first.float().mean()}


def matching(texts: Tensor, video_index: Tensor, paths: Sequence[str]) -> Tensor:
    """Return which texts match which videos, bool (M, B): where an equal text is of the same file.

    Args:
        texts: Token ids, 0 for padding, (M, L).
        video_index: Index of the video of each text, (M,).
        paths: The file of each video, B.
    """
    groups = torch.from_numpy(np.unique(list(paths), return_inverse=True)[1]).to(video_index.device)  # (B,)
    equal = (texts[:, None] == texts[None]).all(dim=2)  # (M, M)
    of_file = groups[video_index][:, None] == groups  # (M, B)
    return (equal.float() @ of_file.float()) > 0


def draw(chances: Tensor) -> tuple[Tensor, Tensor]:
    """Draw a column for each row of logits, (R, N); returns the columns and their rows, without rows that are all -inf."""
    rows = chances.isfinite().any(dim=1).nonzero()[:, 0]
    if not len(rows):
        return rows, rows
    return torch.multinomial(chances[rows].softmax(dim=1), 1)[:, 0], rows


def expect_own_texts(data_samples: Sequence[VideoTextSample]) -> None:
    """Check that items bring captions of their own, and only these.

    Raises:
        OptionError: If one has other texts or no labels, or there is only one item.
    """
    for sample in data_samples:
        labels = sample.get("match_labels")
        if labels is None or not np.all(labels == 1):
            raise OptionError(
                f"HardNegatives chooses the negatives itself and expects items with match_labels of 1, got {labels} for "
                f"{sample.path}. Set num_negatives=0 of the RetrievalDataset, or negative_probability=0.0 of the "
                "PretrainingDataset."
            )
    if len(data_samples) < 2:
        raise OptionError(
            "HardNegatives chooses negatives among the other items of a batch and expects 2 items or more, got "
            f"{len(data_samples)}. Raise batch_size of the train_dataloader and set drop_last=True; accumulation does not help."
        )


def build_hard_negatives(config: dict | None, model: Any) -> HardNegatives | None:  # noqa: ANN401
    """Build the hard negatives of a ClipBert with all its other parts.

    Args:
        config: Config of the HardNegatives; None for none.
        model: The model.

    Raises:
        OptionError: If the encoder has no vectors, or another option of the model does not go with them.
    """
    if config is None:
        return None
    name = type(model.encoder).__name__
    if not getattr(model.encoder, "has_vectors", False):
        raise OptionError(
            f"hard_negatives of ClipBert are chosen by vectors of texts and clips, which this {name} does not have. Leave the "
            "option out and set num_negatives of the dataset, or use a CrossEncoder with vector_size."
        )
    if model.clip_sequential or model.mlm_head is not None:
        option = "clip_sequential" if model.clip_sequential else "mlm_head"
        raise OptionError(
            f"hard_negatives of ClipBert need the vectors of all clips before the first pair is scored, and unmasked texts; "
            f"they do not go with {option}. Leave one of the two out; `checkpointed` saves memory as well."
        )
    return MODELS.build(config)
