"""BLIP (Li et al., ICML 2022): from the config of a Hugging Face checkpoint to the config of a ClipBert."""

from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from clipbert_mm.checkpoint.families.family import Family
from clipbert_mm.checkpoint.families.settings import Settings, settings_of
from clipbert_mm.errors import CheckpointError

TEXT_DEFAULTS = dict(
    vocab_size=30524,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=8,
    max_position_embeddings=512,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    bos_token_id=30522,
    sep_token_id=102,
)
VISION_DEFAULTS = dict(
    image_size=384,
    patch_size=16,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    hidden_act="gelu",
    layer_norm_eps=1e-5,
)
MATCHING, QUESTIONS = "BlipForImageTextRetrieval", "BlipForQuestionAnswering"
QUESTION_PREFIXES = {
    "vision_model.": "backbone.vit.",
    "text_encoder.": "encoder.questions.text.",
    "text_decoder.bert.": "encoder.decoder.",
    "text_decoder.cls.predictions.transform.dense.": "encoder.words.transform.0.",
    "text_decoder.cls.predictions.transform.LayerNorm.": "encoder.words.transform.2.",
    "text_decoder.cls.predictions.bias": "encoder.words.bias",
}
MAX_TEXT = 35
"""Tokens that a text is cut to in BLIP's training and evaluation."""
FRAMES = 8
"""Frames of a video in BLIP's evaluation."""
PREFIXES = {
    "vision_model.": "backbone.vit.",
    "text_encoder.": "encoder.text.",
    "vision_proj.": "encoder.visual_projection.",
    "text_proj.": "encoder.text_projection.",
    "itm_head.": "head.classifier.",
}


def blip_family(settings: Settings) -> Family:
    """Return the parts of a BLIP by its settings.

    Raises:
        CheckpointError: If a setting is missing or wrong.
    """
    text = settings.part_of("text_config", TEXT_DEFAULTS)
    vision = settings.part_of("vision_config", VISION_DEFAULTS)
    vocab_size, width = text.size("vocab_size"), text.size("hidden_size")
    image_size, patch_size = vision.size("image_size"), vision.size("patch_size")
    encoder: dict[str, Any] = dict(
        type="CrossEncoder",
        **text.transformer(),
        visual_size=vision.size("hidden_size"),
        frame_tokens=(image_size // patch_size) ** 2 + 1,
        # [ENC], which BLIP's training appended after [DEC]; the config names [DEC] alone.
        joint_token=text.size("bos_token_id") + 1,
    )
    start_token, joint_token = text.size("bos_token_id"), encoder["joint_token"]
    if joint_token >= vocab_size:
        raise text.refused("bos_token_id", start_token, f"an id from 1 to {vocab_size - 2}, before that of [ENC]")
    head: dict[str, Any]
    if settings.architecture() == QUESTIONS:
        encoder = dict(type="AnswerEncoder", questions=encoder | dict(vector_size=None), start_token=start_token)
        head, prefixes, library_logits = dict(type="LikelihoodHead"), QUESTION_PREFIXES, answer_logits
    else:
        encoder |= dict(vector_size=settings.size("image_text_hidden_size"))
        head, prefixes, library_logits = (
            dict(type="SimilarityMatchingHead", in_channels=width),
            PREFIXES,
            matching_logits,
        )
    model = dict(
        backbone=dict(
            type="BlipVision",
            image_size=image_size,
            patch_size=patch_size,
            **vision.transformer(),
        ),
        temporal_fusion=dict(type="ConcatFusion"),
        clip_fusion=dict(type="ConcatClips"),
        encoder=encoder,
        head=head,
        aggregator=dict(type="LogSumExpAggregator"),
    )
    return Family(
        name="BLIP",
        library_class=settings.architecture(),
        prefixes=prefixes,
        model=model,
        vocab_size=vocab_size,
        clips=dict(num_clips=FRAMES, num_frames=1, mode="segments"),
        tokenize=dict(max_length=min(MAX_TEXT, text.size("max_position_embeddings"))),
        library_logits=partial(library_logits, joint_token),
    )


def matching_logits(joint_token: int, library: Any, text_ids: Tensor, frames: Tensor) -> Tensor:  # noqa: ANN401
    """Return logits and similarities, (M, V, 3), by the library's model; texts begin with [ENC] for the logits alone."""
    joint_ids = torch.cat([torch.full_like(text_ids[:, :1], joint_token), text_ids[:, 1:]], dim=1)
    seen = library.vision_model(pixel_values=frames)  # most of the time, and the same for each text
    rows = []
    with patch.object(library.vision_model, "forward", lambda **_: seen):
        for ids, joint in zip(text_ids[:, None], joint_ids[:, None], strict=True):
            match = library(input_ids=joint.expand(len(frames), -1), pixel_values=frames).itm_score  # (V, 2)
            similarity = library(input_ids=ids, pixel_values=frames, use_itm_head=False).itm_score  # (V, 1)
            rows.append(torch.cat([match, similarity], dim=1))
    return torch.stack(rows)


def answer_logits(joint_token: int, library: Any, text_ids: Tensor, frames: Tensor) -> Tensor:  # noqa: ANN401
    """Return log-likelihoods, (M, V, M), of the texts themselves as answers to each other, by the library's model."""
    start_token, length = library.decoder_start_token_id, text_ids.shape[1]
    joint_ids = torch.cat([torch.full_like(text_ids[:, :1], joint_token), text_ids[:, 1:]], dim=1)
    answers = torch.cat(
        [torch.full_like(text_ids[:, :1], start_token), text_ids[:, 1:-1]], dim=1
    )  # read by the decoder
    images = library.vision_model(pixel_values=frames).last_hidden_state  # (V, S, D)
    rows = []
    for joint in joint_ids:
        for image in images:
            states = library.text_encoder(input_ids=joint[None], encoder_hidden_states=image[None]).last_hidden_state
            words = library.text_decoder(
                input_ids=answers, encoder_hidden_states=states.expand(len(answers), length, -1), use_cache=False
            ).logits.log_softmax(dim=2)
            rows.append(words.gather(2, text_ids[:, 1:, None])[..., 0].sum(dim=1))  # (M,)
    return torch.stack(rows).unflatten(0, (len(text_ids), len(frames)))


def blip_settings(model: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the settings of a ClipBert that has the parts of a BLIP for matching, as its ``config.json`` has them.

    Raises:
        CheckpointError: If its encoder has no vectors, or no token that stands for reading a text together with a clip.
    """
    encoder = model.encoder
    if not encoder.has_vectors or encoder.joint_token is None:
        raise CheckpointError(
            "A BLIP of Hugging Face has vectors, and reads texts with [ENC] in the place of [CLS]; this CrossEncoder does not. "
            "Set vector_size and joint_token of the CrossEncoder before training."
        )
    settings = _settings_of(MATCHING, encoder, model.backbone.vit.config)
    return settings | dict(image_text_hidden_size=encoder.text_projection.out_features)


def blip_question_settings(model: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the settings of a ClipBert that has the parts of a BLIP for questions, as its ``config.json`` has them.

    Raises:
        CheckpointError: If its encoder reads other special tokens than [DEC] and, next to it, [ENC].
    """
    encoder = model.encoder
    if encoder.questions.joint_token != encoder.start_token + 1:
        raise CheckpointError(
            "A BLIP for questions reads questions with [ENC] in the place of [CLS], whose id comes after that of [DEC]; this "
            f"AnswerEncoder has joint_token {encoder.questions.joint_token} of questions, and start_token "
            f"{encoder.start_token}. Set joint_token to start_token + 1 before training."
        )
    return _settings_of(QUESTIONS, encoder.questions, model.backbone.vit.config)


def _settings_of(kind: str, encoder: Any, vision: Any) -> dict[str, Any]:  # noqa: ANN401
    text = settings_of(encoder.text.config, TEXT_DEFAULTS)
    text |= dict(bos_token_id=encoder.joint_token - 1, encoder_hidden_size=vision.hidden_size, is_decoder=True)
    return dict(
        architectures=[kind],
        model_type="blip",
        text_config=text | dict(model_type="blip_text_model"),
        vision_config=settings_of(vision, VISION_DEFAULTS) | dict(model_type="blip_vision_model"),
    )
