"""Search in two stages: the vectors of all videos, exactly, then the model itself on a shortlist."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from clipbert_mm.apis.pooling import pooling_of
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.apis.results import Hit, best_of, moments_of, probability
from clipbert_mm.apis.video_tokens import Block, VideoTokens
from clipbert_mm.errors import OptionError, is_count, quoted
from clipbert_mm.index import Entry, Filter, VideoIndex
from clipbert_mm.index.vectors import VECTOR_POOLINGS
from clipbert_mm.retrieval.rerank import default_shortlist

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

    Raises:
        OptionError: If a number is too small, or there is no such pooling.
    """

    topk: int = 10
    shortlist: int | None = None
    where: Filter | None = None
    vector_pooling: str | None = None
    vectors_only: bool = False

    def __post_init__(self) -> None:
        if not is_count(self.topk) or not (self.shortlist in (None, 0) or is_count(self.shortlist, self.topk)):
            raise OptionError(
                f"search expects topk >= 1 and shortlist 0 or >= topk, got {quoted(self.topk)} and {quoted(self.shortlist)}."
            )
        if self.vector_pooling is not None and self.vector_pooling not in VECTOR_POOLINGS:
            raise OptionError(
                f"vector_pooling is one of {', '.join(VECTOR_POOLINGS)}, got {quoted(self.vector_pooling)}."
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
    """

    hits: tuple[Hit, ...]
    searched: int
    by_vectors: int
    by_model: int
    left_out: dict[str, str]


class TwoStages:
    """Find the videos of an index that match a query.

    Args:
        predictor: The model that made the index.
        video_index: The index.
    """

    def __init__(self, predictor: Predictor, video_index: VideoIndex) -> None:
        self.predictor, self.video_index = predictor, video_index
        self.tokens = VideoTokens(predictor, video_index)

    def find(self, token_ids: np.ndarray, options: SearchOptions) -> Found:
        """Find the videos that match a text, token ids (L,).

        Raises:
            OptionError: If only vectors are to be compared, and the model has none.
            VideoIndexError: If the index has no vectors that fit the model, or cannot be read.
        """
        encoder = self.predictor.model.encoder
        count, left_out = self.video_index.count(options.where), dict[str, str]()
        self.predictor.model.data_preprocessor.check_token_ids([token_ids])
        if options.vectors_only:
            return self.nearest(self.text_vector(token_ids), options)
        shortlist = options.shortlist
        if shortlist is None:
            shortlist = default_shortlist(encoder, options.topk, count)
        by_vectors = 0
        if not 0 < shortlist < count:
            chosen = list(self.video_index.listed(options.where))
        elif encoder.has_vectors:
            nearest = self.video_index.nearest(
                self.text_vector(token_ids), shortlist, pooling=self._pooling(options), where=options.where
            )
            left_out |= nearest.left_out
            by_vectors, chosen = nearest.searched, list(self.video_index.found(list(nearest.similarities)).values())
        else:
            coarse = self._score_coarse(list(self.video_index.listed(options.where)), token_ids, left_out)
            by_vectors = len(coarse)
            chosen = list(self.video_index.found(sorted(coarse, key=lambda path: -coarse[path])[:shortlist]).values())
        scored = self._score(chosen, token_ids, left_out)
        entries = {entry.path: entry for entry in chosen}
        best = sorted(scored, key=lambda path: -scored[path].score)[: options.topk]
        hits = tuple(self._hit(entries[path], scored[path], token_ids) for path in best)
        return Found(hits, count - len(left_out), by_vectors, len(scored), left_out)

    def nearest(self, vector: Tensor, options: SearchOptions) -> Found:
        """Find the videos whose vectors are nearest to a unit vector, (P,)."""
        nearest = self.video_index.nearest(vector, options.topk, pooling=self._pooling(options), where=options.where)
        entries = self.video_index.found(list(nearest.similarities))
        hits = []
        for path, similarity in nearest.similarities.items():
            if path in entries:
                clips = self.video_index.vectors(path) @ vector.cpu()  # (K,)
                moments = moments_of(entries[path].clip_times, clips.tolist())
                hits.append(Hit(path, similarity, None, best_of(moments), moments, VECTORS))
        return Found(tuple(hits), nearest.searched, nearest.searched, 0, dict(nearest.left_out))

    def text_vector(self, token_ids: np.ndarray) -> Tensor:
        """Return the unit vector of a text, float32 (P,).

        Raises:
            OptionError: If the model has no vectors.
        """
        if not self.predictor.model.encoder.has_vectors:
            raise OptionError(
                f"{self.predictor.source} has no vectors to search by. Use a model that has, such as BLIP, CLIP or SigLIP, or "
                "leave the option out."
            )
        vectors = self.predictor.pairs.encode_texts([token_ids]).vectors
        assert vectors is not None
        return vectors[0].float().cpu()

    def _pooling(self, options: SearchOptions) -> str:
        """Return how the similarities of a video's clips become one: as its scores do, unless the options say otherwise."""
        model = self.predictor.model
        return options.vector_pooling or ("mean" if model.joins_clips else pooling_of(model.aggregator))

    def _score_coarse(
        self, entries: Sequence[Entry], token_ids: np.ndarray, left_out: dict[str, str]
    ) -> dict[str, float]:
        """Score a text with the coarse tokens of videos, by path; see :meth:`_score`."""
        predictor, coarse = self.predictor, dict[str, float]()
        for paths, tokens in self.tokens.coarse_blocks(entries, left_out):
            scores = predictor.pooled_scores(predictor.clip_logits(tokens, [token_ids]))
            coarse |= zip(paths, scores[0].tolist(), strict=True)
        return _finite(coarse, left_out)

    def _score(self, entries: Sequence[Entry], token_ids: np.ndarray, left_out: dict[str, str]) -> dict[str, Scored]:
        """Score a text with videos, by path.

        Videos whose visual tokens cannot be used are added to ``left_out``, with the reason.
        """
        scored: dict[str, Scored] = {}
        for block in self.tokens.blocks(entries, left_out):
            scored |= self._scored(block, token_ids)
        finite = _finite({path: each.score for path, each in scored.items()}, left_out)
        return {path: scored[path] for path in finite}

    def _scored(self, block: Block, token_ids: np.ndarray) -> Iterable[tuple[str, Scored]]:
        predictor, (paths, tokens) = self.predictor, block
        logits = predictor.logits(tokens, [token_ids])  # (1, v, K, C)
        clips = None if predictor.model.joins_clips else predictor.clip_scores(logits)[0].numpy()  # (v, K)
        for i, (path, pair) in enumerate(zip(paths, scores_and_probabilities(predictor, logits), strict=True)):
            yield path, Scored(*pair, None if clips is None else clips[i])

    def _hit(self, entry: Entry, scored: Scored, token_ids: np.ndarray) -> Hit:
        clips = scored.clips
        if clips is None:  # of the videos that were found alone
            tokens = self.tokens.of(entry)[None]
            clips = self.predictor.clip_scores(self.predictor.clip_logits(tokens, [token_ids]))[0, 0].numpy()
        moments = moments_of(entry.clip_times, clips)
        return Hit(entry.path, scored.score, scored.probability, best_of(moments), moments, MODEL)


def scores_and_probabilities(predictor: Predictor, logits: Tensor) -> list[tuple[float, float | None]]:
    """Return score and probability of each pair, text by text, from logits (M, V, K, C)."""
    scores, log_odds = predictor.pooled_scores(logits).flatten().tolist(), predictor.log_odds(logits)
    if log_odds is None:
        return [(score, None) for score in scores]
    return list(zip(scores, map(probability, log_odds.flatten().tolist()), strict=True))


def _finite(scores: dict[str, float], left_out: dict[str, str]) -> dict[str, float]:
    """Leave out videos whose scores are not finite, and add them to ``left_out``."""
    finite = {path: score for path, score in scores.items() if math.isfinite(score)}
    left_out |= dict.fromkeys(scores.keys() - finite.keys(), "its visual tokens are not finite; index it again")
    return finite
