"""From feature maps of the backbone to the features of a clip."""

from clipbert_mm.models.necks.build import build_neck
from clipbert_mm.models.necks.clip_fusion import ConcatClips, MeanClips
from clipbert_mm.models.necks.grid_projection import GridProjection
from clipbert_mm.models.necks.temporal_fusion import ConcatFusion, Conv2Plus1DFusion, Conv3DFusion, MeanFusion

__all__ = [
    "ConcatClips",
    "ConcatFusion",
    "Conv2Plus1DFusion",
    "Conv3DFusion",
    "GridProjection",
    "MeanClips",
    "MeanFusion",
    "build_neck",
]
