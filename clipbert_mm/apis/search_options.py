"""What a search is asked for, and what its stages find."""

from dataclasses import dataclass

import numpy as np

from clipbert_mm.apis.search_results import Hit
from clipbert_mm.errors import OptionError, is_count, quoted
from clipbert_mm.index import Filter
from clipbert_mm.index.vectors import VECTOR_POOLINGS

VECTORS, MODEL = "vectors", "model"
"""What ranks a hit, its vectors alone or the model."""


@dataclass(frozen=True)
class SearchOptions:
    """How a search goes about it.

    Args:
        topk: Number of hits.
        shortlist: Videos that the model scores with all clips, chosen by their vectors or coarse tokens; 0 for all. None is for
            128 by a model with vectors, or for all of at most 1,000 if it compares vectors alone, as CLIP; of a model without
            vectors for a tenth of more than 1,000 videos, and for all of fewer.
        where: Conditions that the videos meet; None for all videos.
        vector_pooling: How the similarities of a video's clips become one in the first stage, of
            :data:`~clipbert_mm.index.vectors.VECTOR_POOLINGS`; None for that of the model's scores, "mean" if it joins clips.
        vectors_only: Whether to rank by the vectors alone, which decodes nothing and reads no tokens.
        threshold: Least probability of a hit, 0 to 1; others are left out. None for all.
        clips: Whether to find the best clips of all videos, and not the best videos. Clips have no probabilities.

    Raises:
        OptionError: If a number is too small or too large, or there is no such pooling.
    """

    topk: int = 10
    shortlist: int | None = None
    where: Filter | None = None
    vector_pooling: str | None = None
    vectors_only: bool = False
    threshold: float | None = None
    clips: bool = False

    def __post_init__(self) -> None:
        if not is_count(self.topk) or not (self.shortlist in (None, 0) or is_count(self.shortlist, self.topk)):
            raise OptionError(
                f"search expects topk >= 1 and shortlist 0 or >= topk, got {quoted(self.topk)} and {quoted(self.shortlist)}."
            )
        if self.vector_pooling is not None and self.vector_pooling not in VECTOR_POOLINGS:
            raise OptionError(
                f"vector_pooling is one of {', '.join(VECTOR_POOLINGS)}, got {quoted(self.vector_pooling)}."
            )
        if self.threshold is not None and not (
            isinstance(self.threshold, (int, float))
            and 0 <= self.threshold <= 1
            and not isinstance(self.threshold, bool)
        ):
            raise OptionError(f"threshold is a probability, 0 to 1, or None, got {quoted(self.threshold)}.")
        if self.clips and self.vector_pooling is not None:
            raise OptionError(
                "vector_pooling goes with videos: clips are compared one by one. Leave one of the two out."
            )
        if self.threshold is not None and self.clips:
            raise OptionError(
                "threshold goes with videos: clips have scores, but no probabilities. Leave one of the two out."
            )


@dataclass(frozen=True)
class Scored:
    """A pair of a text and a video.

    Args:
        score: Its score.
        probability: Its probability; None if the model gives none.
        clips: Scores of the clips alone, (K,); None if they are to be computed.
    """

    score: float
    probability: float | None
    clips: np.ndarray | None


@dataclass(frozen=True)
class Found:
    """What a search found.

    Args:
        hits: The best videos, the best first.
        searched: Number of videos that were searched.
        by_vectors: Number of videos whose vectors, or coarse tokens, were compared.
        by_model: Number of videos that the model scored.
        left_out: Videos that could not be searched, with the reason.
        best_probability: Largest probability of a hit, also of one below the threshold; None without probabilities.
        calibrated: Whether the probabilities are those of the index's calibration.
    """

    hits: tuple[Hit, ...]
    searched: int
    by_vectors: int
    by_model: int
    left_out: dict[str, str]
    best_probability: float | None = None
    calibrated: bool = False
