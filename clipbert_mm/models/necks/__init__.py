"""From backbone maps to the features of a clip."""

from clipbert_mm.models.necks.grid_projection import GridProjection
from clipbert_mm.models.necks.temporal_fusion import MeanFusion

__all__ = ["GridProjection", "MeanFusion"]
