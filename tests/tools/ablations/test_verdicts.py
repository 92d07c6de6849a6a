"""Verdicts by their rules, and claims that cannot be judged."""

from types import SimpleNamespace

import pytest
from ablations.verdicts import CostClaim, judge, judge_costs, overall, read_claim, read_cost_claim

from clipbert_mm.errors import OptionError

ROWS = {name: SimpleNamespace(runs={"qa": None}) for name in ("a", "b", "c")}
STATED = dict(number="ii", statement="a is fine", task="qa", metric="accuracy", margin=1.0)
CASES = [
    ("better", (0.1, 9), "seen"),
    ("better", (-0.1, 9), "undecided"),
    ("better", (-5, 0.9), "not seen"),  # a gain of 1 is excluded
    ("no_worse", (-0.9, 9), "seen"),
    ("no_worse", (-1.1, 9), "undecided"),
    ("no_worse", (-9, -1.1), "not seen"),
    ("differ", (-9, -0.1), "seen"),
    ("differ", (-0.9, 0.9), "not seen"),
    ("differ", (-0.9, 1.1), "undecided"),
]


@pytest.mark.parametrize(("kind", "interval", "verdict"), CASES)
def test_verdicts_follow_from_the_interval(kind: str, interval: tuple[float, float], verdict: str):
    claim = read_claim({**STATED, kind: ["a", "b"]}, ROWS, "table")
    assert claim.weights == {"a": 1, "b": -1}
    assert judge(claim, interval) == verdict


def test_without_an_interval_nothing_is_decided():
    claim = read_claim({**STATED, "better": ["a", "b"]}, ROWS, "table")
    assert judge(claim, ()) == "undecided"


def test_a_contrast_is_judged_as_better():
    claim = read_claim({**STATED, "contrast": {"a": 2, "b": -1, "c": -1}}, ROWS, "table")
    assert claim.rule() == "accuracy (qa) of 2 a − b − c > 0, a gain of 1 matters"
    assert judge(claim, (0.5, 1)) == "seen"


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (dict(better=["a", "x"]), "needs row 'x' with task 'qa'"),
        (dict(better=["a"]), r"conclusion \(ii\): better expects a list of two different rows, got \['a'\]"),
        (dict(better="ab"), "better expects a list of two different rows, got 'ab'"),
        (dict(better=["a", "a"]), "better expects a list of two different rows"),
        (dict(contrast=["a", "b"]), "contrast expects a dict of rows and their weights, which are numbers, got"),
        (dict(contrast={"a": "1"}), "contrast expects a dict of rows and their weights"),
        (dict(contrast={}), "contrast expects a dict of rows and their weights"),
        (dict(better=["a", "b"], margin=float("nan")), "margin expects a number from 0, got nan"),
        (dict(better=["a", "b"], number=2), "number expects a text, got 2"),
        (dict(better=["a", "b"], differ=["a", "b"]), "one of better, no_worse"),
        (dict(no_worse=["a", "b"], margin=0), "needs a margin above 0"),
        (dict(better=["a", "b"], marginn=1), "got number, statement"),
    ],
)
def test_claims_that_cannot_be_judged_are_refused(claim: dict, message: str):
    with pytest.raises(OptionError, match=message):
        read_claim({**STATED, **claim}, ROWS, "table")


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (dict(axis="clip"), 'axis expects "clips" or "frames", got \'clip\''),
        (dict(less="4"), "less expects a whole number from 1, got '4'"),
        (dict(margin=1), "a conclusion on costs has number, statement, axis, less, more, got"),
    ],
)
def test_claims_on_costs_that_cannot_be_judged_are_refused(claim: dict, message: str):
    stated = dict(number="iv", statement="4 clips cost less than 16", axis="clips", less=4, more=16)
    assert read_cost_claim(stated, "table") == CostClaim(**stated)
    with pytest.raises(OptionError, match=message):
        read_cost_claim(stated | claim, "table")


def test_a_conclusion_is_as_good_as_its_claims():
    assert overall(["seen", "seen"]) == "seen"
    assert overall(["undecided", "not seen"]) == "not seen"


def benchmarks(batches: tuple[int, int], seconds: tuple[tuple[float, float], tuple[float, float]]) -> dict:
    memory = [dict(clips=n, largest_batch=dict(plain=batch)) for n, batch in zip((4, 16), batches, strict=True)]
    step = [
        dict(clips=n, seconds=dict(backward=dict(median_s=low, min_s=low, max_s=high)))
        for n, (low, high) in zip((4, 16), seconds, strict=True)
    ]
    return dict(memory=dict(clips=memory), step=dict(clips=step))


def test_costs_are_judged_by_batches_and_times_that_do_not_overlap():
    claim = CostClaim("iv", "4 clips cost less than 16", "clips", 4, 16)
    assert judge_costs(claim, benchmarks((60, 16), ((1, 2), (3, 4)))) == ("seen", "batch 60 and 16; 1 s and 3 s")
    assert judge_costs(claim, benchmarks((60, 16), ((1, 3.5), (3, 4))))[0] == "undecided"
    assert judge_costs(claim, benchmarks((16, 60), ((1, 2), (3, 4))))[0] == "not seen"
    assert judge_costs(claim, {}) == ("undecided", "missing")
