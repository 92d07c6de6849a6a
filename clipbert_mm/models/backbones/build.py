"""Building the backbone."""

from torch import nn

from clipbert_mm import compat
from clipbert_mm.models.backbones.folding import fold_frozen_norms
from clipbert_mm.registry import MODELS, type_name


def build_backbone(config: dict) -> nn.Module:
    """Build a backbone; mmpretrain and mmaction2 take seconds to import, so each is imported only for its own backbones.

    Frozen batch norms of mmpretrain's ResNets are folded into the preceding convolutions.

    Args:
        config: Config of a registered module that maps (N, 3, H, W) to a feature map, or to a sequence of maps of which the
            last is used; or of a ClipEncoder. ``mmpretrain.TIMMBackbone`` builds backbones of timm.
    """
    library = type_name(config).partition(".")[0]
    if library == "mmaction":
        return _build_mmaction_backbone(config)
    if library != "mmpretrain":
        return MODELS.build(config)
    compat.import_mmpretrain()
    from mmpretrain.models import ResNet, TIMMBackbone

    backbone = MODELS.build(config)
    if isinstance(backbone, TIMMBackbone):
        compat.put_channels_first(backbone)
    if isinstance(backbone, ResNet) and backbone.norm_eval:
        fold_frozen_norms(backbone)
    return backbone


def _build_mmaction_backbone(config: dict) -> nn.Module:
    compat.import_mmaction()
    MODELS.get(config["type"])  # its error lists names
    with compat.building_mmaction():
        backbone = MODELS.build(config)
    compat.mend_mmaction_backbone(backbone)
    return backbone
