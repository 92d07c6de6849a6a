"""Transforms: from the record of a dataset to the input of the model, step by step."""

from clipbert_mm.datasets.transforms.decoding import DecodeClips, LoadImage, OpenFrames, OpenVideo
from clipbert_mm.datasets.transforms.mmaction_adapters import ClipBertTransforms, MMActionTransforms
from clipbert_mm.datasets.transforms.packing import PackInputs, collate_items
from clipbert_mm.datasets.transforms.resize_to import ResizeTo
from clipbert_mm.datasets.transforms.sampling import SampleClips
from clipbert_mm.datasets.transforms.spatial import ResizeFrames, ResizePad
from clipbert_mm.datasets.transforms.text import MaskTokens, Tokenize
from clipbert_mm.errors import BackendError, BrokenMediaError

__all__ = [
    "BackendError",
    "BrokenMediaError",
    "ClipBertTransforms",
    "DecodeClips",
    "LoadImage",
    "MMActionTransforms",
    "MaskTokens",
    "OpenFrames",
    "OpenVideo",
    "PackInputs",
    "ResizeFrames",
    "ResizePad",
    "ResizeTo",
    "SampleClips",
    "Tokenize",
    "collate_items",
]
