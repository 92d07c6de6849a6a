"""Annotations to items."""

from clipbert_mm.datasets.caption_datasets import PretrainingDataset, RetrievalDataset
from clipbert_mm.datasets.question_datasets import OpenEndedDataset

__all__ = ["OpenEndedDataset", "PretrainingDataset", "RetrievalDataset"]
