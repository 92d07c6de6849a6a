"""Hooks of training."""

from clipbert_mm.engine.hooks.broken_media import BrokenMediaHook
from clipbert_mm.engine.hooks.finite_loss import FiniteLossHook
from clipbert_mm.engine.hooks.fit import CheckpointFitHook
from clipbert_mm.engine.hooks.saving import CheckpointHook
from clipbert_mm.engine.hooks.seeding import EpochSeedHook

__all__ = ["BrokenMediaHook", "CheckpointFitHook", "CheckpointHook", "EpochSeedHook", "FiniteLossHook"]
