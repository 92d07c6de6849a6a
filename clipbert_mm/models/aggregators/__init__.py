"""From the logits of clips to the logits of a video."""

from clipbert_mm.models.aggregators.clip_aggregator import LogSumExpAggregator, MaxAggregator, MeanAggregator

__all__ = ["LogSumExpAggregator", "MaxAggregator", "MeanAggregator"]
