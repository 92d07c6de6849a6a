"""Figures of results and of what the model is fed."""

from clipbert_mm.visualization.explanation_figure import draw_explanation
from clipbert_mm.visualization.figures import draw_curves, draw_items, draw_retrieval

__all__ = [
    "draw_curves",
    "draw_explanation",
    "draw_items",
    "draw_retrieval",
]
