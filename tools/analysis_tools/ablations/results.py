"""Results of tests: of steps that are done, and of reports that were kept from earlier runs, also from other machines."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ablations.intervals import Unordered, less_is_better, outcome_key
from ablations.outcomes import read_outcomes
from ablations.steps import TestStep, machine_of, packages_of
from ablations.verdicts import UNDECIDED, Claim, CostClaim
from clipbert_mm.errors import OptionError, quoted

Key = tuple[str, str, str, int]
"""Table, row, task and seed of a test."""


@dataclass(frozen=True)
class Run:
    """When, where and with what a test was done.

    Args:
        date: The day, YYYY-MM-DD.
        release: Release of this package.
        machine: The device and its cores; "" where it was not noted.
        packages: The other packages with their releases, by commas; "" where they were not noted.
    """

    date: str
    release: str
    machine: str
    packages: str


@dataclass(frozen=True)
class Result:
    """What is known of a test that was done.

    Args:
        outcomes: What became of each query, by metric, (Q,) each.
        seconds: Seconds of the training and of the test; empty where they are unknown.
        run: When, where and with what it was done.
    """

    outcomes: Mapping[str, np.ndarray]
    seconds: Mapping[str, float]
    run: Run


def result_of(step: TestStep) -> Result:
    """Return the result of a step that is done."""
    outcomes, noted = read_outcomes(step.folder), step.done()
    seconds = {}
    if step.training is not None and (step.training.folder / "done.json").is_file():
        seconds = dict(training=step.training.done()["seconds"], test=noted["seconds"])
    place = noted.get("machine", ""), noted.get("packages", "")
    return Result(outcomes, seconds, Run(noted["date"][:10], noted["clipbert_mm"], *place))


@dataclass(frozen=True)
class KeptReport:
    """What is read of a report.

    Args:
        rows: What it has of a row and a task.
        claims: What it has of each claim, by its statement.
        run: The last of its tests, for those of which a report of an earlier release has nothing more.
    """

    rows: Mapping[str, Mapping[str, Any]]
    claims: Mapping[str, Mapping[str, Any]]
    run: Run


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
        paths = sorted(self.folder.glob("*.json"))
        if not paths:
            raise OptionError(
                f"--kept expects a folder with reports of earlier runs; {quoted(str(self.folder))} has none."
            )
        for path in paths:
            try:
                report = json.loads(path.read_text(encoding="utf-8"))
                rows = {row["name"]: row["tasks"] for row in report["rows"]}
                claims = {claim["statement"]: dict(claim) for claim in report["conclusions"]}
                self.reports[report["table"]] = KeptReport(rows, claims, _last_run(report))
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise OptionError(
                    f"{quoted(str(path))} is no report of tools/analysis_tools/ablation.py ({type(error).__name__}: {error}). "
                    "Give --kept a folder with reports alone."
                ) from error

    def row(self, table: str, row: str, task: str) -> Mapping[str, Any]:
        """Return what the report of a table has of a row and a task; nothing if it has none."""
        report = self.reports.get(table)
        return {} if report is None else report.rows.get(row, {}).get(task, {})

    def claim(self, table: str, claim: Claim | CostClaim) -> Mapping[str, Any]:
        """Return what the report of a table has of a claim with this rule; nothing if it has none."""
        report = self.reports.get(table)
        found = {} if report is None else report.claims.get(claim.statement, {})
        return found if found.get("rule") == claim.rule() else {}

    def verdict(self, table: str, claim: Claim | CostClaim) -> str:
        """Return the verdict on a claim in the report of a table; undecided if it has none."""
        return self.claim(table, claim).get("verdict", UNDECIDED)

    def seeds(self, table: str) -> set[int]:
        """Return the seeds that the report of a table has results of."""
        report = self.reports.get(table)
        tasks = [] if report is None else [task for row in report.rows.values() for task in row.values()]
        return {int(seed) for task in tasks for seed in task.get("values", ())}

    def find(self, key: Key, training: str, test: str) -> Result | None:
        """Return the result of a test of these settings; None if it is not kept.

        Args:
            key: Table, row, task and seed.
            training: Hash of the settings of its training.
            test: Hash of the settings of the test; older reports do not have it, and it is not compared.
        """
        table, row, task, seed = key
        try:
            kept = self.row(table, row, task)
            if kept.get("training") != training or kept.get("test", test) != test:
                return None
            return _read(kept, self.reports[table].run, str(seed))
        except (LookupError, TypeError, ValueError, AttributeError) as error:
            raise OptionError(
                f"The report of {table} in --kept is damaged at row {quoted(row)}, {task} ({type(error).__name__}: {error}). "
                "Take it from where it was written again, or leave it out."
            ) from error


def _last_run(report: Mapping[str, Any]) -> Run:
    """Return what a report has of the last of its tests; reports of an earlier release have one machine for all of them."""
    about, (machine, packages) = report["runs"], ("", "")
    if known := report.get("environment"):
        machine, packages = machine_of(known), packages_of(known)
    return Run(*((each or [""])[-1] for each in (about["dates"], about["releases"])), machine, packages)


def _read(kept: Mapping[str, Any], last: Run, seed: str) -> Result | None:
    """Return the result of a seed that a report has; None if it has none, or not enough to compute its metrics again."""
    values = kept["values"].get(seed)
    if not values:
        return None
    outcomes: Mapping[str, np.ndarray] | None
    if known := kept.get("outcomes", {}).get(seed):
        outcomes = {name: unpack(each) for name, each in known.items()}
    elif (outcomes := _of_shares(values, kept["queries"][seed])) is None:
        return None
    run = replace(last, **kept.get("runs", {}).get(seed, {}))
    return Result(outcomes, kept["seconds"].get(seed, {}), run)


def _of_shares(values: Mapping[str, float], queries: int) -> Unordered | None:
    """Return outcomes with the number of right queries that percentages tell; None if one of them is no such share."""
    outcomes = Unordered()
    for metric, value in values.items():
        right = round(value / 100 * queries)
        if less_is_better(metric) or abs(100 * right / queries - value) > 1e-6:
            return None
        outcomes[outcome_key(metric)] = np.repeat([1.0, 0.0], [right, queries - right])
    return outcomes


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
