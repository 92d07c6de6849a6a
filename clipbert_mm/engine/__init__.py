"""Loops, hooks, and the reading of configs."""

from clipbert_mm.deprecation import renamed
from clipbert_mm.engine.hooks import (
    BrokenMediaHook,
    CheckpointCompatibilityHook,
    CheckpointHook,
    EpochSeedHook,
    FiniteLossHook,
)
from clipbert_mm.engine.optimizer import GroupedOptimWrapperConstructor
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.engine.schedulers import WarmupLinearLR
from clipbert_mm.engine.signals import EXIT_AGAIN, StoppedBySignal
from clipbert_mm.engine.train_loop import EpochBasedTrainLoop

__all__ = [
    "EXIT_AGAIN",
    "BrokenMediaHook",
    "CheckpointCompatibilityHook",
    "CheckpointHook",
    "ClipBertRunner",
    "EpochBasedTrainLoop",
    "EpochSeedHook",
    "FiniteLossHook",
    "GroupedOptimWrapperConstructor",
    "StoppedBySignal",
    "WarmupLinearLR",
]

__getattr__ = renamed(
    __name__,
    {
        "CheckpointFitHook": "clipbert_mm.engine.CheckpointCompatibilityHook",
        "RetrievalTestLoop": "clipbert_mm.retrieval.RetrievalTestLoop",
        "RetrievalValLoop": "clipbert_mm.retrieval.RetrievalValLoop",
    },
)
