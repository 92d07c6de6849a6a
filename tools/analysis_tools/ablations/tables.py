"""Table files: the rows of a table, how each is trained and tested, and what its conclusions are judged by."""

import difflib
import glob
import logging
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ablations.checks import DICT, check_entries, hint
from ablations.table_parts import (
    FROM_CONFIG,
    ROW_KEYS,
    RUN_KEYS,
    check_metrics,
    check_starts,
    read_benchmark,
    read_data,
    read_figure,
    read_file,
    read_quick,
)
from ablations.verdicts import Claim, CostClaim, read_claim
from clipbert_mm.errors import OptionError

ROOT = Path(__file__).resolve().parents[3]
SETS = {"paper": ROOT / "configs" / "ablations" / "tables", "shapes": ROOT / "configs" / "shapes" / "tables"}
"""Folders of the table files, by the value of ``--on``."""
PAPER_ROWS = ROOT / "configs" / "ablations"
"""Configs of the paper's rows; the first lines of each hold the paper's numbers."""
PAPER_METRICS = {
    "R1": "t2v/R@1",
    "R5": "t2v/R@5",
    "R10": "t2v/R@10",
    "MdR": "t2v/MdR",
    "accuracy": "accuracy",
}
"""Our names of the paper's metrics."""
PAPER_TASKS = ("retrieval", "qa")
"""Tasks of the paper's tables; a row may have others, which the paper has no numbers of."""


@dataclass(frozen=True)
class Run:
    """One training with its test.

    Args:
        config: The config file.
        starts: What it starts from: names of ``starts`` of the table, files, or :data:`FROM_CONFIG`; empty for random weights.
        overrides: Settings of the training and the test, by dotted key.
        test: Settings of the test alone.
        validate: Whether the training validates and the selected checkpoint is used; otherwise the last one.
        metrics: The metrics that the report shows; empty for those usual for the task.
        gpus: GPUs of the recipe, each with the config's batch size.
    """

    config: Path
    starts: tuple[str, ...] = (FROM_CONFIG,)
    overrides: Mapping[str, Any] = field(default_factory=dict)
    test: Mapping[str, Any] = field(default_factory=dict)
    validate: bool = True
    metrics: tuple[str, ...] = ()
    gpus: int = 1


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Args:
        name: Its name in the table file.
        label: Its label columns.
        runs: Its training and test for each task.
        paper: The paper's metrics for each task.
    """

    name: str
    label: Mapping[str, str]
    runs: Mapping[str, Run]
    paper: Mapping[str, Mapping[str, float]]


@dataclass(frozen=True)
class Table:
    """A table file that was read; see docs/ablation_runner.md for its keys."""

    name: str
    title: str
    rows: Mapping[str, Row]
    starts: Mapping[str, Run]
    data_command: str | None
    data_variable: str | None
    claims: Sequence[Claim]
    seeds: Sequence[int]
    reference: str | None
    figure: Mapping[str, Any] | None
    benchmark: Mapping[str, Any]
    cost_claims: Sequence[CostClaim] = ()
    note: str = ""
    quick: bool = False


def table_names(table_set: str) -> list[str]:
    """Return the names of the tables of a set."""
    return sorted(path.stem for path in SETS[table_set].glob("*.py") if not path.stem.startswith("_"))


def find_table(name: str, table_set: str) -> Path:
    """Find a table file by its path or its short name.

    Raises:
        OptionError: If there is none.
    """
    if name.endswith(".py"):
        if os.path.isfile(name):
            return Path(name)
        raise OptionError(f"There is no table file {os.path.abspath(name)}.")
    names = table_names(table_set)
    if name in names:
        return SETS[table_set] / f"{name}.py"
    raise OptionError(
        f"There is no table '{name}' (--on {table_set}). {hint(name, names)} Or give the path of a table file."
    )


def read_tables(names: Sequence[str], table_set: str, *, quick: bool = False) -> list[Table]:
    """Read table files by their paths or short names, each once.

    Raises:
        OptionError: If there is none, two would write the same report, or one cannot be used.
    """
    paths: dict[str, Path] = {}
    for path in (find_table(name, table_set) for name in names):
        other = paths.setdefault(path.stem, path)
        if other.resolve() != path.resolve():
            raise OptionError(
                f"{other} and {path} would both write the report {path.stem}.md. Rename one of them, or run each with an --out "
                "of its own."
            )
    return [read_table(path, quick=quick) for path in paths.values()]


def read_table(path: Path, *, quick: bool = False) -> Table:
    """Read a table file.

    Args:
        path: The table file.
        quick: Whether to apply the settings of its ``quick``.

    Raises:
        OptionError: If it is no Python, misses a key, has an unknown one or a value of another kind, or names a row, task,
            label or start that there is not.
    """
    table = read_file(path)
    less = read_quick(table, path)
    if not quick:
        less = {}
    command, variable = read_data({**table.get("data", {}), **less.get("data", {})}, f"{path}: data")
    starts = {
        name: _read_run(start, f"{path}: start '{name}'", less.get("starts", {}).get(name, {}))
        for name, start in table.get("starts", {}).items()
    }
    rows = {name: _read_row(name, row, table["tasks"], less, path) for name, row in table["rows"].items()}
    for who, run in [(f"{path}: start '{n}'", r) for n, r in starts.items()] + [
        (f"{path}: row '{name}'", run) for name, row in rows.items() for run in row.runs.values()
    ]:
        if not run.config.is_file():
            raise OptionError(f"{who}: there is no config {run.config}.")
        check_starts(run.starts, starts, who)
    check_metrics(rows, table["tasks"], str(path))
    claims = [read_claim(claim, rows, str(path)) for claim in table.get("conclusions", ())]
    benchmark, cost_claims = read_benchmark(table.get("benchmark", {}), rows, f"{path}: benchmark")
    reference = table.get("reference") or next(iter(rows))
    if reference not in rows:
        raise OptionError(f"{path}: reference '{reference}' is no row. {hint(reference, rows)}")
    return Table(
        name=path.stem + ("-quick" if quick else ""),
        title=table["title"],
        rows=rows,
        starts=starts,
        data_command=command,
        data_variable=variable,
        claims=claims,
        seeds=tuple(less.get("seeds", table.get("seeds", (0, 1, 2)))),
        reference=reference,
        figure=read_figure(table.get("figure"), rows, f"{path}: figure"),
        benchmark=benchmark,
        cost_claims=cost_claims,
        note=table.get("note", ""),
        quick=quick,
    )


def _read_row(name: str, row: Mapping[str, Any], tasks: Mapping[str, Any], less: Mapping[str, Any], path: Path) -> Row:
    check_entries(row, ROW_KEYS, f"{path}: row '{name}'")
    runs, paper = {}, {}
    own_tasks = row.get("tasks") or {}
    check_entries(own_tasks, dict.fromkeys(tasks, DICT), f"{path}: row '{name}', tasks")
    for task, usual in tasks.items():
        own = own_tasks.get(task, {})
        if own is None:  # the row is not there for this task
            continue
        who = f"{path}: row '{name}', task '{task}'"
        merged: dict[str, Any] = {}
        for part in (usual, {k: row[k] for k in RUN_KEYS if k in row}, own):
            check_entries(part, RUN_KEYS, who)
            for key, value in part.items():
                merged[key] = {**merged.get(key, {}), **(value or {})} if key in ("overrides", "test") else value
        for key in ("overrides", "test"):
            merged[key] = {**merged.get(key, {}), **less.get(key, {})}
        pattern = str(merged.get("config", ""))
        if "{row}" in pattern:
            merged["config"] = _only_match(pattern.replace("{row}", row.get("row") or row.get("paper") or name), who)
        runs[task] = _read_run(merged, who)
        if row.get("paper") and task in PAPER_TASKS:
            paper[task] = paper_numbers(row["paper"], task)
    label = {str(key): str(value) for key, value in (row.get("label") or {"row": name}).items()}
    return Row(name=name, label=label, runs=runs, paper=paper)


def _read_run(spec: Mapping[str, Any], who: str, overrides: Mapping[str, Any] | None = None) -> Run:
    check_entries(spec, RUN_KEYS, who)
    start = spec.get("start", FROM_CONFIG)
    spec = {key: value for key, value in spec.items() if value is not None}
    if not spec.get("config"):
        raise OptionError(f"{who} needs a config.")
    starts = () if start is None else (start,) if isinstance(start, str) else tuple(start)
    path = Path(spec["config"])
    return Run(
        config=path if path.is_absolute() or path.is_file() else ROOT / path,
        starts=starts,
        overrides={**spec.get("overrides", {}), **(overrides or {})},
        test=spec.get("test", {}),
        validate=spec.get("validate", True),
        metrics=tuple(spec.get("metrics", ())),
        gpus=spec.get("gpus", 1),
    )


def _only_match(pattern: str, who: str) -> str:
    found = sorted(glob.glob(str(ROOT / pattern)))
    if len(found) != 1:
        raise OptionError(f"{who}: expected one config like {pattern}, got {len(found)}.")
    return found[0]


def paper_numbers(row: str, task: str) -> dict[str, float]:
    """Return the paper's metrics of a row, from the first lines of its config in configs/ablations.

    Raises:
        OptionError: If there is no such row.

    >>> paper_numbers("table1_l448", "qa")
    {'accuracy': 35.73}
    """
    found = sorted(PAPER_ROWS.glob(f"{row}_*_msrvtt-{task}.py"))
    if len(found) != 1:
        rows = sorted({path.stem.rsplit("_", 2)[0] for path in PAPER_ROWS.glob("table*.py")})
        near = difflib.get_close_matches(row, rows, n=3)
        raise OptionError(f"The paper has no row '{row}' for {task}. Near ones are: {', '.join(near or rows[:3])}.")
    opening = found[0].read_text(encoding="utf-8").partition("_base_")[0]
    numbers = re.search(r"The paper's numbers: (.*)\.\n", opening)
    pairs = re.findall(r"(\w+) ([\d.]+\d)", numbers[1]) if numbers else []
    pairs += re.findall(r"(MdR) (\d+)(?![\d.])", numbers[1]) if numbers else []
    return {PAPER_METRICS[name]: float(value) for name, value in pairs}


@contextmanager
def variable_set(name: str | None, value: str) -> Iterator[None]:
    """Set an environment variable while configs are read, without a line about it in the log; None sets nothing."""
    before = dict(os.environ)
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)
    if name is not None:
        os.environ[name] = value
    try:
        yield
    finally:
        logging.disable(disabled)
        if name is not None:
            os.environ.pop(name)
            os.environ.update({key: old for key, old in before.items() if key == name})
