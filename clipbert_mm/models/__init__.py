"""The model and its parts."""

from clipbert_mm.models.aggregators import LogSumExpAggregator, MaxAggregator, MeanAggregator
from clipbert_mm.models.clipbert import ClipBert
from clipbert_mm.models.data_preprocessors import VideoTextPreprocessor
from clipbert_mm.models.encoders import JointEncoder
from clipbert_mm.models.heads import MaskedLanguageHead, MatchingHead
from clipbert_mm.models.necks import GridProjection, MeanFusion

__all__ = [
    "ClipBert",
    "GridProjection",
    "JointEncoder",
    "LogSumExpAggregator",
    "MaskedLanguageHead",
    "MatchingHead",
    "MaxAggregator",
    "MeanAggregator",
    "MeanFusion",
    "VideoTextPreprocessor",
]
