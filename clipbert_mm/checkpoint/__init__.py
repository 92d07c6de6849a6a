"""Checkpoints: read them safely, detect their format, convert names, check that they fit the model; write ours safely."""

from clipbert_mm.checkpoint.archives import verify_checkpoint
from clipbert_mm.checkpoint.building import WithoutInitialization, build_model, damaged_metadata
from clipbert_mm.checkpoint.compatibility import LoadReport, check_fit, load_weights
from clipbert_mm.checkpoint.formats import LoadedCheckpoint, read_source
from clipbert_mm.checkpoint.integrity import find_latest, find_selected
from clipbert_mm.checkpoint.metadata import CheckpointMetadata, read_metadata
from clipbert_mm.checkpoint.official import convert_official_state_dict
from clipbert_mm.checkpoint.preprocessing import InputSpec
from clipbert_mm.checkpoint.reading import read_checkpoint
from clipbert_mm.checkpoint.writing import write_checkpoint
from clipbert_mm.errors import CheckpointError

__all__ = [
    "CheckpointError",
    "CheckpointMetadata",
    "InputSpec",
    "LoadReport",
    "LoadedCheckpoint",
    "WithoutInitialization",
    "build_model",
    "check_fit",
    "convert_official_state_dict",
    "damaged_metadata",
    "find_latest",
    "find_selected",
    "load_weights",
    "read_checkpoint",
    "read_metadata",
    "read_source",
    "verify_checkpoint",
    "write_checkpoint",
]
