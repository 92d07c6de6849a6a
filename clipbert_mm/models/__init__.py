"""The model and its parts."""

from clipbert_mm.models.aggregators import LogSumExpAggregator, MaxAggregator, MeanAggregator
from clipbert_mm.models.backbones import BlipVision, ClipEncoder
from clipbert_mm.models.clipbert import ClipBert
from clipbert_mm.models.data_preprocessors import VideoTextPreprocessor
from clipbert_mm.models.encoders import CrossEncoder, JointEncoder, PairEncoder
from clipbert_mm.models.heads import (
    CountHead,
    MarginRankingHead,
    MaskedLanguageHead,
    MatchingHead,
    MultipleChoiceHead,
    OpenEndedHead,
    SimilarityMatchingHead,
    SoftAnswerHead,
)
from clipbert_mm.models.necks import (
    ConcatClips,
    ConcatFusion,
    Conv2Plus1DFusion,
    Conv3DFusion,
    GridProjection,
    MeanFusion,
)

__all__ = [
    "BlipVision",
    "ClipBert",
    "ClipEncoder",
    "ConcatClips",
    "ConcatFusion",
    "Conv2Plus1DFusion",
    "Conv3DFusion",
    "CountHead",
    "CrossEncoder",
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
    "SimilarityMatchingHead",
    "SoftAnswerHead",
    "VideoTextPreprocessor",
]
