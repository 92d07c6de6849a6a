"""Loops, hooks, and the reading of configs."""

from clipbert_mm.engine.hooks import (
    BrokenMediaHook,
    CheckpointFitHook,
    CheckpointHook,
    EpochSeedHook,
    FiniteLossHook,
)
from clipbert_mm.engine.optimizer import GroupedOptimWrapperConstructor
from clipbert_mm.engine.retrieval import RetrievalTestLoop, RetrievalValLoop
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.engine.schedulers import WarmupLinearLR
from clipbert_mm.engine.signals import EXIT_AGAIN, StoppedBySignal
from clipbert_mm.engine.train_loop import EpochBasedTrainLoop

__all__ = [
    "EXIT_AGAIN",
    "BrokenMediaHook",
    "CheckpointFitHook",
    "CheckpointHook",
    "ClipBertRunner",
    "EpochBasedTrainLoop",
    "EpochSeedHook",
    "FiniteLossHook",
    "GroupedOptimWrapperConstructor",
    "RetrievalTestLoop",
    "RetrievalValLoop",
    "StoppedBySignal",
    "WarmupLinearLR",
]
