"""Results of searching and ranking, and what makes a match a good one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from clipbert_mm.apis.results import Moment, Record, format_score, format_span, format_unknown
from clipbert_mm.errors import printable

GOOD_MATCH = 0.5
"""Probability from which a match is good. Where it is calibrated, which tests measure, half of such pairs are right."""


def is_good_match(
    best: float | None, texts: Sequence[str], unknown_words: Sequence[str], threshold: float = GOOD_MATCH
) -> bool | None:
    """Whether the best of some pairs of texts and videos is a good match; None if the model gives no probabilities.

    Args:
        best: Its probability, 0 to 1; None without probabilities.
        texts: The texts.
        unknown_words: Words of the texts that the model does not know; if it knows none, no probability means anything.
        threshold: Probability from which a match is good.

    >>> is_good_match(0.8, ["a dog"], []), is_good_match(0.4, ["a dog"], []), is_good_match(0.8, ["zyxw"], ["zyxw"])
    (True, False, False)
    """
    if best is None:
        return None
    return best >= threshold and not set(unknown_words) >= {word for text in texts for word in text.split()}


def largest_probability(pairs: "Sequence[Hit | RankedText]") -> float | None:
    """Return the largest probability of some hits or texts; None if they have none."""
    return max((pair.probability for pair in pairs if pair.probability is not None), default=None)


def format_match(is_good: bool | None, best: float | None, threshold: float = GOOD_MATCH) -> list[str]:
    """Return one line that says that there is no good match; no line if there is one, or if it is not known.

    >>> format_match(False, 0.012)
    ['no good match: the best has 1.2%, and a good match has 50% or more']
    >>> format_match(False, 0.8)
    ['no good match: the best has 80.0%, but the model knows none of the words']
    """
    if is_good is not False or best is None:
        return []
    why = (
        "but the model knows none of the words"
        if best >= threshold
        else f"and a good match has {100 * threshold:.3g}% or more"
    )
    return [f"no good match: the best has {best:.1%}, {why}"]


def _columns(score: float, probability: float | None, kind: str) -> str:
    """Format the score of a pair and, if it has one, its probability, each with two spaces after it."""
    return f"{format_score(score, kind):>7}  " + ("" if probability is None else f"{probability:6.1%}  ")


@dataclass(frozen=True)
class Hit(Record):
    """A video that a search found.

    Args:
        path: The video.
        score: Score of the whole video, of the kind that the result names.
        probability: Probability of a match, 0 to 1; None if the model gives none.
        moment: The best clip; None for images.
        moments: All clips with their scores.
        stage: What ranked it: the "model", or its "vectors" alone.
    """

    path: str
    score: float
    probability: float | None
    moment: Moment | None
    moments: tuple[Moment, ...]
    stage: str = "model"


@dataclass(frozen=True)
class SearchResult(Record):
    """The videos that match a text best, best first.

    Args:
        text: The query.
        searched: Number of videos that were searched.
        hits: The best videos.
        left_out: Videos that could not be searched, with the reason.
        unknown_words: Words of the text that are unknown to the model.
        good_match: Whether the best video is a good match (:func:`is_good_match`); None if the model gives no probabilities.
        score_kind: What the scores are, such as "log-odds" or "cosine".
        model: What was used: the model's checkpoint, or name with its commit, and its digest.
        threshold: Least probability of a hit; others were left out. None if none was.
        best_probability: The largest probability of a video, also of one that was left out; None without probabilities.
        calibrated: Whether the probabilities are those of the calibration that the index keeps.
        clips: Whether each hit is a clip, and not a video.
        by_vectors: Number of videos whose vectors, or coarse tokens, were compared, to choose which the model scores.
        by_model: Number of videos that the model scored with all clips.
        recall: Share of the nearest videos that the approximate index of the vectors finds; None if all were compared.
    """

    text: str
    searched: int
    hits: tuple[Hit, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    unknown_words: tuple[str, ...] = ()
    good_match: bool | None = None
    score_kind: str = field(kw_only=True)
    model: str = field(default="", kw_only=True)
    threshold: float | None = field(default=None, kw_only=True)
    best_probability: float | None = field(default=None, kw_only=True)
    calibrated: bool = field(default=False, kw_only=True)
    clips: bool = field(default=False, kw_only=True)
    by_vectors: int = field(default=0, kw_only=True)
    by_model: int = field(default=0, kw_only=True)
    recall: float | None = field(default=None, kw_only=True)

    @property
    def warnings(self) -> list[str]:
        """What is to be said of the hits, such as words unknown to the model, or that there is no good match."""
        return [
            *format_unknown(self.unknown_words),
            *(self._nothing or format_match(self.good_match, self._best)),
        ]

    @property
    def _best(self) -> float | None:
        return largest_probability(self.hits) if self.best_probability is None else self.best_probability

    @property
    def _nothing(self) -> list[str]:
        """One line that says that nothing matches, if all hits were left out by the threshold."""
        if self.hits or self.threshold is None or self.best_probability is None:
            return []
        return [
            f"nothing matches: the best has {self.best_probability:.1%}, and the threshold is {100 * self.threshold:.3g}%"
        ]

    @property
    def _stages(self) -> str:
        """What ranked the hits, if it was more than the model: the best of the vectors, or the vectors alone."""
        if not self.by_vectors:
            return ""
        of_all = "" if self.recall is None else f", approximately: {self.recall:.0%} of the nearest are found"
        return f" (the best {self.by_model:,} by vectors{of_all})" if self.by_model else f" (by vectors alone{of_all})"

    def __str__(self) -> str:
        """Format one hit per line, and the videos that were left out."""
        by = f", scored by {self.score_kind}{self._stages}{', calibrated' if self.calibrated else ''}"
        lines = [f"{self.text!r} in {'the clips of ' if self.clips else ''}{self.searched} videos{by}", *self.warnings]
        for rank, hit in enumerate(self.hits, start=1):
            scores = _columns(hit.score, hit.probability, self.score_kind)
            span = hit.moment.exact if self.clips and hit.moment is not None else format_span(hit.moment)
            lines.append(f"{rank:3}. {scores}{span:<13} {printable(hit.path)}")
        if self.left_out:
            lines += [f"left out: {len(self.left_out)} videos", *_format_reasons(self.left_out)]
        return "\n".join(lines)


@dataclass(frozen=True)
class RankedText(Record):
    """A text with its score; the fields are those of :class:`Hit`."""

    text: str
    score: float
    probability: float | None
    moment: Moment | None
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class Ranking(Record):
    """Texts ranked by how well they match a video.

    Args:
        path: The video.
        texts: The texts, best first.
        unknown_words: Words of the texts that are unknown to the model.
        good_match: Whether the best text is a good match, as in :class:`SearchResult`.
        score_kind: What the scores are, such as "log-odds" or "cosine".
        model: What was used: the model's checkpoint, or name with its commit, and its digest.
    """

    path: str
    texts: tuple[RankedText, ...]
    unknown_words: tuple[str, ...] = ()
    good_match: bool | None = None
    score_kind: str = field(kw_only=True)
    model: str = field(default="", kw_only=True)

    def __str__(self) -> str:
        """Format one text per line."""
        lines = [
            f"{printable(self.path)}, scored by {self.score_kind}",
            *format_unknown(self.unknown_words),
            *format_match(self.good_match, largest_probability(self.texts)),
        ]
        for rank, text in enumerate(self.texts, start=1):
            scores = _columns(text.score, text.probability, self.score_kind)
            lines.append(f"{rank:3}. {scores}{format_span(text.moment):<13} {text.text}")
        return "\n".join(lines)


def _format_reasons(reasons: Mapping[str, str], most: int = 5) -> list[str]:
    """Format files with their reasons, one per line, and count the rest."""
    lines = [f"  {printable(path)}: {reason}" for path, reason in list(reasons.items())[:most]]
    return [*lines, f"  and {len(reasons) - most} more"] if len(reasons) > most else lines
