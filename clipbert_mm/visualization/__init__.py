"""Figures of results and of what the model is fed."""

from clipbert_mm.visualization.explanation_figure import draw_explanation
from clipbert_mm.visualization.figures import draw_curves, draw_items, draw_retrieval
from clipbert_mm.visualization.reliability_diagram import draw_reliability

__all__ = [
    "draw_curves",
    "draw_explanation",
    "draw_items",
    "draw_reliability",
    "draw_retrieval",
]
