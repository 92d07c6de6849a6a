"""Metrics: pure functions and thin classes around them."""

from clipbert_mm.evaluation.retrieval import RetrievalMetric, best_ranks, retrieval_metrics

__all__ = ["RetrievalMetric", "best_ranks", "retrieval_metrics"]
