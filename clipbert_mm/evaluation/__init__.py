"""Metrics: pure functions and thin classes around them."""

from clipbert_mm.deprecation import renamed
from clipbert_mm.evaluation.answer_accuracy import AnswerAccuracy, CountError, accuracy_by_type, correct_answers
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
    "correct_answers",
    "read_rankings",
    "retrieval_metrics",
    "shortlist_recall",
    "write_rankings",
]

__getattr__ = renamed(__name__, {"right_answers": "clipbert_mm.evaluation.correct_answers"})
