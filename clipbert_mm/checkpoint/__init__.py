"""Checkpoints: opening any safely, recognising them, converting names, checking that they fit; writing ours safely."""

from clipbert_mm.checkpoint.archives import check_whole
from clipbert_mm.checkpoint.building import build_model, damaged_contents
from clipbert_mm.checkpoint.contents import Contents, read_contents
from clipbert_mm.checkpoint.convention import Convention
from clipbert_mm.checkpoint.fit import FitReport, check_fit, load_weights
from clipbert_mm.checkpoint.kinds import Source, read_source
from clipbert_mm.checkpoint.official import convert_official_state_dict
from clipbert_mm.checkpoint.reading import read_checkpoint
from clipbert_mm.checkpoint.wholeness import find_newest
from clipbert_mm.checkpoint.writing import write_checkpoint
from clipbert_mm.errors import CheckpointError

__all__ = [
    "CheckpointError",
    "Contents",
    "Convention",
    "FitReport",
    "Source",
    "build_model",
    "check_fit",
    "check_whole",
    "convert_official_state_dict",
    "damaged_contents",
    "find_newest",
    "load_weights",
    "read_checkpoint",
    "read_contents",
    "read_source",
    "write_checkpoint",
]
