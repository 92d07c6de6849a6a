"""Search in two stages: the vectors of all videos, exactly, then the model itself on a shortlist."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.apis.calibration import calibration_of
from clipbert_mm.apis.pooling import pooling_of
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.apis.results import best_of, moments_of, probability
from clipbert_mm.apis.search_options import MODEL, VECTORS, Found, Scored, SearchOptions
from clipbert_mm.apis.search_results import Hit, largest_probability
from clipbert_mm.apis.video_tokens import Block, VideoTokens
from clipbert_mm.errors import OptionError, VideoIndexError
from clipbert_mm.index import Entry, VideoIndex
from clipbert_mm.retrieval.rerank import default_shortlist

if TYPE_CHECKING:  # its import takes seconds
    from clipbert_mm.models.encoders import EncodedTexts

PAIRS_AT_ONCE = 4096
"""Pairs of a text and a video whose states are in memory at a time."""


class TwoStages:
    """Find the videos of an index that match a query.

    Args:
        predictor: The model that made the index.
        video_index: The index.
    """

    def __init__(self, predictor: Predictor, video_index: VideoIndex) -> None:
        self.predictor, self.video_index = predictor, video_index
        self.tokens = VideoTokens(predictor, video_index)

    def find(self, token_ids: Sequence[np.ndarray], options: SearchOptions) -> list[Found]:
        """Find the videos that match each of some texts, token ids (L,).

        The vectors are read once for all texts, and so is, or decoded, each video that the model scores with any of them.

        Raises:
            OptionError: If only vectors are to be compared, and the model has none.
            VideoIndexError: If the index has no vectors that fit the model, or cannot be read.
        """
        if options.vectors_only:
            return self.nearest(self.text_vectors(token_ids), options)
        texts = self.predictor.encode_texts(token_ids)
        count, left_out = self.video_index.count(options.where), [dict[str, str]() for _ in token_ids]
        chosen, by_vectors = self._chosen(texts, count, options, left_out)
        if options.clips:
            scored = self.score(chosen, texts, left_out, joined=False)
            hits = [self._clip_hits(chosen[i], own, options.topk) for i, own in enumerate(scored)]
        else:
            scored = self.score(chosen, texts, left_out, joined=self.predictor.model.joins_clips)
            best = [
                {path: chosen[i][path] for path in sorted(own, key=lambda path: -own[path].score)[: options.topk]}
                for i, own in enumerate(scored)
            ]
            hits = self._hits(best, scored, texts)
        return [
            self._found(hits[i], MODEL, options, (count - len(left_out[i]), by_vectors[i], len(scored[i]), left_out[i]))
            for i in range(len(token_ids))
        ]

    def nearest(self, vectors: Tensor, options: SearchOptions) -> list[Found]:
        """Find the videos whose vectors are nearest to each of some unit vectors, (Q, P)."""
        found = []
        # So many best clips are in at most as many videos, those of the best single clips.
        nearest = self.video_index.nearest_of_each(
            vectors, options.topk, pooling=self.vector_pooling(options), where=options.where
        )
        for vector, each in zip(vectors, nearest, strict=True):
            left_out = dict(each.left_out)
            entries = self.video_index.found(list(each.similarities))
            clips = self._clip_similarities(entries, vector, left_out)
            if options.clips:
                scored = {path: Scored(each.similarities[path], None, own) for path, own in clips.items()}
                hits = self._clip_hits(entries, scored, options.topk, VECTORS)
            else:
                moments = {path: moments_of(entries[path].clip_times, own) for path, own in clips.items()}
                hits = [
                    Hit(path, each.similarities[path], None, best_of(own), own, VECTORS)
                    for path, own in moments.items()
                ]
            found.append(self._found(hits, VECTORS, options, (each.searched, each.searched, 0, left_out)))
        return found

    def _clip_similarities(
        self, entries: Mapping[str, Entry], vector: Tensor, left_out: dict[str, str]
    ) -> dict[str, np.ndarray]:
        """Return the similarities of the clips of videos to a vector, (K,) each, by path.

        Videos that another process has removed meanwhile, or whose record does not fit, are added to ``left_out``.
        """
        clips: dict[str, np.ndarray] = {}
        for path, entry in entries.items():
            try:
                own = (self.video_index.vectors(path) @ vector.cpu()).numpy()
            except VideoIndexError as error:
                left_out[path] = str(error)
                continue
            if entry.clip_times is not None and len(entry.clip_times) != len(own):
                left_out[path] = f"its record has {len(entry.clip_times)} clips, its vectors {len(own)}; index it again"
                continue
            clips[path] = own
        return clips

    def _found(
        self, hits: Sequence[Hit], stage: str, options: SearchOptions, counts: tuple[int, int, int, dict[str, str]]
    ) -> Found:
        """Return hits with the probabilities of the index's calibration, and without those below the threshold.

        Raises:
            OptionError: If there is a threshold, but no probabilities.
        """
        pooling = self.vector_pooling(options) if stage == VECTORS else self.score_pooling
        fit = None if options.clips else calibration_of(self.video_index, stage, pooling)
        if fit is not None:
            hits = [replace(hit, probability=fit.probability(hit.score)) for hit in hits]
        best = largest_probability(hits)
        if options.threshold is not None:
            if best is None and hits:
                raise OptionError(
                    f"A threshold needs probabilities, and {self.predictor.source} gives none for these scores. Calibrate them "
                    "first, with this pooling: clipbert calibrate PAIRS."
                )
            hits = [hit for hit in hits if hit.probability is not None and hit.probability >= options.threshold]
        return Found(tuple(hits), *counts, best, fit is not None)

    @staticmethod
    def _clip_hits(
        entries: Mapping[str, Entry], scored: Mapping[str, Scored], topk: int, stage: str = MODEL
    ) -> list[Hit]:
        """Return the best clips of some videos, the best first; an image is one without a time."""
        clips = [(float(score), path, k) for path, own in scored.items() for k, score in enumerate(_of(own.clips))]
        hits = []
        for score, path, k in sorted(clips, key=lambda clip: -clip[0])[:topk]:
            times = entries[path].clip_times
            moments = moments_of(None if times is None else times[k : k + 1], [score])
            hits.append(Hit(path, score, None, best_of(moments), moments, stage))
        return hits

    def text_vectors(self, token_ids: Sequence[np.ndarray]) -> Tensor:
        """Return the unit vectors of texts, float32 (Q, P).

        Raises:
            OptionError: If the model has no vectors.
        """
        if not self.predictor.model.encoder.has_vectors:
            raise OptionError(
                f"{self.predictor.source} has no vectors to search by. Use a model that has, such as BLIP, CLIP or SigLIP, or "
                "leave the option out."
            )
        return _vectors(self.predictor.encode_texts(token_ids))

    def _chosen(
        self, texts: "EncodedTexts", count: int, options: SearchOptions, left_out: Sequence[dict[str, str]]
    ) -> tuple[list[dict[str, Entry]], list[int]]:
        """Return the videos that the model scores with each text, by path, and the number of those compared before."""
        index, encoder = self.video_index, self.predictor.model.encoder
        shortlist = options.shortlist
        if shortlist is None:
            shortlist = default_shortlist(encoder, options.topk, count)
        if not 0 < shortlist < count:
            everything = {entry.path: entry for entry in index.listed(options.where)}
            return [everything] * len(left_out), [0] * len(left_out)
        if not encoder.has_vectors:
            coarse = self._score_coarse(list(index.listed(options.where)), texts, left_out)
            best = (sorted(own, key=lambda path, own=own: -own[path])[:shortlist] for own in coarse)  # type: ignore[misc]
            return [index.found(paths) for paths in best], [len(own) for own in coarse]
        nearest = index.nearest_of_each(
            _vectors(texts), shortlist, pooling=self.vector_pooling(options), where=options.where
        )
        for reasons, each in zip(left_out, nearest, strict=True):
            reasons |= each.left_out
        return [index.found(list(each.similarities)) for each in nearest], [each.searched for each in nearest]

    @property
    def score_pooling(self) -> str:
        """How the clips of a video become the model's score, by name."""
        model = self.predictor.model
        return type(model.clip_fusion).__name__ if model.joins_clips else pooling_of(model.aggregator)

    def vector_pooling(self, options: SearchOptions) -> str:
        """Return how the similarities of a video's clips become one: as its scores do, unless the options say otherwise.

        Of a search for clips it is the best one, which a video is chosen by.
        """
        model = self.predictor.model
        default = "max" if options.clips else "mean" if model.joins_clips else pooling_of(model.aggregator)
        return options.vector_pooling or default

    def _score_coarse(
        self, entries: Sequence[Entry], texts: "EncodedTexts", left_out: Sequence[dict[str, str]]
    ) -> list[dict[str, float]]:
        """Score texts with the coarse tokens of videos, by path; see :meth:`score`."""
        wanted, coarse = (
            [{entry.path: entry for entry in entries}] * len(left_out),
            [dict[str, float]() for _ in left_out],
        )
        for pairs, logits in self._logits(wanted, texts, left_out, self.tokens.coarse_blocks):
            for (query, path), score in zip(pairs, self.predictor.pooled_scores(logits[None])[0].tolist(), strict=True):
                coarse[query][path] = score
        return [_finite(own, reasons) for own, reasons in zip(coarse, left_out, strict=True)]

    def score(
        self,
        wanted: Sequence[Mapping[str, Entry]],
        texts: "EncodedTexts",
        left_out: Sequence[dict[str, str]],
        *,
        joined: bool,
    ) -> list[dict[str, Scored]]:
        """Score each text with its own videos, by path.

        Args:
            wanted: The videos of each text, by path.
            texts: The texts.
            left_out: Where videos whose visual tokens cannot be used are added for each text, with the reason.
            joined: Whether the clips are joined before they are scored, as those of a model that joins clips.
        """
        predictor, scored = self.predictor, [dict[str, Scored]() for _ in wanted]
        for pairs, logits in self._logits(wanted, texts, left_out, self.tokens.blocks, joined=joined):
            clips = None if joined else predictor.clip_scores(logits[None])[0].numpy()  # (N, K)
            values = scores_and_probabilities(predictor, logits[None])
            for i, ((query, path), own) in enumerate(zip(pairs, values, strict=True)):
                scored[query][path] = Scored(*own, None if clips is None else clips[i])
        for found, reasons in zip(scored, left_out, strict=True):
            finite = _finite({path: each.score for path, each in found.items()}, reasons)
            for path in found.keys() - finite.keys():
                del found[path]
        return scored

    def _logits(
        self,
        wanted: Sequence[Mapping[str, Entry]],
        texts: "EncodedTexts",
        left_out: Sequence[dict[str, str]],
        blocks: Callable[[Sequence[Entry], dict[str, str]], Iterator[Block]],
        *,
        joined: bool = False,
    ) -> Iterator[tuple[list[tuple[int, str]], Tensor]]:
        """Yield some pairs of a text's number and a video's path, and their logits, (N, K, C), until all are computed.

        Args:
            wanted: The videos of each text, by path.
            texts: The texts.
            left_out: Where videos whose tokens cannot be used are added, for each text.
            blocks: Gives the visual tokens of videos; it is asked once for each.
            joined: Whether the clips are joined before they are scored.
        """
        queries: dict[str, list[int]] = {}
        for query, own in enumerate(wanted):
            for path in own:
                queries.setdefault(path, []).append(query)
        entries, lost = {path: entry for own in wanted for path, entry in own.items()}, dict[str, str]()
        for paths, tokens in blocks(list(entries.values()), lost):
            tokens = self.predictor.model.clip_fusion(tokens) if joined else tokens
            pairs = [(query, i) for i, path in enumerate(paths) for query in queries[path]]
            for first in range(0, len(pairs), PAIRS_AT_ONCE):
                some = pairs[first : first + PAIRS_AT_ONCE]
                text_of, video_of = torch.tensor(some).T
                logits = self.predictor.pair_logits(tokens, texts, text_of, video_of)
                yield [(query, paths[i]) for query, i in some], logits
        for path, reason in lost.items():
            for query in queries[path]:
                left_out[query][path] = reason

    def _hits(
        self, best: Sequence[Mapping[str, Entry]], scored: Sequence[Mapping[str, Scored]], texts: "EncodedTexts"
    ) -> list[list[Hit]]:
        """Return the hits of each text, the best first."""
        clips = {(i, path): scored[i][path].clips for i, own in enumerate(best) for path in own}
        if self.predictor.model.joins_clips:  # of the videos that were found alone
            lost = [dict[str, str]() for _ in best]
            for pairs, logits in self._logits(best, texts, lost, self.tokens.blocks):
                clips |= zip(pairs, self.predictor.clip_scores(logits[None])[0].numpy(), strict=True)
        hits: list[list[Hit]] = [[] for _ in best]
        for (i, path), alone in clips.items():
            times = None if alone is None else best[i][path].clip_times
            moments = moments_of(times, [] if alone is None else alone)
            pair = scored[i][path]
            hits[i].append(Hit(path, pair.score, pair.probability, best_of(moments), moments, MODEL))
        return hits


def _of(clips: np.ndarray | None) -> np.ndarray:
    """Return the scores of the clips, (K,), of a video whose clips were scored alone."""
    assert clips is not None
    return clips


def _vectors(texts: "EncodedTexts") -> Tensor:
    """Return the unit vectors of texts of a model that has them, float32 (Q, P)."""
    assert texts.vectors is not None
    return texts.vectors.float().cpu()


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
