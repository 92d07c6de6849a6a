"""Task heads: clip logits, losses, scores."""

from clipbert_mm.models.heads.likelihood_head import LikelihoodHead
from clipbert_mm.models.heads.masked_language_head import MaskedLanguageHead
from clipbert_mm.models.heads.matching_head import MatchingHead, SimilarityMatchingHead
from clipbert_mm.models.heads.question_heads import CountHead, MultipleChoiceHead, OpenEndedHead, SoftAnswerHead
from clipbert_mm.models.heads.ranking_heads import MarginRankingHead, SoftmaxRankingHead
from clipbert_mm.models.heads.similarity_head import SigmoidSimilarityHead, SimilarityHead
from clipbert_mm.models.heads.task_head import BaseHead, TaskHead

__all__ = [
    "BaseHead",
    "CountHead",
    "LikelihoodHead",
    "MarginRankingHead",
    "MaskedLanguageHead",
    "MatchingHead",
    "MultipleChoiceHead",
    "OpenEndedHead",
    "SigmoidSimilarityHead",
    "SimilarityHead",
    "SimilarityMatchingHead",
    "SoftAnswerHead",
    "SoftmaxRankingHead",
    "TaskHead",
]
