"""Metrics: pure functions and thin classes around them."""

from clipbert_mm.evaluation.answer_accuracy import AnswerAccuracy, CountError, accuracy_by_type, right_answers
from clipbert_mm.evaluation.pretraining_accuracy import PretrainingAccuracy
from clipbert_mm.evaluation.retrieval_metric import (
    RetrievalMetric,
    best_ranks,
    bootstrap_intervals,
    read_rankings,
    retrieval_metrics,
    shortlist_recall,
    write_rankings,
)
from clipbert_mm.evaluation.vqa_accuracy import VQAAccuracy

__all__ = [
    "AnswerAccuracy",
    "CountError",
    "PretrainingAccuracy",
    "RetrievalMetric",
    "VQAAccuracy",
    "accuracy_by_type",
    "best_ranks",
    "bootstrap_intervals",
    "read_rankings",
    "retrieval_metrics",
    "right_answers",
    "shortlist_recall",
    "write_rankings",
]
