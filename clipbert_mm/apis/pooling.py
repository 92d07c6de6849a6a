"""How the clips of a video become one score, by a word instead of by a config."""

from collections.abc import Mapping
from typing import Any

from clipbert_mm.errors import OptionError, quoted
from clipbert_mm.registry import MODELS

AGGREGATORS: dict[str, dict[str, Any]] = {
    "mean": dict(type="MeanAggregator"),
    "max": dict(type="MaxAggregator"),
    "logsumexp": dict(type="LogSumExpAggregator"),
    "query-weighted": dict(type="QueryWeightedAggregator", temperature=0.1),
}
"""Poolings that score each clip alone, and what pools the scores."""
CLIP_FUSIONS = {"concat": "ConcatClips", "mean-vector": "MeanClips"}
"""Poolings that join the clips before they are scored, and by what; the first is for tokens, the second for vectors."""
POOLINGS = (*AGGREGATORS, *CLIP_FUSIONS)
"""All words."""


def with_pooling(model: Mapping[str, Any], pooling: str | None) -> dict[str, Any]:
    """Return a model's config that pools the clips of a video in another way.

    Args:
        model: Config of the model.
        pooling: One of :data:`POOLINGS`; None for what the config says.

    Raises:
        OptionError: If there is no such pooling, or it needs vectors and the model has tokens, or the other way round.
    """
    if pooling is None:
        return dict(model)
    if pooling not in POOLINGS:
        raise OptionError(f"pooling (--pooling) is one of {', '.join(POOLINGS)}, got {quoted(pooling)}.")
    if pooling in AGGREGATORS:
        return {**model, "clip_fusion": None, "aggregator": AGGREGATORS[pooling]}
    name = model["encoder"]["type"]
    encoder = MODELS.get(name) if isinstance(name, str) else name
    compares_vectors = getattr(encoder, "compares_vectors", False)
    if (pooling == "mean-vector") != compares_vectors:
        kind, other = ("vectors", "mean-vector") if compares_vectors else ("visual tokens", "concat")
        raise OptionError(
            f"pooling {pooling!r} does not go with a {getattr(encoder, '__name__', name)}, which reads {kind}. Use "
            f"{other!r}, or one that scores each clip alone: {', '.join(AGGREGATORS)}."
        )
    return {**model, "clip_fusion": dict(type=CLIP_FUSIONS[pooling])}


def pooling_of(aggregator: object) -> str:
    """Return the word of a model's aggregator; "max" for one that has none, such as your own.

    >>> from clipbert_mm.models.aggregators import MeanAggregator
    >>> pooling_of(MeanAggregator()), pooling_of(None)
    ('mean', 'max')
    """
    name = type(aggregator).__name__
    return next((word for word, config in AGGREGATORS.items() if config["type"] == name), "max")
