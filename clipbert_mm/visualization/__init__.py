"""Pictures of results, of what the model is fed, and of how long videos are."""

from clipbert_mm.visualization.explanation import draw_explanation
from clipbert_mm.visualization.lengths import draw_average_lengths, draw_durations
from clipbert_mm.visualization.pictures import draw_curves, draw_items, draw_retrieval

__all__ = [
    "draw_average_lengths",
    "draw_curves",
    "draw_durations",
    "draw_explanation",
    "draw_items",
    "draw_retrieval",
]
