"""The families of public image-text checkpoints, by the class that their weights belong to."""

from collections.abc import Callable, Mapping
from typing import Any

from clipbert_mm.checkpoint.families.blip import MATCHING, QUESTIONS, blip_family
from clipbert_mm.checkpoint.families.dual_towers import CLIP, SIGLIP, clip_family, siglip_family
from clipbert_mm.checkpoint.families.family import Family
from clipbert_mm.checkpoint.families.perception_encoder import perception_family
from clipbert_mm.checkpoint.families.settings import Settings
from clipbert_mm.checkpoint.families.vilt import MASKED_WORDS, RETRIEVAL, vilt_family
from clipbert_mm.checkpoint.families.vilt import QUESTIONS as VILT_QUESTIONS
from clipbert_mm.errors import CheckpointError, printable, quoted

FAMILIES: dict[str, Callable[[Settings], Family]] = {
    MATCHING: blip_family,
    QUESTIONS: blip_family,
    RETRIEVAL: vilt_family,
    VILT_QUESTIONS: vilt_family,
    MASKED_WORDS: vilt_family,
    CLIP: clip_family,
    SIGLIP: siglip_family,
}
"""How the settings of each class are read."""
DEFAULTS = dict(image_text_hidden_size=256)

__all__ = ["FAMILIES", "Family", "Settings", "perception_family", "read_family"]


def read_family(values: Mapping[str, Any], path: str) -> Family:
    """Return the family and sizes of a model.

    Args:
        values: Its ``config.json``.
        path: The file, for errors.

    Raises:
        CheckpointError: If the file names code of its own, another kind of model, or a wrong setting.
    """
    settings = Settings(values, DEFAULTS, path)
    name = settings.architecture()
    if "auto_map" in values or name not in FAMILIES:
        named = (
            "code of its own (auto_map), which is never run" if "auto_map" in values else f"the class {quoted(name)}"
        )
        raise CheckpointError(
            f"{printable(path)} is refused: it names {named}. Expected a model of {', '.join(FAMILIES)}; a text model is no "
            "model for videos."
        )
    return FAMILIES[name](settings)
