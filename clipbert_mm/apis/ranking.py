"""Rank texts by how well they match a video."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import Tensor

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.apis.results import best_of, moments_of
from clipbert_mm.apis.search_results import RankedText, Ranking, is_good_match, largest_probability
from clipbert_mm.apis.two_stages import scores_and_probabilities
from clipbert_mm.errors import OptionError, quoted

if TYPE_CHECKING:
    from clipbert_mm.apis.explanation import Explanation
    from clipbert_mm.media.media_file import Media


def rank(predictor: Predictor, video: str | os.PathLike, texts: Sequence[str]) -> Ranking:
    """Rank texts by how well they match a video; see :meth:`~clipbert_mm.apis.video_search.VideoSearch.rank`."""
    request = TextsToRank(predictor, os.fspath(video), texts)
    media = predictor.read(request.path)
    return request.answer(media, predictor.encode([media.frames], [media.content_shape]))


class TextsToRank:
    """Texts that are to be ranked for a video, checked before the video is read.

    Args:
        predictor: A model trained for retrieval.
        path: The video.
        texts: The texts.

    Raises:
        OptionError: If there is no text, or one is empty or too long.
    """

    def __init__(self, predictor: Predictor, path: str, texts: Sequence[str]) -> None:
        if not isinstance(texts, (list, tuple)) or not texts or not all(isinstance(text, str) for text in texts):
            raise OptionError(f"rank expects a list of one or more texts, got {quoted(texts)}.")
        self.predictor, self.path, self.texts = predictor, path, list(texts)
        self.token_ids = predictor.token_ids(self.texts)

    def answer(self, media: "Media", tokens: Tensor) -> Ranking:
        """Rank them for the video that was read, with its visual tokens, (1, K, S, D)."""
        predictor = self.predictor
        logits, clip_logits = predictor.logits_of_both(tokens, self.token_ids)  # (M, 1, K, C)
        pairs, clips = (
            scores_and_probabilities(predictor, logits),
            predictor.clip_scores(clip_logits)[:, 0].numpy(),
        )  # M and (M, K)
        ranked = []
        for i in sorted(range(len(pairs)), key=lambda i: -pairs[i][0]):
            moments = moments_of(media.clip_times, clips[i])
            ranked.append(RankedText(self.texts[i], *pairs[i], best_of(moments), moments))
        best = ranked[0].text  # whose words alone count
        good = is_good_match(largest_probability(ranked), [best], predictor.unknown_words([best]))
        unknown = predictor.unknown_words(self.texts)
        return Ranking(self.path, tuple(ranked), unknown, good, score_kind=predictor.score_kind, model=predictor.name)

    def explain(self, ranking: Ranking) -> "Explanation":
        """Explain why the video matches the best text of what :meth:`answer` returned."""
        from clipbert_mm.apis.explanation import explain_match

        return explain_match(self.predictor, self.path, ranking.texts[0].text)
