"""Probabilities from scores, fitted on a few labelled pairs of a text and a video, and kept with the index."""

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from clipbert_mm.apis.results import Record, probability
from clipbert_mm.errors import AnnotationError, OptionError, VideoIndexError, printable, quoted
from clipbert_mm.evaluation.calibration import CalibrationBins
from clipbert_mm.index.records import expect
from clipbert_mm.json_text import decode, parse_json, reject_unpaired_surrogates

if TYPE_CHECKING:
    from clipbert_mm.index import VideoIndex

FACT = "calibration"
"""Name of the fact of an index."""
STEPS = 100
"""Most steps of the fit, which takes about ten."""


@dataclass(frozen=True)
class LabelledPair:
    """A text and a video, and whether they belong together.

    Args:
        text: The text.
        video: The video.
        match: Whether the video shows what the text says.
    """

    text: str
    video: str
    match: bool


@dataclass(frozen=True)
class Calibration(Record):
    """How a score becomes a probability: the sigmoid of (score − offset) / temperature.

    Args:
        temperature: Difference of scores that counts e-fold in the odds; positive.
        offset: Score whose probability is 50 %.
        pooling: How the clips of a video became the score, by name; it holds for no other.
    """

    temperature: float
    offset: float
    pooling: str

    def probability(self, score: float) -> float:
        """Return the probability of a match.

        >>> Calibration(0.5, 1.0, "max").probability(1.0)
        0.5
        """
        return probability(self.log_odds(score))

    def log_odds(self, score: float) -> float:
        """Return the log-odds of a match."""
        return (score - self.offset) / self.temperature


@dataclass(frozen=True)
class StageCalibration(Record):
    """A calibration and how well it fits the pairs that it was fitted on.

    Args:
        calibration: The calibration.
        pairs: Number of pairs.
        matches: Number of those that belong together.
        ece_before: Expected calibration error of the model's own probabilities of these pairs; None if it gives none.
        ece_after: That of the calibrated ones.
        precision: Share of right pairs among those of 50 % or more; None if there are none.
        recall: Share of those of 50 % or more among the right pairs.
        best_threshold: Probability from which F1, the harmonic mean of the two, is largest.
        best_f1: F1 there.
    """

    calibration: Calibration
    pairs: int
    matches: int
    ece_before: float | None
    ece_after: float
    precision: float | None
    recall: float
    best_threshold: float
    best_f1: float

    def __str__(self) -> str:
        """Format it in two lines."""
        fit, before = self.calibration, "none" if self.ece_before is None else f"{self.ece_before:.3f}"
        precision = "no pair has so much" if self.precision is None else f"precision {self.precision:.0%}"
        return (
            f"50% at {fit.offset:.4g}, temperature {fit.temperature:.3g}; expected calibration error {before} before, "
            f"{self.ece_after:.3f} after, of the same {self.pairs} pairs, {self.matches} of them matches\n"
            f"  from 50%: {precision}, recall {self.recall:.0%}; best F1 {self.best_f1:.0%} from {self.best_threshold:.1%}"
        )


@dataclass(frozen=True)
class CalibrationReport(Record):
    """The calibrations of an index.

    Args:
        stages: By what ranks a hit, "model" or "vectors".
        failed: Why there is none.
    """

    stages: Mapping[str, StageCalibration]
    failed: Mapping[str, str]

    def __str__(self) -> str:
        """Format the stages."""
        return "\n".join(f"{name}: {each}" for name, each in {**self.stages, **self.failed}.items())


def read_pairs(file: str | os.PathLike) -> list[LabelledPair]:
    """Read labelled pairs, a JSON object a line: ``{"text": "a dog", "video": "a.mp4", "match": true}``.

    A relative path is one below the folder of the file.

    Raises:
        AnnotationError: If the file cannot be read, or a line is something else.
    """
    name, pairs = printable(os.fspath(file)), []
    try:
        content = Path(file).read_bytes()
    except OSError as error:
        raise AnnotationError(f"Cannot read {name}: {error.strerror}.") from error
    for number, line in enumerate(content.removeprefix(b"\xef\xbb\xbf").splitlines(), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        text = decode(line, where)
        record = parse_json(text, where, "an object with text, video and match")
        reject_unpaired_surrogates(record, text, where)
        fields = record if isinstance(record, dict) else {}
        if not (
            isinstance(fields.get("text"), str)
            and isinstance(fields.get("video"), str)
            and isinstance(fields.get("match"), bool)
        ):
            raise AnnotationError(
                f'{where}: expected {{"text": "a dog", "video": "a.mp4", "match": true}}, got {quoted(record)}.'
            )
        pairs.append(
            LabelledPair(fields["text"], os.path.join(os.path.dirname(file), fields["video"]), fields["match"])
        )
    return pairs


def fit_calibration(scores: Sequence[float], right: Sequence[bool], pooling: str) -> Calibration:
    """Fit temperature and offset by maximum likelihood, with Platt's targets instead of 0 and 1.

    Of N right and M wrong pairs, the targets are (N + 1) / (N + 2) and 1 / (M + 2) (Platt, Probabilistic Outputs for Support
    Vector Machines, 1999), so that few pairs, which a score may separate perfectly, give a finite temperature.

    Args:
        scores: Score of each pair.
        right: Whether it belongs together.
        pooling: As of :class:`Calibration`.

    Raises:
        OptionError: If there is no pair of one kind, or right pairs do not have larger scores than wrong ones.
    """
    values, labels = torch.tensor(scores, dtype=torch.double), torch.tensor(right, dtype=torch.double)
    matches, others = int(labels.sum()), len(labels) - int(labels.sum())
    if not matches or not others:
        raise OptionError(
            f"A calibration needs at least one pair that matches and one that does not, got {matches} and {others}."
        )
    center, spread = values.mean(), values.std()
    if spread > 0:
        targets = torch.where(labels > 0, (matches + 1) / (matches + 2), 1 / (others + 2))
        scaled = (values - center) / spread
        line = torch.zeros(2, dtype=torch.double, requires_grad=True)
        optimizer = torch.optim.LBFGS([line], max_iter=STEPS, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

        def loss() -> torch.Tensor:
            optimizer.zero_grad()
            with torch.enable_grad():
                value = torch.nn.functional.binary_cross_entropy_with_logits(line[0] * scaled + line[1], targets)
            value.backward()
            return value

        optimizer.step(loss)
        slope, intercept = line.tolist()
    if spread <= 0 or slope <= 1e-6:
        raise OptionError(
            f"The scores of the {matches} pairs that match are not larger than those of the {others} that do not: they tell "
            "nothing about a match. Check the labels, or use another model."
        )
    return Calibration(float(spread) / slope, float(center - spread * intercept / slope), pooling)


def fit_stage(
    scores: Sequence[float], right: Sequence[bool], pooling: str, own: Sequence[float | None]
) -> StageCalibration:
    """Fit a calibration, and measure it on the same pairs.

    Args:
        scores: Score of each pair.
        right: Whether it belongs together.
        pooling: As of :class:`Calibration`.
        own: The model's own probability of each pair; None if it gives none.

    Raises:
        OptionError: As of :func:`fit_calibration`.
    """
    fit, labels = fit_calibration(scores, right, pooling), np.array(right)
    log_odds = np.array([fit.log_odds(score) for score in scores])
    found = log_odds >= 0
    hits = int((found & labels).sum())
    order = np.argsort(-log_odds, kind="stable")
    right_so_far = np.cumsum(labels[order])
    f1 = 2 * right_so_far / (np.arange(1, len(labels) + 1) + labels.sum())
    f1[:-1][log_odds[order][:-1] == log_odds[order][1:]] = 0  # pairs of one score are found together
    best = int(f1.argmax())
    given = [value for value in own if value is not None]
    return StageCalibration(
        fit,
        len(labels),
        int(labels.sum()),
        _error(np.array([_log_odds(value) for value in given]), labels) if len(given) == len(labels) else None,
        _error(log_odds, labels),
        hits / int(found.sum()) if found.any() else None,
        hits / int(labels.sum()),
        probability(float(log_odds[order][best])),
        float(f1[best]),
    )


def _error(log_odds: np.ndarray, right: np.ndarray) -> float:
    """Return the expected calibration error."""
    bins = CalibrationBins()
    bins.add(log_odds, right)
    return bins.metrics()["ECE"]


def _log_odds(value: float) -> float:
    return math.log(max(value, 1e-300)) - math.log(max(1 - value, 1e-300))


def keep_calibration(index: "VideoIndex", stages: Mapping[str, StageCalibration]) -> None:
    """Keep calibrations with an index, in place of older ones."""
    index.set_facts({FACT: {name: asdict(stage.calibration) for name, stage in stages.items()}})


def calibration_of(index: "VideoIndex", stage: str, pooling: str) -> Calibration | None:
    """Return the calibration that an index keeps for what ranks its hits; None if there is none for this pooling.

    Raises:
        VideoIndexError: If it is damaged.
    """
    kept = index.manifest.get(FACT)
    if kept is None:
        return None
    try:
        values = expect(kept, dict, FACT).get(stage)
        if values is None:
            return None
        temperature, offset = (float(expect(values[name], (int, float), name)) for name in ("temperature", "offset"))
        fit = Calibration(temperature, offset, expect(values["pooling"], str, "pooling"))
        if temperature <= 0 or not math.isfinite(fit.log_odds(1.0)):
            raise ValueError(f"temperature and offset are {temperature} and {offset}")
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        reason = f"{type(error).__name__}: {error}"[:200]
        raise VideoIndexError(
            f"The calibration of the index {index.name} is damaged: {reason}. Calibrate again: clipbert calibrate PAIRS."
        ) from error
    return fit if fit.pooling == pooling else None
