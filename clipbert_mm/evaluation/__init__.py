"""Metrics: pure functions and thin classes around them."""

from clipbert_mm.evaluation.answers import AnswerAccuracy, right_answers
from clipbert_mm.evaluation.retrieval import RetrievalMetric, best_ranks, retrieval_metrics

__all__ = ["AnswerAccuracy", "RetrievalMetric", "best_ranks", "retrieval_metrics", "right_answers"]
