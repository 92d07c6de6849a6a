"""The index of a collection of videos: records in SQLite, a vector of each clip, and visual tokens where they are kept."""

from clipbert_mm.index.filters import Filter
from clipbert_mm.index.folders import default_folder, is_index
from clipbert_mm.index.names import NamePart, folder_called
from clipbert_mm.index.records import Entry, Unreadable, file_digest, name_below, outermost_folders
from clipbert_mm.index.video_index import STORED_DTYPE, EncodedVideo, VideoIndex

__all__ = [
    "STORED_DTYPE",
    "EncodedVideo",
    "Entry",
    "Filter",
    "NamePart",
    "Unreadable",
    "VideoIndex",
    "default_folder",
    "file_digest",
    "folder_called",
    "is_index",
    "name_below",
    "outermost_folders",
]
