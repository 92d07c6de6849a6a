"""2D backbones: mmpretrain's, or any registered one by config."""

from clipbert_mm.models.backbones.build import build_backbone

__all__ = ["build_backbone"]
