"""Results of the API: records that print well and convert to JSON."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clipbert_mm.errors import printable, quoted
from clipbert_mm.structures import COSINE, COUNT


def clock(seconds: float) -> str:
    """Format a time as minutes and seconds, with hours if there are any.

    >>> clock(12.6), clock(3725)
    ('00:12', '1:02:05')
    """
    whole = int(seconds)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def probability(score: float) -> float:
    """Return the probability of a match from its log-odds.

    >>> probability(0.0), round(probability(-1000.0), 3)
    (0.5, 0.0)
    """
    return 1 / (1 + math.exp(-score)) if score >= 0 else math.exp(score) / (1 + math.exp(score))


def format_score(score: float, kind: str) -> str:
    """Format a score of a kind; cosine similarities, all of which are small, with one more decimal.

    >>> format_score(-1.5, "log-odds"), format_score(0.31415, "cosine")
    ('-1.50', '0.314')
    """
    return f"{score:.3f}" if kind == COSINE else f"{score:.2f}"


@dataclass(frozen=True)
class Record:
    """Base of all results."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Moment(Record):
    """A clip of a video with its score.

    Args:
        start: Start of the clip in seconds.
        end: End of the clip in seconds.
        score: Score of the clip alone, of the kind that the result names.
    """

    start: float
    end: float
    score: float

    def __str__(self) -> str:
        """Format the time span, the end rounded up.

        >>> str(Moment(12.0, 13.5, 0.0))
        '00:12–00:14'
        """
        return f"{clock(self.start)}–{clock(math.ceil(self.end))}"

    @property
    def exact(self) -> str:
        """The time span in seconds.

        >>> Moment(12.0, 13.54, 0.0).exact
        '12.0–13.5 s'
        """
        return f"{self.start:.1f}–{self.end:.1f} s"


def best_of(moments: Sequence[Moment]) -> Moment | None:
    """Return the moment with the highest score; None for images, which have no moments."""
    return max(moments, key=lambda moment: moment.score, default=None)


def moments_of(clip_times: Iterable[tuple[float, float]] | None, scores: Iterable[float]) -> tuple[Moment, ...]:
    """Pair clips, (K, 2) in seconds, with their scores, (K,); empty for images, which have no time."""
    if clip_times is None:
        return ()
    return tuple(
        Moment(float(start), float(end), float(score)) for (start, end), score in zip(clip_times, scores, strict=True)
    )


def format_span(moment: Moment | None) -> str:
    """Format the time span of a moment; empty for images, which have none."""
    return "" if moment is None else str(moment)


def format_unknown(words: Sequence[str]) -> list[str]:
    """Return one line that warns of words unknown to the model; no line without such words.

    >>> format_unknown(["zyxw", "käse"])
    ["warning: the model does not know 'zyxw', 'käse'; these words do not help it"]
    """
    if not words:
        return []
    listed = ", ".join(quoted(word, 40) for word in words[:5])
    more = f" and {len(words) - 5:,} more" if len(words) > 5 else ""
    return [f"warning: the model does not know {listed}{more}; these words do not help it"]


@dataclass(frozen=True)
class Answer(Record):
    """An answer to a question.

    Args:
        text: The answer, one of the options, or a number.
        score: Score of the answer by the whole video, of the kind that the result names.
        probability: Probability of the answer, 0 to 1; None for a count, and if the model gives none.
        moment: The clip that gives the answer the highest score; None for images and counts.
        moments: All clips, each with the answer's score by this clip alone.
    """

    text: str
    score: float
    probability: float | None
    moment: Moment | None
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class AnswerResult(Record):
    """The most likely answers to a question about a video.

    Args:
        path: The video or image.
        question: The question.
        answers: The answers, the most likely first.
        unknown_words: Words of the question and its options that are unknown to the model.
        score_kind: What the scores are: "log-probability", "count", or that of the model's head if it gives no probabilities.
        model: What was used: the model's checkpoint, or name with its commit, and its digest.
    """

    path: str
    question: str
    answers: tuple[Answer, ...]
    unknown_words: tuple[str, ...] = ()
    score_kind: str = field(kw_only=True)
    model: str = field(default="", kw_only=True)

    def value_of(self, answer: Answer) -> str:
        """Format what tells how likely an answer is: its probability, or its score; empty for a count."""
        if answer.probability is not None:
            return f"{answer.probability:.1%}"
        return "" if self.score_kind == COUNT else format_score(answer.score, self.score_kind)

    @property
    def scored_by(self) -> str:
        """Format the kind of the scores that :meth:`value_of` shows; empty for probabilities and counts."""
        scored = any(answer.probability is None for answer in self.answers) and self.score_kind != COUNT
        return f"scored by {self.score_kind}" if scored else ""

    def __str__(self) -> str:
        """Format one answer per line."""
        kind = self.scored_by and f", {self.scored_by}"
        lines = [f"{self.question}  ({printable(self.path)}){kind}", *format_unknown(self.unknown_words)]
        for rank, answer in enumerate(self.answers, start=1):
            value = self.value_of(answer)
            lines.append(f"{rank:3}. {value and f'{value:>6}  '}{format_span(answer.moment):<13} {answer.text}")
        return "\n".join(lines)


@dataclass(frozen=True)
class IndexReport(Record):
    """Paths of the indexed videos, by what was done with them.

    Args:
        added: New in the index.
        changed: Encoded again, because the file has changed or its visual tokens were lost.
        unchanged: In the index already.
        removed: Removed with ``prune``, because the file no longer exists.
        unreadable: Left out, with the reason.
        not_tried: Unreadable in an earlier run and unchanged since, so not tried again; part of ``unreadable``.
        gone: Still in the index, although the file no longer exists.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    unreadable: Mapping[str, str]
    not_tried: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Format the counts, and one line per unreadable file."""
        counts = ", ".join(
            f"{len(getattr(self, name))} {name}" for name in ("added", "changed", "unchanged", "removed", "unreadable")
        )
        again = dict.fromkeys(self.not_tried, " (from an earlier run; --retry tries it again)")
        lines = [f"  {printable(path)}: {reason}{again.get(path, '')}" for path, reason in self.unreadable.items()]
        if self.gone:
            lines.append(f"{len(self.gone)} videos of the index no longer exist; --prune removes them")
        return "\n".join([counts, *lines])
