"""The one place where a backbone is built."""

from torch import nn

from clipbert_mm import compat
from clipbert_mm.models.backbones.folding import fold_frozen_norms
from clipbert_mm.registry import MODELS


def build_backbone(config: dict) -> nn.Module:
    """Build a 2D backbone; mmpretrain, which takes seconds to import, is imported only if it is asked for.

    Frozen batch norms of mmpretrain's ResNets are folded into the convolutions before them.

    Args:
        config: Config of a registered module from (N, 3, H, W) to a map, or a sequence of maps of which the last counts. Those
            of timm are built by ``mmpretrain.TIMMBackbone``.
    """
    if not str(config.get("type", "")).startswith("mmpretrain."):
        return MODELS.build(config)
    compat.import_mmpretrain()
    from mmpretrain.models import ResNet, TIMMBackbone

    backbone = MODELS.build(config)
    if isinstance(backbone, TIMMBackbone):
        compat.put_channels_first(backbone)
    if isinstance(backbone, ResNet) and backbone.norm_eval:
        fold_frozen_norms(backbone)
    return backbone
