"""The model and its parts."""

from clipbert_mm.models.aggregators import LogSumExpAggregator, MaxAggregator, MeanAggregator
from clipbert_mm.models.backbones import ClipEncoder
from clipbert_mm.models.clipbert import ClipBert
from clipbert_mm.models.data_preprocessors import VideoTextPreprocessor
from clipbert_mm.models.encoders import JointEncoder, PairEncoder
from clipbert_mm.models.heads import (
    CountHead,
    MarginRankingHead,
    MaskedLanguageHead,
    MatchingHead,
    MultipleChoiceHead,
    OpenEndedHead,
    SoftAnswerHead,
)
from clipbert_mm.models.necks import Conv2Plus1DFusion, Conv3DFusion, GridProjection, MeanFusion

__all__ = [
    "ClipBert",
    "ClipEncoder",
    "Conv2Plus1DFusion",
    "Conv3DFusion",
    "CountHead",
    "GridProjection",
    "JointEncoder",
    "LogSumExpAggregator",
    "MarginRankingHead",
    "MaskedLanguageHead",
    "MatchingHead",
    "MaxAggregator",
    "MeanAggregator",
    "MeanFusion",
    "MultipleChoiceHead",
    "OpenEndedHead",
    "PairEncoder",
    "SoftAnswerHead",
    "VideoTextPreprocessor",
]
