"""Hooks of training."""

from clipbert_mm.deprecation import renamed
from clipbert_mm.engine.hooks.broken_media_hook import BrokenMediaHook
from clipbert_mm.engine.hooks.candidate_answers_hook import CandidateAnswersHook
from clipbert_mm.engine.hooks.chance_loss_hook import ChanceLossHook
from clipbert_mm.engine.hooks.checkpoint_hook import FaultTolerantCheckpointHook
from clipbert_mm.engine.hooks.compatibility_hook import CheckpointCompatibilityHook
from clipbert_mm.engine.hooks.epoch_seed_hook import EpochSeedHook
from clipbert_mm.engine.hooks.finite_loss_hook import FiniteLossHook

__all__ = [
    "BrokenMediaHook",
    "CandidateAnswersHook",
    "ChanceLossHook",
    "CheckpointCompatibilityHook",
    "EpochSeedHook",
    "FaultTolerantCheckpointHook",
    "FiniteLossHook",
]

__getattr__ = renamed(
    __name__,
    {
        "CheckpointFitHook": "clipbert_mm.engine.CheckpointCompatibilityHook",
        "CheckpointHook": "clipbert_mm.engine.FaultTolerantCheckpointHook",
    },
)
