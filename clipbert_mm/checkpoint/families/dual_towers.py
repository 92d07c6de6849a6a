"""CLIP (Radford et al., ICML 2021), SigLIP and SigLIP 2: a tower for images and one for texts, compared by their vectors."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.checkpoint.families.family import Family
from clipbert_mm.checkpoint.families.settings import Settings, settings_of

CLIP_TEXT = dict(
    vocab_size=49408,
    hidden_size=512,
    intermediate_size=2048,
    num_hidden_layers=12,
    num_attention_heads=8,
    max_position_embeddings=77,
    hidden_act="quick_gelu",
    layer_norm_eps=1e-5,
)
CLIP_VISION = dict(
    image_size=224,
    patch_size=32,
    hidden_size=768,
    intermediate_size=3072,
    num_hidden_layers=12,
    num_attention_heads=12,
    hidden_act="quick_gelu",
    layer_norm_eps=1e-5,
)
SIGLIP_TEXT = CLIP_TEXT | dict(
    vocab_size=32000,
    hidden_size=768,
    intermediate_size=3072,
    num_attention_heads=12,
    max_position_embeddings=64,
    hidden_act="gelu_pytorch_tanh",
    layer_norm_eps=1e-6,
    pad_token_id=1,
)
SIGLIP_VISION = CLIP_VISION | dict(patch_size=16, hidden_act="gelu_pytorch_tanh", layer_norm_eps=1e-6)
PREFIXES = {
    "vision_model.": "backbone.vit.",
    "visual_projection.": "backbone.visual_projection.",
    "text_model.": "encoder.text.",
    "text_projection.": "encoder.text_projection.",
    "logit_": "head.logit_",
}
"""How names begin in CLIPModel and SiglipModel of transformers, and how in a ClipBert."""
CLIP, SIGLIP = "CLIPModel", "SiglipModel"
CLIPS = dict(num_clips=12, num_frames=1, mode="segments")
"""Frames of a video in the evaluation of CLIP on videos that others followed (Luo et al., CLIP4Clip, 2021)."""


def clip_family(settings: Settings) -> Family:
    """Return the parts of a CLIP by its settings.

    Raises:
        CheckpointError: If a setting is missing or wrong.
    """
    text, vision = settings.part_of("text_config", CLIP_TEXT), settings.part_of("vision_config", CLIP_VISION)
    settings = Settings(settings.values, dict(projection_dim=512), settings.who)
    vector_size = settings.size("projection_dim")
    return _family(
        "CLIP",
        text,
        dict(type="CLIPVision", **_vision(vision), vector_size=vector_size),
        dict(type="CLIPText", **text.transformer(), vector_size=vector_size),
        dict(type="SimilarityHead"),
        settings.architecture(),
        dict(read_token="last"),
    )


def siglip_family(settings: Settings) -> Family:
    """Return the parts of a SigLIP, or of a SigLIP 2 of one resolution, by its settings.

    Raises:
        CheckpointError: If a setting is missing or wrong.
    """
    text, vision = settings.part_of("text_config", SIGLIP_TEXT), settings.part_of("vision_config", SIGLIP_VISION)
    width = vision.size("hidden_size")
    padding = text.value("pad_token_id")
    text.expect("pad_token_id", type(padding) is int and 0 <= padding < text.size("vocab_size"), "a token's id")
    return _family(
        "SigLIP",
        text,
        dict(type="SiglipVision", **_vision(vision)),
        dict(type="SiglipText", **text.transformer(), vector_size=width, padding_token=padding),
        dict(type="SigmoidSimilarityHead"),
        settings.architecture(),
        dict(read_token="last", lowercase=True),
    )


def _vision(vision: Settings) -> dict[str, Any]:
    return vision.transformer() | {name: vision.size(name) for name in ("image_size", "patch_size")}


def _family(
    name: str,
    text: Settings,
    backbone: dict[str, Any],
    encoder: dict[str, Any],
    head: dict[str, Any],
    kind: str,
    tokenize: dict[str, Any],
) -> Family:
    def library_logits(library: Any, text_ids: Tensor, frames: Tensor) -> Tensor:  # noqa: ANN401
        """Return cosine similarities, (M, V, 1), by the library's model."""
        if "padding_token" in encoder:
            missing = encoder["max_text_length"] - text_ids.shape[1]
            text_ids = F.pad(text_ids, (0, missing), value=encoder["padding_token"])
        output = library(input_ids=text_ids, pixel_values=frames)
        texts, images = F.normalize(output.text_embeds, dim=1), F.normalize(output.image_embeds, dim=1)
        return (texts @ images.T)[..., None]

    return Family(
        name=name,
        library_class=kind,
        prefixes=PREFIXES,
        model=tower_model(backbone, encoder, head),
        vocab_size=text.size("vocab_size"),
        clips=CLIPS,
        tokenize=tokenize | dict(max_length=text.size("max_position_embeddings")),
        library_logits=library_logits,
    )


def tower_model(backbone: dict[str, Any], encoder: dict[str, Any], head: dict[str, Any]) -> dict[str, Any]:
    """Return the config of a ClipBert of two towers that pools the vectors of frames by their mean."""
    return dict(
        backbone=backbone,
        temporal_fusion=dict(type="MeanFusion"),
        clip_fusion=dict(type="MeanClips"),
        encoder=encoder,
        head=head,
        aggregator=dict(type="MeanAggregator"),
    )


def clip_settings(model: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the settings of a ClipBert that has the parts of a CLIP, as its ``config.json`` has them."""
    vector_size = model.encoder.text_projection.out_features
    return _settings_of(model, CLIP, "clip", CLIP_TEXT, CLIP_VISION, projection_dim=vector_size) | dict(
        projection_dim=vector_size
    )


def siglip_settings(model: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the settings of a ClipBert that has the parts of a SigLIP, as its ``config.json`` has them."""
    settings = _settings_of(model, SIGLIP, "siglip", SIGLIP_TEXT, SIGLIP_VISION)
    settings["text_config"]["projection_size"] = model.encoder.visual_size
    return settings


def _settings_of(
    model: Any,  # noqa: ANN401
    kind: str,
    model_type: str,
    text: dict[str, Any],
    vision: dict[str, Any],
    **of_both: int,
) -> dict[str, Any]:
    text = settings_of(model.encoder.text.config, text) | of_both
    vision = settings_of(model.backbone.vit.config, vision) | of_both
    return dict(
        architectures=[kind],
        model_type=model_type,
        text_config=text | dict(model_type=f"{model_type}_text_model"),
        vision_config=vision | dict(model_type=f"{model_type}_vision_model"),
    )
