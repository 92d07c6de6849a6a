"""Task heads: clip logits, losses, scores."""

from clipbert_mm.models.heads.masked_language_head import MaskedLanguageHead
from clipbert_mm.models.heads.matching_head import MarginRankingHead, MatchingHead, SimilarityMatchingHead
from clipbert_mm.models.heads.question_heads import CountHead, MultipleChoiceHead, OpenEndedHead, SoftAnswerHead
from clipbert_mm.models.heads.task_head import TaskHead

__all__ = [
    "CountHead",
    "MarginRankingHead",
    "MaskedLanguageHead",
    "MatchingHead",
    "MultipleChoiceHead",
    "OpenEndedHead",
    "SimilarityMatchingHead",
    "SoftAnswerHead",
    "TaskHead",
]
