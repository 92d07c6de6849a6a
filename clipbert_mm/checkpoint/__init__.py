"""Weights from elsewhere: opening them safely, recognising them, converting their names, checking that they fit."""

from clipbert_mm.checkpoint.convention import Convention
from clipbert_mm.checkpoint.fit import FitReport, check_fit
from clipbert_mm.checkpoint.kinds import Source, read_source
from clipbert_mm.checkpoint.official import convert_official_state_dict
from clipbert_mm.checkpoint.reading import CheckpointError, read_checkpoint

__all__ = [
    "CheckpointError",
    "Convention",
    "FitReport",
    "Source",
    "check_fit",
    "convert_official_state_dict",
    "read_checkpoint",
    "read_source",
]
