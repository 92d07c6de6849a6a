"""What the API answers: records that print well and turn into JSON."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from clipbert_mm.errors import printable, quoted


def clock(seconds: float) -> str:
    """Write a time as minutes and seconds, with hours where there are any.

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


@dataclass(frozen=True)
class Record:
    """What all answers share."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Moment(Record):
    """A clip of a video and what it says on its own.

    Args:
        start: Where it begins, in seconds.
        end: Where it ends, in seconds.
        score: Its own score: the log-odds of a match, or the logarithm of the answer's probability.
    """

    start: float
    end: float
    score: float

    def __str__(self) -> str:
        """Write the time span, the end rounded up.

        >>> str(Moment(12.0, 13.5, 0.0))
        '00:12–00:14'
        """
        return f"{clock(self.start)}–{clock(math.ceil(self.end))}"


def best_of(moments: Sequence[Moment]) -> Moment | None:
    """Return the moment with the highest score; None where there are none, as for images."""
    return max(moments, key=lambda moment: moment.score, default=None)


def moments_of(clip_times: Iterable[tuple[float, float]] | None, scores: Iterable[float]) -> tuple[Moment, ...]:
    """Pair clips, (K, 2) in seconds, with their scores, (K,); nothing for images, which have no time."""
    if clip_times is None:
        return ()
    return tuple(
        Moment(float(start), float(end), float(score)) for (start, end), score in zip(clip_times, scores, strict=True)
    )


def _span(moment: Moment | None) -> str:
    return "" if moment is None else str(moment)


def say_unknown(words: Sequence[str]) -> list[str]:
    """Warn, in one line, of words that the model does not know; nothing where there are none.

    >>> say_unknown(["zyxw", "käse"])
    ["warning: the model does not know 'zyxw', 'käse'; it reads all unknown words alike"]
    """
    if not words:
        return []
    named, more = (
        ", ".join(quoted(word, 40) for word in words[:5]),
        f" and {len(words) - 5:,} more" if len(words) > 5 else "",
    )
    return [f"warning: the model does not know {named}{more}; it reads all unknown words alike"]


@dataclass(frozen=True)
class Hit(Record):
    """A video that was found.

    Args:
        path: The video.
        score: Log-odds that it matches, pooled over its clips.
        probability: The same as a probability, 0 to 1.
        moment: Its best clip; None for images.
        moments: All of its clips that were scored.
    """

    path: str
    score: float
    probability: float
    moment: Moment | None
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class SearchResult(Record):
    """The videos that match a text best, the best first.

    Args:
        text: What was asked for.
        searched: Number of videos that were compared with the text.
        hits: The best of them.
        left_out: Videos of the gallery whose visual tokens are missing or damaged, with the reason.
        unknown_words: Words of the text that the model does not know.
    """

    text: str
    searched: int
    hits: tuple[Hit, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    unknown_words: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Lay the hits out, one a line, and what was left out."""
        lines = [f"{self.text!r} in {self.searched} videos", *say_unknown(self.unknown_words)]
        for place, hit in enumerate(self.hits, start=1):
            video = printable(hit.path)
            lines.append(f"{place:3}. {hit.score:7.2f}  {hit.probability:6.1%}  {_span(hit.moment):<13} {video}")
        if self.left_out:
            lines += [
                f"left out: {len(self.left_out)} videos",
                *_listed(self.left_out),
            ]
        return "\n".join(lines)


@dataclass(frozen=True)
class RankedText(Record):
    """A text and how well it matches; the fields are those of :class:`Hit`."""

    text: str
    score: float
    probability: float
    moment: Moment | None
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class Ranking(Record):
    """Texts in the order in which they match a video.

    Args:
        path: The video.
        texts: The texts, the best first.
        unknown_words: Words of the texts that the model does not know.
    """

    path: str
    texts: tuple[RankedText, ...]
    unknown_words: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Lay the texts out, one a line."""
        lines = [printable(self.path), *say_unknown(self.unknown_words)]
        for place, ranked in enumerate(self.texts, start=1):
            said = f"{ranked.score:7.2f}  {ranked.probability:6.1%}  {_span(ranked.moment):<13} {ranked.text}"
            lines.append(f"{place:3}. {said}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Answer(Record):
    """An answer to a question.

    Args:
        text: The answer, one of the options, or a number.
        probability: Its probability, 0 to 1; None for a count.
        moment: The clip that speaks for it most; None for images and counts.
        moments: All clips, each with the answer's score by it alone.
    """

    text: str
    probability: float | None
    moment: Moment | None
    moments: tuple[Moment, ...]


@dataclass(frozen=True)
class AnswerResult(Record):
    """The likeliest answers to a question about a video.

    Args:
        path: The video or image.
        question: The question.
        answers: The answers, the likeliest first.
        unknown_words: Words of the question and its options that the model does not know.
    """

    path: str
    question: str
    answers: tuple[Answer, ...]
    unknown_words: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Lay the answers out, one a line."""
        lines = [f"{self.question}  ({printable(self.path)})", *say_unknown(self.unknown_words)]
        for place, answer in enumerate(self.answers, start=1):
            share = "" if answer.probability is None else f"{answer.probability:6.1%}  "
            lines.append(f"{place:3}. {share}{_span(answer.moment):<13} {answer.text}")
        return "\n".join(lines)


@dataclass(frozen=True)
class IndexReport(Record):
    """What became of the videos that were to be indexed, each by its path.

    Args:
        added: New in the gallery.
        changed: Encoded again, since the file is another, or its visual tokens were lost.
        unchanged: There already.
        removed: Taken out, since the file is gone and that was asked for.
        unreadable: Left out, with the reason.
        not_tried: Those among them that a run before this one could not read, and that have not changed.
        gone: Still in the gallery, though the file is gone.
    """

    added: tuple[str, ...]
    changed: tuple[str, ...]
    unchanged: tuple[str, ...]
    removed: tuple[str, ...]
    unreadable: Mapping[str, str]
    not_tried: tuple[str, ...] = ()
    gone: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Count, and name what could not be read."""
        counts = ", ".join(
            f"{len(getattr(self, name))} {name}" for name in ("added", "changed", "unchanged", "removed", "unreadable")
        )
        again = dict.fromkeys(self.not_tried, " (found before, not tried again; --retry does)")
        lines = [f"  {printable(path)}: {reason}{again.get(path, '')}" for path, reason in self.unreadable.items()]
        if self.gone:
            lines.append(f"{len(self.gone)} videos of the gallery are gone from there; --prune takes them out")
        return "\n".join([counts, *lines])


def _listed(reasons: Mapping[str, str], most: int = 5) -> list[str]:
    """Name files with their reasons, one a line, and count the rest."""
    lines = [f"  {printable(path)}: {reason}" for path, reason in list(reasons.items())[:most]]
    return [*lines, f"  and {len(reasons) - most} more"] if len(reasons) > most else lines
