"""Loops, hooks, and the reading of configs."""

from clipbert_mm.engine.hooks import BrokenMediaHook, CheckpointFitHook, EpochSeedHook
from clipbert_mm.engine.retrieval_loop import RetrievalTestLoop, RetrievalValLoop

__all__ = ["BrokenMediaHook", "CheckpointFitHook", "EpochSeedHook", "RetrievalTestLoop", "RetrievalValLoop"]
