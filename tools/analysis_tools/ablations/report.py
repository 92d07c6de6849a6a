"""The report of a table: the paper's numbers with ours, intervals, paired differences and verdicts, as Markdown and JSON."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from ablations.checks import naming
from ablations.drawing import draw_costs, draw_lines
from ablations.intervals import Estimate, Outcomes, Unordered, estimate, less_is_better, outcome_key, value_of
from ablations.plan import Plan
from ablations.results import Result, pack
from ablations.scheduler import format_seconds
from ablations.tables import Row, Table
from ablations.verdicts import Claim, CostClaim, judge, judge_costs, overall
from clipbert_mm.errors import OptionError, quoted
from clipbert_mm.fileio import atomic_write

USUAL_METRICS = {"t2v/R@1": ("t2v/R@1", "t2v/R@5", "t2v/R@10", "t2v/MdR"), "accuracy": ("accuracy",)}
"""Metrics of a task whose outcomes have the key, where the table file names none."""
SHOWN_PACKAGES = ("torch", "mmengine")
MISSING = "missing"
TaskOutcomes = Mapping[str, Mapping[int, Outcomes]]
"""What became of the queries of a task, by row and seed."""
TaskResults = dict[str, dict[int, Result]]
"""The results of a task, by row and seed."""


def check_reports(plan: Plan, tables: Sequence[Table], folder: Path) -> None:
    """Read all that the reports are made of, so that what is damaged is named before anything runs or is written.

    Raises:
        OptionError: If a result, a kept one, or a report in the folder is damaged.
    """
    for table in tables:
        table_report(plan, table)
    read_reports(folder)


def write_reports(plan: Plan, tables: Sequence[Table], folder: Path) -> None:
    """Write NAME.md, NAME.json and figures of each table, and index.md with the verdicts of all in the folder."""
    for table in tables:
        report = table_report(plan, table)
        figures = []
        if table.figure:
            picture = folder / f"{table.name}.png"
            if draw_lines(report, table.figure, picture):
                figures.append(picture.name)
        if table.name in plan.benchmarks:
            picture = folder / f"{table.name}_costs.png"
            if draw_costs(report, picture):
                figures.append(picture.name)
        with atomic_write(folder / f"{table.name}.json") as file:
            json.dump(report, file, indent=1)
        with atomic_write(folder / f"{table.name}.md") as file:
            file.write(to_markdown(report, figures))
    for quick, name in ((False, "index.md"), (True, "index-quick.md")):
        if any(table.quick == quick for table in tables):
            with atomic_write(folder / name) as file:
                file.write(index_markdown([report for report in read_reports(folder) if report["quick"] == quick]))


def read_reports(folder: Path) -> list[dict[str, Any]]:
    """Return the reports of all tables in a folder, also those of earlier calls.

    Raises:
        OptionError: If one is damaged.
    """
    return [_read_report(path) for path in sorted(folder.glob("*.json"))]


def _read_report(path: Path) -> dict[str, Any]:
    with naming(path, "Remove it; --report-only writes the report of its table again."):
        report = json.loads(path.read_text(encoding="utf-8"))
        index_markdown([report])  # fails if it lacks what the index shows
        if not isinstance(report["quick"], bool):
            raise ValueError("it needs quick")
        return report


def table_report(plan: Plan, table: Table) -> dict[str, Any]:
    """Return all that is known of a table, for JSON."""
    shared = table.data_command is None
    seeds = plan.seeds[table.name]
    tasks = list(dict.fromkeys(task for row in table.rows.values() for task in row.runs))
    results = {task: read_task(plan, table, task) for task in tasks}
    outcomes = {task: outcomes_of(each) for task, each in results.items()}
    metrics = {task: task_metrics(table, task, outcomes[task]) for task in tasks}
    rows = []
    for name, row in table.rows.items():
        own = {task: row_report(plan, table, row, task, metrics[task], results[task], shared) for task in row.runs}
        rows.append(dict(name=name, label=dict(row.label), paper={t: dict(p) for t, p in row.paper.items()}, tasks=own))
    report = dict(
        table=table.name,
        title=table.title,
        note=table.note,
        quick=table.quick,
        seeds=list(seeds),
        shared_queries=shared,
        reference=table.reference,
        runs=runs_report([each for task in results.values() for row in task.values() for each in row.values()]),
        metrics=metrics,
        rows=rows,
        conclusions=[
            claim_report(claim, outcomes[claim.task], shared, plan.kept.claim(table.name, claim).get("difference"))
            for claim in table.claims
        ],
    )
    if table.name in plan.benchmarks:
        report["benchmarks"] = {n: s.report() for n, s in plan.benchmarks[table.name].items() if s.is_done()}
        report["conclusions"] += [cost_report(claim, report["benchmarks"]) for claim in table.cost_claims]
    return report


def runs_report(results: Sequence[Result]) -> dict[str, Any]:
    """Return when the tests of a table were done, where, and with which releases; each once."""
    runs = [each.run for each in results]
    dates = sorted(run.date for run in runs)
    distinct = {name: sorted({getattr(run, name) for run in runs} - {""}) for name in ("machine", "packages")}
    return dict(
        dates=[dates[0], dates[-1]] if dates else [],
        releases=sorted({run.release for run in runs}),
        machines=distinct["machine"],
        packages=distinct["packages"],
    )


def read_task(plan: Plan, table: Table, task: str) -> TaskResults:
    """Read the results of a task's tests that are done or kept."""
    found: TaskResults = {}
    for key in plan.tests:
        if key[0] == table.name and key[2] == task and (result := plan.result(key)) is not None:
            found.setdefault(key[1], {})[key[3]] = result
    return found


def outcomes_of(results: TaskResults) -> TaskOutcomes:
    """Return the outcomes of the results of a task."""
    return {row: {seed: each.outcomes for seed, each in seeds.items()} for row, seeds in results.items()}


def task_metrics(table: Table, task: str, outcomes: TaskOutcomes) -> list[str]:
    """Return the metrics of a task that the report shows: those named, else the paper's that were measured, else the usual."""
    named = next((row.runs[task].metrics for row in table.rows.values() if task in row.runs), ())
    if named:
        return list(named)
    keys = next((set(each) for seeds in outcomes.values() for each in seeds.values()), None)
    paper = next((row.paper[task] for row in table.rows.values() if row.paper.get(task)), {})
    measured = [metric for metric in paper if keys is None or outcome_key(metric) in keys]
    return measured or [metric for key, usual in USUAL_METRICS.items() if key in (keys or ()) for metric in usual]


def row_report(
    plan: Plan, table: Table, row: Row, task: str, metrics: Sequence[str], results: TaskResults, shared: bool
) -> dict[str, Any]:
    """Return a row's values by seed, what became of the queries, and estimates of one task."""
    own, outcomes = results.get(row.name, {}), outcomes_of(results)
    keys = {seed: (table.name, row.name, task, seed) for seed in plan.seeds[table.name]}
    step = next((plan.tests[key] for key in keys.values() if key in plan.tests), None)  # None without starting weights
    values = {
        str(seed): {
            metric: value_of(each.outcomes, metric) for metric in metrics if outcome_key(metric) in each.outcomes
        }
        for seed, each in own.items()
    }
    known = plan.kept.row(table.name, row.name, task)
    difference = None
    if table.reference and row.name != table.reference and metrics:
        weights = {row.name: 1.0, table.reference: -1.0}
        difference = contrast(weights, outcomes, metrics[0], shared, known.get("difference_to_reference"))
    return dict(
        training=None if step is None else step.training.family,
        test=None if step is None else step.family,
        values=values,
        queries={str(seed): len(next(iter(each.outcomes.values()))) for seed, each in own.items()},
        seconds={str(seed): dict(each.seconds) for seed, each in own.items() if each.seconds},
        runs={str(seed): asdict(each.run) for seed, each in own.items()},
        outcomes={
            str(seed): {metric: pack(values) for metric, values in each.outcomes.items()}
            for seed, each in own.items()
            if not isinstance(each.outcomes, Unordered)
        },
        missing_seeds=[seed for seed in keys if seed not in own],
        estimates={
            metric: contrast({row.name: 1.0}, outcomes, metric, shared, known.get("estimates", {}).get(metric))
            for metric in metrics
        },
        difference_to_reference=difference,
    )


def contrast(
    weights: Mapping[str, float],
    outcomes: TaskOutcomes,
    metric: str,
    shared: bool,
    kept: Mapping[str, Any] | None,
) -> dict[str, Any] | None:
    """Estimate a contrast of rows, with what an earlier report says of it.

    An estimate that the report has of seeds whose queries it does not tell is handed on to the next report as "unordered".
    """
    kept = None if kept is None else kept.get("unordered", kept)
    try:
        before = None if kept is None else Estimate(**{key: _tuple(value) for key, value in kept.items()})
    except (TypeError, AttributeError) as error:
        raise OptionError(
            f"A report in --kept is damaged: {quoted(kept)} is no estimate of {' and '.join(weights)} ({error})."
        ) from error
    found = estimate(weights, outcomes, metric, shared_queries=shared, kept=before)
    if found is None:
        return None
    told = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(found).items()}
    untold = any(isinstance(each, Unordered) for row in weights for each in outcomes.get(row, {}).values())
    return told | ({"unordered": dict(kept)} if kept is not None and untold else {})


def _tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def claim_report(claim: Claim, outcomes: TaskOutcomes, shared: bool, kept: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a claim with its contrast, its interval and its verdict."""
    sign = -1.0 if less_is_better(claim.metric) else 1.0
    weights = {row: sign * weight for row, weight in claim.weights.items()}
    found = contrast(weights, outcomes, claim.metric, shared, kept)
    return dict(
        number=claim.number,
        statement=claim.statement,
        rule=claim.rule(),
        task=claim.task,
        metric=claim.metric,
        weights=dict(claim.weights),
        margin=claim.margin,
        difference=found,
        verdict=judge(claim, () if found is None else found["interval"]),
    )


def cost_report(claim: CostClaim, benchmarks: Mapping[str, Any]) -> dict[str, Any]:
    """Return a claim on memory and time with what was measured and its verdict."""
    verdict, measured = judge_costs(claim, benchmarks)
    return dict(number=claim.number, statement=claim.statement, rule=claim.rule(), measured=measured, verdict=verdict)


def to_markdown(report: Mapping[str, Any], figures: Sequence[str] = ()) -> str:
    """Return a table's report as Markdown."""
    queries = (
        "the same queries in all seeds" if report["shared_queries"] else "a world and queries of its own for each seed"
    )
    lines = [
        f"# {report['title']}",
        "",
        *([report["note"], ""] if report["note"] else []),
        _provenance(report),
        "",
        f"Mean over the seeds, with its 95 % interval over seeds and queries ({queries}). An interval in parentheses is that "
        "of one seed over its queries, and says nothing of another training. Time is that of the training and the test of "
        "a seed.",
        "",
    ]
    for task, metrics in report["metrics"].items():
        lines += [f"## {task}", "", *_task_table(report, task, metrics), ""]
        seeds = [tuple(row["tasks"][task]["values"]) for row in report["rows"] if task in row["tasks"]]
        if len({each for each in seeds if each}) > 1:
            lines += [
                "Rows of different seeds are compared by Δ, over the seeds that both have; their means are of different worlds "
                "or trainings.",
                "",
            ]
    if report["conclusions"]:
        lines += ["## Conclusions", "", *_claims_table(report["conclusions"]), ""]
    for figure in figures:
        lines += [f"![{report['title']}]({figure})", ""]
    return "\n".join(lines)


def _provenance(report: Mapping[str, Any]) -> str:
    """Return seeds, dates, releases and machines of a report."""
    runs = report["runs"]
    parts = [f"Seeds {', '.join(map(str, report['seeds']))}{' (quick settings)' if report['quick'] else ''}"]
    if runs["dates"]:
        dates = " to ".join(dict.fromkeys(runs["dates"]))
        parts.append(f"runs of {dates} by clipbert_mm {', '.join(runs['releases'])}")
    parts += [" and ".join(runs["machines"])] if runs["machines"] else []
    shown = [each for known in runs["packages"] for each in known.split(", ") if each.split()[0] in SHOWN_PACKAGES]
    parts += [", ".join(dict.fromkeys(shown))] if shown else []
    return "; ".join(parts) + "."


def _task_table(report: Mapping[str, Any], task: str, metrics: Sequence[str]) -> list[str]:
    labels = list(dict.fromkeys(key for row in report["rows"] for key in row["label"]))
    rows = [row for row in report["rows"] if task in row["tasks"]]
    papers = [row["paper"].get(task, {}) for row in rows]
    has_paper = any(metric in paper for paper in papers for metric in metrics)
    # Where the paper's measure is another than ours, its main one stands beside.
    other = next((metric for paper in papers for metric in paper if not has_paper), None)
    heads = [*labels] + ([f"paper {other.removeprefix('t2v/')}"] if other else [])
    for metric in metrics:
        short = metric.removeprefix("t2v/")
        heads += [f"paper {short}"] * has_paper + [short]
    heads += [f"Δ {metrics[0].removeprefix('t2v/')} to {report['reference']}" if metrics else "Δ", "seeds", "time"]
    lines = ["| " + " | ".join(heads) + " |", "|" + " --- |" * len(heads)]
    for row in rows:
        own = row["tasks"][task]
        cells = [row["label"].get(key, "") for key in labels]
        paper = row["paper"].get(task, {})
        cells += [_number(paper.get(other))] if other else []
        for metric in metrics:
            cells += [_number(paper.get(metric))] * has_paper + [format_estimate(own["estimates"][metric])]
        if row["name"] == report["reference"]:
            cells.append("reference")
        else:
            cells.append(format_estimate(own["difference_to_reference"], signed=True))
        cells.append(f"{len(own['values'])} of {len(report['seeds'])}")
        spent = [each["training"] + each["test"] for each in own["seconds"].values()]
        cells.append(format_seconds(fmean(spent)) if spent else MISSING)
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def format_estimate(found: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """Return a mean with its interval.

    >>> format_estimate({"mean": 2.5, "interval": [1.0, 4.0], "over_queries": [2.0, 3.0]}, signed=True)
    '+2.5 [+1.0, +4.0]'
    >>> format_estimate(None)
    'missing'
    """
    if found is None:
        return MISSING
    sign = "+" if signed else ""
    ends = found["interval"] or found["over_queries"]
    text = ", ".join(f"{end:{sign}.1f}" for end in ends)
    return f"{found['mean']:{sign}.1f} " + (f"[{text}]" if found["interval"] else f"({text})")


def _claims_table(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = ["| | stated before | judged by | difference | verdict |", "| --- | --- | --- | --- | --- |"]
    for claim in claims:
        found = claim["measured"] if "measured" in claim else format_estimate(claim["difference"], signed=True)
        lines.append(
            f"| {claim['number']} | {claim['statement']} | {claim['rule']} | {found} | **{claim['verdict']}** |"
        )
    return lines


def index_markdown(reports: Sequence[Mapping[str, Any]]) -> str:
    """Return the verdicts of all tables as Markdown."""
    lines = ["# Conclusions of Section 4 of the paper", "", "| | verdict | claims |", "| --- | --- | --- |"]
    claims = [(report, claim) for report in reports for claim in report["conclusions"]]
    for number in sorted({claim["number"] for _, claim in claims}):
        own = [(report, claim) for report, claim in claims if claim["number"] == number]
        told = "; ".join(
            f"{claim['statement']} ([{report['table']}]({report['table']}.md)): {claim['verdict']}"
            for report, claim in own
        )
        lines.append(f"| {number} | **{overall([claim['verdict'] for _, claim in own])}** | {told} |")
    lines += ["", "Tables:", ""]
    for report in reports:
        lines.append(f"- [{report['title']}]({report['table']}.md)")
    return "\n".join(lines) + "\n"
