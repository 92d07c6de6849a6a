"""Annotations to items."""

from clipbert_mm.datasets.caption_datasets import PretrainingDataset, RetrievalDataset

__all__ = ["PretrainingDataset", "RetrievalDataset"]
