"""What a model predicts for and is scored on."""

from clipbert_mm.structures.answers import AnnotationError, read_answers
from clipbert_mm.structures.files import locked, made_whole, scratch, sweep, temporary_folder, written_whole
from clipbert_mm.structures.sizes import parse_bytes
from clipbert_mm.structures.video_text_sample import IGNORED, VideoTextSample

__all__ = [
    "IGNORED",
    "AnnotationError",
    "VideoTextSample",
    "locked",
    "made_whole",
    "parse_bytes",
    "read_answers",
    "scratch",
    "sweep",
    "temporary_folder",
    "written_whole",
]
