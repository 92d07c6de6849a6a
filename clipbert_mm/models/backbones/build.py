"""The one place where a backbone is built."""

from torch import nn

from clipbert_mm import compat
from clipbert_mm.registry import MODELS


def build_backbone(config: dict) -> nn.Module:
    """Build a 2D backbone; mmpretrain, which takes seconds to import, is imported only if it is asked for.

    Args:
        config: Config of a registered module from (N, 3, H, W) to a map, or a sequence of maps of which the last counts.
    """
    if str(config.get("type", "")).startswith("mmpretrain."):
        compat.import_mmpretrain()
    return MODELS.build(config)
