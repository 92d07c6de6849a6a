"""Results of tests: of steps that are done, and of reports that were kept from earlier runs, also from other machines."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ablations.intervals import less_is_better, outcome_key
from ablations.outcomes import read_outcomes
from ablations.steps import TestStep
from ablations.verdicts import UNDECIDED, Claim
from clipbert_mm.errors import OptionError, quoted

Key = tuple[str, str, str, int]
"""Table, row, task and seed of a test."""


@dataclass(frozen=True)
class Result:
    """What is known of a test that was done.

    Args:
        outcomes: What became of each query, by metric, (Q,) each. A single one stands for all queries where an earlier
            report kept only their mean.
        queries: Number of queries.
        seconds: Seconds of the training and of the test; empty where they are unknown.
        date: Day of the test, YYYY-MM-DD.
        release: Release of this package that ran it.
    """

    outcomes: Mapping[str, np.ndarray]
    queries: int
    seconds: Mapping[str, float]
    date: str
    release: str

    @property
    def knows_queries(self) -> bool:
        """Whether what became of each query is known."""
        return all(len(values) == self.queries for values in self.outcomes.values())


def result_of(step: TestStep) -> Result:
    """Return the result of a step that is done."""
    outcomes, noted = read_outcomes(step.folder), step.done()
    seconds = {}
    if step.training is not None and (step.training.folder / "done.json").is_file():
        seconds = dict(training=step.training.done()["seconds"], test=noted["seconds"])
    queries = len(next(iter(outcomes.values())))
    return Result(outcomes, queries, seconds, noted["date"][:10], noted["clipbert_mm"])


@dataclass(frozen=True)
class KeptReport:
    """What is read of a report.

    Args:
        rows: What it has of a row and a task.
        runs: Days and releases of the tests.
        verdicts: Verdict of each claim, by its statement.
    """

    rows: Mapping[str, Mapping[str, Any]]
    runs: Mapping[str, Sequence[str]]
    verdicts: Mapping[str, str]


@dataclass
class KeptResults:
    """Results in the reports of a folder, NAME.json of each table.

    Args:
        folder: The folder; None for no results.

    Raises:
        OptionError: If there is no such folder, or a file in it is no report.
    """

    folder: Path | None
    reports: dict[str, KeptReport] = field(default_factory=dict)
    """The reports by table."""

    def __post_init__(self) -> None:
        if self.folder is None:
            return
        if not self.folder.is_dir():
            raise OptionError(f"--kept expects a folder with reports of earlier runs, got {quoted(str(self.folder))}.")
        for path in sorted(self.folder.glob("*.json")):
            try:
                report = json.loads(path.read_text(encoding="utf-8"))
                rows = {row["name"]: row["tasks"] for row in report["rows"]}
                verdicts = {claim["statement"]: claim["verdict"] for claim in report["conclusions"]}
                self.reports[report["table"]] = KeptReport(rows, report["runs"], verdicts)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise OptionError(
                    f"{quoted(str(path))} is no report of tools/analysis_tools/ablation.py ({type(error).__name__}: {error}). "
                    "Give --kept a folder with reports alone."
                ) from error

    def is_decided(self, table: str, claim: Claim) -> bool:
        """Say whether a claim on a table has a verdict in its report other than "undecided"."""
        report = self.reports.get(table)
        return report is not None and report.verdicts.get(claim.statement, UNDECIDED) != UNDECIDED

    def find(self, key: Key, training: str, test: str) -> Result | None:
        """Return the result of a test of these settings; None if it is not kept.

        Args:
            key: Table, row, task and seed.
            training: Hash of the settings of its training.
            test: Hash of the settings of the test; reports of before it was kept are taken at their word.
        """
        table, row, task, seed = key
        report = self.reports.get(table)
        kept = {} if report is None else report.rows.get(row, {}).get(task, {})
        values = kept.get("values", {}).get(str(seed))
        if not values or kept.get("training") != training or kept.get("test", test) != test:
            return None
        if known := kept.get("outcomes", {}).get(str(seed)):
            outcomes = {name: unpack(each) for name, each in known.items()}
        else:  # a median and a mean of ranks cannot both be those of one query
            shares = {name: value for name, value in values.items() if not less_is_better(name)}
            outcomes = {outcome_key(name): np.array([value / 100]) for name, value in shares.items()}
        assert report is not None
        last = dict(date=report.runs["dates"][-1], release=report.runs["releases"][-1])
        run = kept.get("runs", {}).get(str(seed), last)
        return Result(outcomes, kept["queries"][str(seed)], kept["seconds"].get(str(seed), {}), **run)


def pack(values: np.ndarray) -> str:
    """Return outcomes as a text for JSON: digits where each is 0 or 1, else a list of numbers.

    >>> pack(np.array([1.0, 0.0, 1.0])), pack(np.array([1.0, 4.0]))
    ('101', '[1.0, 4.0]')
    """
    if np.isin(values, (0, 1)).all():
        return "".join(str(int(value)) for value in values)
    return json.dumps([round(float(value), 6) for value in values])


def unpack(text: str) -> np.ndarray:
    """Return the outcomes that :func:`pack` has made a text.

    >>> unpack("101"), unpack("[1.0, 4.0]")
    (array([1., 0., 1.]), array([1., 4.]))
    """
    return np.array(json.loads(text) if text.startswith("[") else [int(digit) for digit in text], float)
