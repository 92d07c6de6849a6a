"""Shared records: the sample that a model predicts for, and the answer vocabulary."""

from clipbert_mm.deprecation import renamed
from clipbert_mm.structures.answer_vocabulary import read_answers
from clipbert_mm.structures.video_text_sample import (
    COSINE,
    COUNT,
    IGNORED,
    LOG_ODDS,
    LOG_PROBABILITY,
    VideoTextSample,
)

__all__ = ["COSINE", "COUNT", "IGNORED", "LOG_ODDS", "LOG_PROBABILITY", "VideoTextSample", "read_answers"]

__getattr__ = renamed(
    __name__,
    {
        "AnnotationError": "clipbert_mm.errors.AnnotationError",
        "locked": "clipbert_mm.fileio.locked",
        "made_whole": "clipbert_mm.fileio.atomic_path",
        "parse_bytes": "clipbert_mm.fileio.parse_bytes",
        "scratch": "clipbert_mm.fileio.scratch",
        "sweep": "clipbert_mm.fileio.sweep",
        "temporary_folder": "clipbert_mm.fileio.temporary_folder",
        "written_whole": "clipbert_mm.fileio.atomic_write",
    },
)
