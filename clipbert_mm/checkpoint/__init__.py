"""Weights from elsewhere: converting their names, checking that they fit."""

from clipbert_mm.checkpoint.fit import CheckpointError, check_file, check_fit
from clipbert_mm.checkpoint.official import convert_official_state_dict

__all__ = ["CheckpointError", "check_file", "check_fit", "convert_official_state_dict"]
