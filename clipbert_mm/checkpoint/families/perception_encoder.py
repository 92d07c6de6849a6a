"""PE-Core (Bolya et al., 2025, arXiv 2504.13181): from an ``open_clip_config.json`` to the config of a ClipBert."""

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from clipbert_mm.checkpoint.families.dual_towers import CLIPS, tower_model
from clipbert_mm.checkpoint.families.family import Family
from clipbert_mm.checkpoint.families.settings import Settings
from clipbert_mm.errors import CheckpointError, printable, quoted
from clipbert_mm.extras import require_extra

PREFIXES = {"visual.trunk.": "backbone.vit.", "text.": "encoder.text.", "logit_": "head.logit_"}
"""How names begin in open_clip's CustomTextCLIP, and how in a ClipBert."""
TEXT = dict(context_length=77, vocab_size=49408, width=512, heads=8, layers=12, mlp_ratio=4.0)
VISION = dict(image_size=224, timm_model_name=None, timm_pool="avg", timm_proj="linear")
"""What open_clip takes for settings that are left out."""
WITHOUT_EFFECT = ("timm_model_pretrained",)
"""Settings of the vision tower that name initial weights."""
TOWERS = {
    f"vit_pe_core_{name}": dict(
        image_size=image_size,
        patch_size=patch_size,
        hidden_size=hidden_size,
        num_layers=num_layers,
        num_heads=num_heads,
        intermediate_size=intermediate_size,
        class_token=class_token,
    )
    for name, image_size, patch_size, hidden_size, num_layers, num_heads, intermediate_size, class_token in (
        ("tiny_patch16_384", 384, 16, 192, 12, 3, 768, True),
        ("small_patch16_384", 384, 16, 384, 12, 6, 1536, True),
        ("base_patch16_224", 224, 16, 768, 12, 12, 3072, True),
        ("large_patch14_336", 336, 14, 1024, 24, 16, 4096, True),
        ("gigantic_patch14_448", 448, 14, 1536, 50, 16, 8960, False),
    )
}
"""Sizes of the vision towers by timm's names, which are all that an open_clip_config.json says of them."""


def perception_family(values: Mapping[str, Any], path: str) -> Family:
    """Return the parts of a PE-Core.

    Args:
        values: Contents of its ``open_clip_config.json``.
        path: The file, for errors.

    Raises:
        BackendError: If open_clip is not installed.
        CheckpointError: If it is another model, or a setting is wrong.
    """
    settings = Settings(values, {}, path).part_of("model_cfg", dict(embed_dim=512, custom_text=False))
    text, vision = settings.part_of("text_cfg", TEXT), settings.part_of("vision_cfg", VISION)
    name = vision.value("timm_model_name")
    custom = settings.value("custom_text")
    if not isinstance(name, str) or name not in TOWERS or custom is not True:
        raise CheckpointError(
            f"{printable(path)} is refused: its vision tower is {quoted(name)} and its custom_text {quoted(custom)}; "
            f"of open_clip's models those of PE-Core can be opened, with custom_text true and {', '.join(TOWERS)}. Many others "
            "are on the hub as models of transformers too."
        )
    require_extra("open_clip", "open-clip", "PE-Core")
    expected = dict(image_size=TOWERS[name]["image_size"], timm_pool="map", timm_proj=None)
    for key, value in expected.items():
        vision.expect(key, vision.value(key) == value, "null" if value is None else quoted(value))
    for part, known in ((text, TEXT), (vision, {**VISION, **dict.fromkeys(WITHOUT_EFFECT)})):
        for key in part.values:
            part.expect(key, key in known, "no such setting, which no PE-Core has,")
    ratio = text.value("mlp_ratio")
    text.expect("mlp_ratio", type(ratio) in (int, float) and 0 < ratio <= 16, "a number up to 16")
    width, heads, vector_size = text.size("width"), text.size("heads"), settings.size("embed_dim")
    text.expect("heads", width % heads == 0, f"a divisor of its width {width}")
    max_length = text.size("context_length")
    encoder = dict(
        type="PEText",
        vocab_size=text.size("vocab_size"),
        hidden_size=width,
        num_layers=text.size("layers"),
        num_heads=heads,
        intermediate_size=int(width * ratio),
        max_text_length=max_length,
        vector_size=vector_size,
    )
    return Family(
        name="PE-Core",
        library="open_clip_torch",
        library_class="CustomTextCLIP",
        build_library=build_library,
        prefixes=PREFIXES,
        model=tower_model(
            dict(type="PEVision", **TOWERS[name], vector_size=vector_size), encoder, dict(type="SimilarityHead")
        ),
        vocab_size=text.size("vocab_size"),
        clips=CLIPS,
        tokenize=dict(read_token="last", max_length=max_length),
        library_logits=library_logits,
    )


def build_library(values: Mapping[str, Any]) -> Any:  # noqa: ANN401
    """Return open_clip's own model of settings that :func:`perception_family` takes."""
    from open_clip.model import CLIPTextCfg, CLIPVisionCfg, CustomTextCLIP

    config = values["model_cfg"]
    vision = {key: value for key, value in config["vision_cfg"].items() if key not in WITHOUT_EFFECT}
    return CustomTextCLIP(
        embed_dim=config.get("embed_dim", 512),
        vision_cfg=CLIPVisionCfg(**vision),
        text_cfg=CLIPTextCfg(**config.get("text_cfg", {})),
    )


def library_logits(library: Any, text_ids: Tensor, frames: Tensor) -> Tensor:  # noqa: ANN401
    """Return cosine similarities, (M, V, 1), by the library's model."""
    padded = F.pad(text_ids, (0, library.context_length - text_ids.shape[1]))
    return (library.encode_text(padded, normalize=True) @ library.encode_image(frames, normalize=True).T)[..., None]
