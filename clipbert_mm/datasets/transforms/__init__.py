"""From a record to what the model is fed, step by step."""

from clipbert_mm.datasets.transforms.decoding import DecodeClips, LoadImage, OpenVideo
from clipbert_mm.datasets.transforms.frame_folders import OpenFrames
from clipbert_mm.datasets.transforms.packing import PackInputs, collate_items
from clipbert_mm.datasets.transforms.readers import BackendError
from clipbert_mm.datasets.transforms.sampling import SampleClips
from clipbert_mm.datasets.transforms.spatial import ResizePad
from clipbert_mm.datasets.transforms.storage import BrokenMediaError
from clipbert_mm.datasets.transforms.text import MaskTokens, Tokenize

__all__ = [
    "BackendError",
    "BrokenMediaError",
    "DecodeClips",
    "LoadImage",
    "MaskTokens",
    "OpenFrames",
    "OpenVideo",
    "PackInputs",
    "ResizePad",
    "SampleClips",
    "Tokenize",
    "collate_items",
]
