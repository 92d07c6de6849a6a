"""Checking weights before they are taken over."""

from clipbert_mm.checkpoint.fit import CheckpointError, check_file, check_fit

__all__ = ["CheckpointError", "check_file", "check_fit"]
