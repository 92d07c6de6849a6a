"""Vectors of a trained joint encoder, learnt from its own scores (Miech et al., Thinking Fast and Slow, CVPR 2021)."""

import math
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModule
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders import without_padding
from clipbert_mm.models.freezing import freeze_all_but
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import VideoTextSample

MAX_SCALE = 100.0
"""Largest factor of the similarities, as in CLIP."""
TRAINED = ("encoder.vectors", "distillation")
"""The modules of a ClipBert that a distillation trains."""


@MODELS.register_module()
class VectorDistillation(BaseModule):
    """Train the vectors of texts and clips to rank as the joint encoder does, which stays as it is.

    The joint encoder scores every text of a batch with every clip. Its scores make a distribution over the clips for each text,
    and one over the texts for each clip, and so do the scaled cosine similarities of the vectors: the loss is the
    Kullback-Leibler divergence of these from those.

    Args:
        temperature: What similarities are divided by at first; it is learnt.
        teacher_temperature: What the joint encoder's scores are divided by: larger than 1 counts what else matches for more.

    Raises:
        OptionError: If a temperature is out of its range.
    """

    def __init__(self, *, temperature: float = 0.1, teacher_temperature: float = 1.0) -> None:
        super().__init__()
        if not 1 / MAX_SCALE <= temperature <= 1 or teacher_temperature <= 0:
            raise OptionError(
                f"VectorDistillation expects a temperature from {1 / MAX_SCALE:g} to 1 and a positive teacher_temperature, got "
                f"{temperature} and {teacher_temperature}."
            )
        self.log_scale = nn.Parameter(torch.tensor(-math.log(temperature)))
        self.teacher_temperature = teacher_temperature

    def loss(self, model: Any, inputs: dict[str, Tensor], data_samples: list[VideoTextSample]) -> dict[str, Tensor]:  # noqa: ANN401
        """Compute the loss of a batch.

        Args:
            model: The ClipBert that this is a part of.
            inputs: As of :meth:`~clipbert_mm.models.ClipBert.forward`.
            data_samples: The items; their labels are not used.
        """
        ids, mask = inputs["text_ids"], inputs["text_mask"]
        with torch.no_grad():
            tokens = model.clip_fusion(model.encode_video(inputs["frames"]))  # (B, K, S, D)
            scores = score_clips(model, tokens, ids, mask)  # (M, B, K)
        return self(model.encoder.text_vectors(ids, mask), model.encoder.clip_vectors(tokens), scores)

    def forward(self, text_vectors: Tensor, clip_vectors: Tensor, scores: Tensor) -> dict[str, Tensor]:
        """Compare two rankings of the same clips.

        Args:
            text_vectors: Unit vectors of the texts, (M, P).
            clip_vectors: Unit vectors of the clips, (B, K, P).
            scores: Scores of the texts with the clips by the joint encoder, (M, B, K).

        Returns:
            The loss, and for the log the share of texts for which both have the same clip first.

        Raises:
            OptionError: If there is only one video.
        """
        if len(clip_vectors) < 2:
            raise OptionError(
                f"VectorDistillation ranks the videos of a batch and expects 2 or more, got {len(clip_vectors)}. Raise "
                "batch_size of the train_dataloader and set drop_last=True; accumulation does not help."
            )
        scale = self.log_scale.exp().clamp(max=MAX_SCALE)
        similarity = scale * text_vectors.float() @ clip_vectors.float().flatten(0, 1).T  # (M, B·K)
        target = scores.float().flatten(1) / self.teacher_temperature  # (M, B·K)
        agreement = (similarity.detach().argmax(dim=1) == target.argmax(dim=1)).float().mean()
        return {
            "loss_of_texts": divergence(similarity, target),
            "loss_of_clips": divergence(similarity.T, target.T),
            "same_first": agreement,
        }


def divergence(logits: Tensor, target: Tensor) -> Tensor:
    """Return the mean over rows of the divergence of distributions from others, both as logits, (R, N)."""
    return F.kl_div(logits.log_softmax(dim=1), target.log_softmax(dim=1), reduction="batchmean", log_target=True)


def score_clips(model: Any, tokens: Tensor, text_ids: Tensor, text_mask: Tensor) -> Tensor:  # noqa: ANN401
    """Score each text with each clip alone, (M, B, K), by the joint encoder of a model.

    Args:
        model: A ClipBert whose encoder computes without dropout.
        tokens: Visual tokens, (B, K, S, D).
        text_ids: Token ids, (M, L).
        text_mask: 1 for tokens, 0 for padding, (M, L).
    """
    pairs, shape = model.pair_encoder(), (len(text_ids), *tokens.shape[:2])
    texts = pairs.encode_texts(without_padding(text_ids, text_mask))
    of_text, of_video = torch.ones(shape[:2]).nonzero().T  # (M·B,) each
    clip_logits = model.score_pairs(pairs, texts, tokens, of_text, of_video)  # (M·B, K, C)
    return model.pool_scores(clip_logits.flatten(0, 1)[:, None]).view(shape)


def build_distillation(config: dict | None, model: Any) -> VectorDistillation | None:  # noqa: ANN401
    """Build the distillation of a ClipBert with all its other parts, which then stay as they are.

    Args:
        config: Config of the VectorDistillation; None for none.
        model: The model.

    Raises:
        OptionError: If the encoder has no vectors that a distillation trains, or another option does not go with it.
    """
    if config is None:
        return None
    name = type(model.encoder).__name__
    if getattr(model.encoder, "vectors", None) is None:
        raise OptionError(
            f"distillation of ClipBert trains vectors of a joint encoder that has none of its own, which this {name} does not "
            "have. Set vector_size of a JointEncoder."
        )
    if model.clip_sequential or model.mlm_head is not None:
        option = "clip_sequential" if model.clip_sequential else "mlm_head"
        raise OptionError(
            f"distillation of ClipBert trains the vectors alone, from all clips of a batch; it does not go with {option}. "
            "Leave one of the two out."
        )
    freeze_all_but(model, TRAINED)
    return MODELS.build(config)
