"""Datasets: they read annotation files and give items of a video or image, texts and labels."""

from clipbert_mm.datasets.caption_datasets import PretrainingDataset, RetrievalDataset
from clipbert_mm.datasets.mixed_dataset import MixedDataset
from clipbert_mm.datasets.question_datasets import (
    CountDataset,
    MultipleChoiceDataset,
    OpenEndedDataset,
    SoftAnswerDataset,
)
from clipbert_mm.datasets.vocabulary import train_vocabularies, train_vocabulary

__all__ = [
    "CountDataset",
    "MixedDataset",
    "MultipleChoiceDataset",
    "OpenEndedDataset",
    "PretrainingDataset",
    "RetrievalDataset",
    "SoftAnswerDataset",
    "train_vocabularies",
    "train_vocabulary",
]
