"""Metrics: pure functions and thin classes around them."""

from clipbert_mm.deprecation import renamed
from clipbert_mm.evaluation.answer_accuracy import AnswerAccuracy, CountError, accuracy_by_type, correct_answers
from clipbert_mm.evaluation.answer_similarity import WUPS, wups
from clipbert_mm.evaluation.calibration import CalibrationBins
from clipbert_mm.evaluation.label_dump import DumpLabels
from clipbert_mm.evaluation.moments import moment_figures
from clipbert_mm.evaluation.pretraining_accuracy import PretrainingAccuracy
from clipbert_mm.evaluation.ranked_precision import precision_figures
from clipbert_mm.evaluation.retrieval_metric import (
    RetrievalMetric,
    best_ranks,
    bootstrap_intervals,
    multi_positive_metrics,
    read_rankings,
    retrieval_metrics,
    shortlist_recall,
    write_rankings,
)
from clipbert_mm.evaluation.vqa_accuracy import VQAAccuracy

__all__ = [
    "WUPS",
    "AnswerAccuracy",
    "CalibrationBins",
    "CountError",
    "DumpLabels",
    "PretrainingAccuracy",
    "RetrievalMetric",
    "VQAAccuracy",
    "accuracy_by_type",
    "best_ranks",
    "bootstrap_intervals",
    "correct_answers",
    "moment_figures",
    "multi_positive_metrics",
    "precision_figures",
    "read_rankings",
    "retrieval_metrics",
    "shortlist_recall",
    "write_rankings",
    "wups",
]

__getattr__ = renamed(__name__, {"right_answers": "clipbert_mm.evaluation.correct_answers"})
