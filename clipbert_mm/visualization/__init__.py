"""Pictures of data, results and training."""

from clipbert_mm.visualization.pictures import draw_curves, draw_items, draw_retrieval

__all__ = ["draw_curves", "draw_items", "draw_retrieval"]
