"""From feature maps of the backbone to the features of a clip."""

from clipbert_mm.models.necks.grid_projection import GridProjection
from clipbert_mm.models.necks.temporal_fusion import Conv2Plus1DFusion, Conv3DFusion, MeanFusion

__all__ = ["Conv2Plus1DFusion", "Conv3DFusion", "GridProjection", "MeanFusion"]
