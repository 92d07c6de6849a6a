"""ViLT (Kim et al., ICML 2021): from the config of a Hugging Face checkpoint to the config of a ClipBert."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from clipbert_mm.checkpoint.families.family import Family, replace_prefixes
from clipbert_mm.checkpoint.families.settings import Settings, settings_of

DEFAULTS = dict(
    vocab_size=30522,
    type_vocab_size=2,
    modality_type_vocab_size=2,
    max_position_embeddings=40,
    hidden_size=768,
    num_hidden_layers=12,
    num_attention_heads=12,
    intermediate_size=3072,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    image_size=384,
    patch_size=32,
    num_channels=3,
    qkv_bias=True,
    max_image_length=-1,
    tie_word_embeddings=True,  # transformers 4 has False, and writes it
)
RETRIEVAL, QUESTIONS, MASKED_WORDS = "ViltForImageAndTextRetrieval", "ViltForQuestionAnswering", "ViltForMaskedLM"
SHARED = {
    "vilt.embeddings.patch_embeddings.": "backbone.",
    "vilt.embeddings.text_embeddings.": "encoder.text_embedding.",
    "vilt.embeddings.token_type_embeddings.": "encoder.type_embedding.",
    "vilt.embeddings.cls_token": "encoder.visual_embedding.class_token",
    "vilt.embeddings.position_embeddings": "encoder.visual_embedding.positions",
    "vilt.encoder.": "encoder.transformer.",
    "vilt.layernorm.": "encoder.norm.",
    "vilt.pooler.": "encoder.pooler.",
}
HEADS = {
    RETRIEVAL: {"rank_output.": "head.classifier."},
    QUESTIONS: {"classifier.": "head.classifier."},
    MASKED_WORDS: {
        "mlm_score.transform.dense.": "mlm_head.transform.0.",
        "mlm_score.transform.LayerNorm.": "mlm_head.transform.2.",
        "mlm_score.decoder.weight": "mlm_head.decoder",
        "mlm_score.bias": "mlm_head.bias",
        "mlm_score.decoder.bias": "mlm_head.bias",  # its name in transformers 5
    },
}
PREFIXES = SHARED | HEADS[RETRIEVAL] | HEADS[QUESTIONS] | HEADS[MASKED_WORDS]
"""How names begin in the library's classes, and how in a ClipBert."""
WORDS, DECODER = "vilt.embeddings.text_embeddings.word_embeddings.weight", "mlm_score.decoder.weight"
CLIPS = 8
"""Clips of a video, of one frame each; ViLT has no published protocol for videos."""


def rename_vilt(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the tensors of ViLT's classes.

    Position ids of old files are no weights. A decoder of masked words that is the matrix of the word embeddings is left out,
    as a head with ``tied=True`` expects; both names of its bias, of which files have one or two, are one.
    """
    kept = {name: tensor for name, tensor in tensors.items() if not name.endswith("embeddings.position_ids")}
    if DECODER in kept and WORDS in kept and torch.equal(kept[DECODER], kept[WORDS]):
        del kept[DECODER]
    return replace_prefixes(kept, PREFIXES)


def vilt_family(settings: Settings) -> Family:
    """Return the parts of a ViLT by its settings.

    A model of masked words gets a head for retrieval, which its weights do not have and fine-tuning has to train.

    Raises:
        CheckpointError: If a setting is missing or wrong, or does not go with another one.
    """
    settings = Settings(settings.values, DEFAULTS, settings.who)
    kind, width, vocab_size = settings.architecture(), settings.size("hidden_size"), settings.size("vocab_size")
    max_length = settings.size("max_position_embeddings")
    answers = settings.labels("id2label") if kind == QUESTIONS else None
    model: dict[str, Any] = dict(
        backbone=dict(type="ViltPatches", patch_size=settings.size("patch_size"), hidden_size=width),
        temporal_fusion=dict(type="MeanFusion"),
        encoder=read_encoder(settings),
        head=dict(type="SoftmaxRankingHead", in_channels=width, hidden_channels=None, dropout=0.0),
        aggregator=dict(type="LogSumExpAggregator"),
    )
    if answers is not None:
        model["head"] = dict(
            type="SoftAnswerHead",
            in_channels=width,
            num_answers=len(answers),
            hidden_channels=2 * width,
            hidden_norm=True,
            dropout=0.0,
        )
    if kind == MASKED_WORDS:
        model["mlm_head"] = dict(
            type="MaskedLanguageHead",
            in_channels=width,
            vocab_size=vocab_size,
            tied=settings.flag("tie_word_embeddings"),
            layer_norm_eps=settings.number("layer_norm_eps"),
        )
    return Family(
        name="ViLT",
        library_class=kind,
        prefixes=SHARED | HEADS[kind],
        model=model,
        vocab_size=vocab_size,
        clips=dict(num_clips=CLIPS, num_frames=1, clip_seconds=1.0, mode="uniform"),
        tokenize=dict(max_length=max_length),
        library_logits=library_logits,
        mask_padding=True,
        answers=answers,
    )


def read_encoder(settings: Settings) -> dict[str, Any]:
    """Return the config of the encoder.

    Raises:
        CheckpointError: If a setting is missing or wrong, or does not go with another one.
    """
    image_size, patch_size = settings.size("image_size"), settings.size("patch_size")
    settings.expect("patch_size", patch_size <= image_size, f"at most its image_size {image_size}")
    settings.expect("num_channels", settings.size("num_channels") == 3, "3, red, green and blue,")
    settings.expect("modality_type_vocab_size", settings.size("modality_type_vocab_size") > 1, "2 or more")
    settings.expect("max_image_length", settings.value("max_image_length") == -1, "-1, which reads all patches,")
    return dict(
        type="ViltEncoder",
        **settings.transformer(),
        grid_size=image_size // patch_size,
        text_types=settings.size("type_vocab_size"),
        modality_types=settings.size("modality_type_vocab_size"),
        qkv_bias=settings.flag("qkv_bias"),
    )


def library_logits(library: Any, text_ids: Tensor, frames: Tensor) -> Tensor:  # noqa: ANN401
    """Return logits, (M, V, C), by the library's model."""
    videos = len(frames)
    return torch.stack(
        [library(input_ids=ids.expand(videos, -1), pixel_values=frames).logits for ids in text_ids[:, None]]
    )


def vilt_settings(model: Any, answers: Sequence[str] | None) -> dict[str, Any]:  # noqa: ANN401
    """Return the settings of a ClipBert that has the parts of a ViLT, as its ``config.json`` has them.

    Args:
        model: The model.
        answers: The answers in the order of the head's outputs; None for retrieval.
    """
    grid, patch_size = model.encoder.visual_embedding.grid_size, model.backbone.patch_size
    kind = RETRIEVAL if answers is None else QUESTIONS
    settings = settings_of(model.encoder.text_config, DEFAULTS)
    settings |= dict(architectures=[kind], model_type="vilt", image_size=grid * patch_size, patch_size=patch_size)
    if answers is not None:
        settings["id2label"] = {str(i): answer for i, answer in enumerate(answers)}
        settings["label2id"] = {answer: i for i, answer in enumerate(answers)}
    return settings
