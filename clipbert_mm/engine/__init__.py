"""Loops, hooks, and the reading of configs."""

from clipbert_mm.engine.hooks import BrokenMediaHook, CheckpointFitHook, EpochSeedHook
from clipbert_mm.engine.optimizer import GroupedOptimWrapperConstructor
from clipbert_mm.engine.retrieval import RetrievalTestLoop, RetrievalValLoop
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.engine.schedulers import WarmupLinearLR

__all__ = [
    "BrokenMediaHook",
    "CheckpointFitHook",
    "ClipBertRunner",
    "EpochSeedHook",
    "GroupedOptimWrapperConstructor",
    "RetrievalTestLoop",
    "RetrievalValLoop",
    "WarmupLinearLR",
]
