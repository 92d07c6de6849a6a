"""The model and its parts."""

from clipbert_mm.models.aggregators import LogSumExpAggregator, MaxAggregator, MeanAggregator, QueryWeightedAggregator
from clipbert_mm.models.backbones import BlipVision, ClipEncoder, CLIPVision, PEVision, SiglipVision, ViltPatches
from clipbert_mm.models.clipbert import ClipBert
from clipbert_mm.models.data_preprocessors import VideoTextPreprocessor
from clipbert_mm.models.encoders import (
    AnswerEncoder,
    CLIPText,
    CrossEncoder,
    JointEncoder,
    PairEncoder,
    PEText,
    SiglipText,
    ViltEncoder,
)
from clipbert_mm.models.hard_negatives import HardNegatives
from clipbert_mm.models.heads import (
    CountHead,
    LikelihoodHead,
    MarginRankingHead,
    MaskedLanguageHead,
    MatchingHead,
    MultipleChoiceHead,
    OpenEndedHead,
    SigmoidSimilarityHead,
    SimilarityHead,
    SimilarityMatchingHead,
    SoftAnswerHead,
    SoftmaxRankingHead,
)
from clipbert_mm.models.necks import (
    ConcatClips,
    ConcatFusion,
    Conv2Plus1DFusion,
    Conv3DFusion,
    GridProjection,
    MeanClips,
    MeanFusion,
)
from clipbert_mm.models.vector_distillation import VectorDistillation

__all__ = [
    "AnswerEncoder",
    "BlipVision",
    "CLIPText",
    "CLIPVision",
    "ClipBert",
    "ClipEncoder",
    "ConcatClips",
    "ConcatFusion",
    "Conv2Plus1DFusion",
    "Conv3DFusion",
    "CountHead",
    "CrossEncoder",
    "GridProjection",
    "HardNegatives",
    "JointEncoder",
    "LikelihoodHead",
    "LogSumExpAggregator",
    "MarginRankingHead",
    "MaskedLanguageHead",
    "MatchingHead",
    "MaxAggregator",
    "MeanAggregator",
    "MeanClips",
    "MeanFusion",
    "MultipleChoiceHead",
    "OpenEndedHead",
    "PEText",
    "PEVision",
    "PairEncoder",
    "QueryWeightedAggregator",
    "SiglipText",
    "SiglipVision",
    "SigmoidSimilarityHead",
    "SimilarityHead",
    "SimilarityMatchingHead",
    "SoftAnswerHead",
    "SoftmaxRankingHead",
    "VectorDistillation",
    "VideoTextPreprocessor",
    "ViltEncoder",
    "ViltPatches",
]
