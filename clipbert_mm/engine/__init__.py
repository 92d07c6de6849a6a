"""Loops, hooks, and the reading of configs."""

from clipbert_mm.engine.hooks import BrokenMediaHook, CheckpointFitHook, EpochSeedHook
from clipbert_mm.engine.retrieval_loop import RetrievalTestLoop, RetrievalValLoop
from clipbert_mm.engine.schedulers import WarmupLinearLR

__all__ = [
    "BrokenMediaHook",
    "CheckpointFitHook",
    "EpochSeedHook",
    "RetrievalTestLoop",
    "RetrievalValLoop",
    "WarmupLinearLR",
]
