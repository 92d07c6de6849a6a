"""Loops, hooks, and the reading of configs.

Each name is imported when it is first used, so that tools which train nothing do without MMEngine's Runner.
"""

from typing import TYPE_CHECKING

from clipbert_mm.deprecation import renamed
from clipbert_mm.lazy import lazy_exports

if TYPE_CHECKING:
    from clipbert_mm.engine.hooks import (
        BrokenMediaHook,
        ChanceLossHook,
        CheckpointCompatibilityHook,
        EpochSeedHook,
        FaultTolerantCheckpointHook,
        FiniteLossHook,
    )
    from clipbert_mm.engine.optimizer import GroupedOptimWrapperConstructor
    from clipbert_mm.engine.runner import ClipBertRunner
    from clipbert_mm.engine.schedulers import WarmupLinearLR
    from clipbert_mm.engine.signals import EXIT_AGAIN, StoppedBySignal
    from clipbert_mm.engine.train_loop import ResumableEpochTrainLoop, ResumableIterTrainLoop

__all__ = [
    "EXIT_AGAIN",
    "BrokenMediaHook",
    "ChanceLossHook",
    "CheckpointCompatibilityHook",
    "ClipBertRunner",
    "EpochSeedHook",
    "FaultTolerantCheckpointHook",
    "FiniteLossHook",
    "GroupedOptimWrapperConstructor",
    "ResumableEpochTrainLoop",
    "ResumableIterTrainLoop",
    "StoppedBySignal",
    "WarmupLinearLR",
]

__getattr__ = lazy_exports(
    __name__,
    {
        "hooks": [
            "BrokenMediaHook",
            "ChanceLossHook",
            "CheckpointCompatibilityHook",
            "EpochSeedHook",
            "FaultTolerantCheckpointHook",
            "FiniteLossHook",
        ],
        "optimizer": ["GroupedOptimWrapperConstructor"],
        "runner": ["ClipBertRunner"],
        "schedulers": ["WarmupLinearLR"],
        "signals": ["EXIT_AGAIN", "StoppedBySignal"],
        "train_loop": ["ResumableEpochTrainLoop", "ResumableIterTrainLoop"],
    },
    renamed(
        __name__,
        {
            "CheckpointFitHook": "clipbert_mm.engine.CheckpointCompatibilityHook",
            "CheckpointHook": "clipbert_mm.engine.FaultTolerantCheckpointHook",
            "EpochBasedTrainLoop": "clipbert_mm.engine.ResumableEpochTrainLoop",
            "RetrievalTestLoop": "clipbert_mm.retrieval.RetrievalTestLoop",
            "RetrievalValLoop": "clipbert_mm.retrieval.RetrievalValLoop",
        },
    ),
)
