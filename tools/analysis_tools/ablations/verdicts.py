"""Claims on the rows of a table, stated before running, and their verdicts."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ablations.checks import AXIS, COUNT, NUMBER_FROM_0, TEXT, TWO_ROWS, WEIGHTS, expect
from ablations.intervals import less_is_better
from clipbert_mm.errors import OptionError

SEEN, NOT_SEEN, UNDECIDED = "seen", "not seen", "undecided"
KINDS = {"better": TWO_ROWS, "no_worse": TWO_ROWS, "differ": TWO_ROWS, "contrast": WEIGHTS}
"""Kinds of claims, and what each is given."""
CLAIM_KEYS = {"number": TEXT, "statement": TEXT, "task": TEXT, "metric": TEXT, "margin": NUMBER_FROM_0, **KINDS}
COST_KEYS = {"number": TEXT, "statement": TEXT, "axis": AXIS, "less": COUNT, "more": COUNT}


@dataclass(frozen=True)
class Claim:
    """A claim on rows of a table.

    Args:
        number: The paper's conclusion that it belongs to, i to vi (end of Section 4.3); a claim with another number, such as
            "ii, control", is judged on its own.
        statement: The claim in words.
        kind: "better" (the contrast is above 0), "no_worse" (it is above minus the margin) or "differ" (it is not 0).
        weights: The contrast: weight of each row. The first row minus the second is ``{first: 1, second: -1}``.
        task: The task that it is judged on.
        metric: The metric; contrasts of ranks (MdR, MnR), of which less is better, change their sign.
        margin: For "no_worse", the loss that still counts as on par. For "better", the smallest gain that matters: if a gain
            of this size is excluded, the claim is not seen.
    """

    number: str
    statement: str
    kind: str
    weights: Mapping[str, float]
    task: str
    metric: str
    margin: float

    def rule(self) -> str:
        """Return how the claim is judged, in words."""
        terms = " ".join(
            f"{'+' if w > 0 else '−'} {'' if abs(w) == 1 else f'{abs(w):g} '}{r}" for r, w in self.weights.items()
        )
        sign = ", sign changed since less is better" if less_is_better(self.metric) else ""
        what = f"{self.metric} ({self.task}{sign}) of {terms.removeprefix('+ ')}"
        if self.kind == "no_worse":
            return f"{what} > −{self.margin:g}"
        return f"{what} ≠ 0" if self.kind == "differ" else f"{what} > 0, a gain of {self.margin:g} matters"


def read_claim(spec: Mapping[str, Any], rows: Mapping[str, Any], who: str) -> Claim:
    """Read a claim of a table file: its ``number``, ``statement``, ``task``, ``metric``, ``margin`` and one of :data:`KINDS`.

    Raises:
        OptionError: If a key is missing or unknown, a value is of another kind, or a row or task is not in the table.
    """
    kinds = [kind for kind in KINDS if kind in spec]
    if len(kinds) != 1 or not {"number", "statement", "task", "metric"} <= set(spec) <= set(CLAIM_KEYS):
        raise OptionError(
            f"{who}: a conclusion has number, statement, task, metric, margin and one of {', '.join(KINDS)}, got "
            f"{', '.join(spec)}."
        )
    for key, value in spec.items():
        expect(value, CLAIM_KEYS[key], f"{who}: conclusion ({spec['number']}): {key}")
    (kind,) = kinds
    given = spec[kind]
    weights = dict(given) if kind == "contrast" else {given[0]: 1.0, given[1]: -1.0}
    for row in weights:
        if row not in rows or spec["task"] not in rows[row].runs:
            raise OptionError(f"{who}: conclusion ({spec['number']}) needs row '{row}' with task '{spec['task']}'.")
    if kind == "no_worse" and not spec.get("margin", 0) > 0:
        raise OptionError(f"{who}: 'no_worse' needs a margin above 0.")
    return Claim(
        number=spec["number"],
        statement=spec["statement"],
        kind="better" if kind == "contrast" else kind,
        weights=weights,
        task=spec["task"],
        metric=spec["metric"],
        margin=float(spec.get("margin", 0)),
    )


def judge(claim: Claim, interval: Sequence[float]) -> str:
    """Return the verdict on a claim.

    Args:
        claim: The claim.
        interval: The interval of the paired contrast; empty if a row is missing, or for one seed.

    >>> claim = Claim("v", "", "better", {"a": 1, "b": -1}, "retrieval", "t2v/R@1", margin=1.0)
    >>> [judge(claim, interval) for interval in ((2.0, 8.0), (-1.0, 8.0), (-0.9, 0.9))]
    ['seen', 'undecided', 'not seen']
    """
    if not interval:
        return UNDECIDED
    low, high = interval
    if claim.kind == "differ":
        return SEEN if low > 0 or high < 0 else NOT_SEEN if max(-low, high) < claim.margin else UNDECIDED
    if claim.kind == "no_worse":
        return SEEN if low > -claim.margin else NOT_SEEN if high < -claim.margin else UNDECIDED
    return SEEN if low > 0 else NOT_SEEN if high < claim.margin or high <= 0 else UNDECIDED


@dataclass(frozen=True)
class CostClaim:
    """A claim on the memory and the time of a training step, judged by the reports of benchmark.py.

    Args:
        number: The paper's conclusion that it belongs to.
        statement: The claim in words.
        axis: "clips" or "frames".
        less: The number of clips or frames that is claimed to cost less.
        more: The number that it is compared with.
    """

    number: str
    statement: str
    axis: str
    less: int
    more: int

    def rule(self) -> str:
        """Return how the claim is judged, in words."""
        return (
            f"{self.axis} {self.less} and {self.more}: larger batch in the same memory, and less time in every repeat"
        )


def read_cost_claim(spec: Mapping[str, Any], who: str) -> CostClaim:
    """Read a claim on costs of a table file.

    Raises:
        OptionError: If a key is missing or unknown, or a value is of another kind.
    """
    if set(spec) != set(COST_KEYS):
        raise OptionError(f"{who}: a conclusion on costs has {', '.join(COST_KEYS)}, got {', '.join(spec)}.")
    for key, value in spec.items():
        expect(value, COST_KEYS[key], f"{who}: conclusion ({spec['number']}): {key}")
    return CostClaim(**spec)


def judge_costs(claim: CostClaim, benchmarks: Mapping[str, Any]) -> tuple[str, str]:
    """Return the verdict on a claim on costs, and what was measured.

    Args:
        claim: The claim.
        benchmarks: Reports of ``memory`` and ``step`` of tools/analysis_tools/benchmark.py.
    """
    memory, step = (
        {row[claim.axis]: row for row in benchmarks.get(name, {}).get(claim.axis, ())} for name in ("memory", "step")
    )
    if not {claim.less, claim.more} <= set(memory) & set(step):
        return UNDECIDED, "missing"
    less, more = claim.less, claim.more
    batches = [memory[number]["largest_batch"]["plain"] for number in (less, more)]
    seconds = [step[number]["seconds"]["backward"] for number in (less, more)]
    measured = f"batch {batches[0]} and {batches[1]}; {seconds[0]['median_s']:.3g} s and {seconds[1]['median_s']:.3g} s"
    if batches[0] > batches[1] and seconds[0]["max_s"] < seconds[1]["min_s"]:
        return SEEN, measured
    dearer = batches[0] < batches[1] or seconds[0]["min_s"] > seconds[1]["max_s"]
    return NOT_SEEN if dearer else UNDECIDED, measured


def overall(verdicts: Collection[str]) -> str:
    """Return the verdict on a conclusion of several claims: seen if all are, not seen if one is not.

    >>> overall(["seen", "undecided"]), overall(["seen", "not seen"]), overall(["seen"])
    ('undecided', 'not seen', 'seen')
    """
    if NOT_SEEN in verdicts:
        return NOT_SEEN
    return SEEN if set(verdicts) == {SEEN} else UNDECIDED
