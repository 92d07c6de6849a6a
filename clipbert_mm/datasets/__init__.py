"""Annotations to items."""

from clipbert_mm.datasets.caption_datasets import PretrainingDataset, RetrievalDataset
from clipbert_mm.datasets.mixed_dataset import MixedDataset
from clipbert_mm.datasets.question_datasets import (
    CountDataset,
    MultipleChoiceDataset,
    OpenEndedDataset,
    SoftAnswerDataset,
)

__all__ = [
    "CountDataset",
    "MixedDataset",
    "MultipleChoiceDataset",
    "OpenEndedDataset",
    "PretrainingDataset",
    "RetrievalDataset",
    "SoftAnswerDataset",
]
