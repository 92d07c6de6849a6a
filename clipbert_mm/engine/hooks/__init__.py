"""Hooks of training."""

from clipbert_mm.engine.hooks.broken_media_hook import BrokenMediaHook
from clipbert_mm.engine.hooks.checkpoint_hook import CheckpointHook
from clipbert_mm.engine.hooks.compatibility_hook import CheckpointCompatibilityHook
from clipbert_mm.engine.hooks.epoch_seed_hook import EpochSeedHook
from clipbert_mm.engine.hooks.finite_loss_hook import FiniteLossHook

__all__ = ["BrokenMediaHook", "CheckpointCompatibilityHook", "CheckpointHook", "EpochSeedHook", "FiniteLossHook"]
