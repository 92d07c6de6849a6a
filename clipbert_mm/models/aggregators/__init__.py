"""From the logits of clips to the logits of a video."""

from clipbert_mm.models.aggregators.clip_aggregator import (
    ClipAggregator,
    LogSumExpAggregator,
    MaxAggregator,
    MeanAggregator,
    QueryWeightedAggregator,
)

__all__ = ["ClipAggregator", "LogSumExpAggregator", "MaxAggregator", "MeanAggregator", "QueryWeightedAggregator"]
