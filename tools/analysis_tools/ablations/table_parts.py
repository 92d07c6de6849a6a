"""Parts of a table file: their keys with the kinds of their values, and what each has to fit."""

import difflib
import math
import os
import shlex
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from ablations.checks import (
    COUNT,
    DICT,
    DICTS,
    FLAG,
    LABELS,
    LIST,
    LIST_OF_DICTS,
    SEEDS,
    START,
    TASKS_OF_ROW,
    TEXT,
    TEXTS,
    check_entries,
    expect,
    hint,
    naming,
)
from ablations.verdicts import CostClaim, read_cost_claim
from clipbert_mm.engine.config import check_start
from clipbert_mm.errors import OptionError

TABLE_KEYS = {
    "title": TEXT,
    "note": TEXT,
    "data": DICT,
    "tasks": DICTS,
    "starts": DICTS,
    "rows": DICTS,
    "reference": TEXT,
    "conclusions": LIST_OF_DICTS,
    "seeds": SEEDS,
    "quick": DICT,
    "figure": DICT,
    "benchmark": DICT,
}
RUN_KEYS = {
    "config": TEXT,
    "start": START,
    "overrides": DICT,
    "test": DICT,
    "validate": FLAG,
    "metrics": TEXTS,
    "gpus": COUNT,
}
ROW_KEYS = {"label": LABELS, "paper": TEXT, "row": TEXT, "tasks": TASKS_OF_ROW, **RUN_KEYS}
DATA_KEYS = {"command": TEXT, "variable": TEXT}
QUICK_KEYS = {"seeds": SEEDS, "overrides": DICT, "starts": DICTS, "test": DICT, "data": DICT}
FIGURE_KEYS = {"x": TEXT, "lines": TEXT}
BENCHMARK_KEYS = {"config": TEXT, "memory": LIST, "step": LIST, "conclusions": LIST_OF_DICTS}
INDEXES = ("index", "index-quick")
"""Names that no table can have, since the index of all reports has them."""
FROM_CONFIG = "load_from of the config"
"""Stands for a start that a table does not name."""


def read_file(path: Path) -> dict[str, Any]:
    """Read the entries of a table file that are not None.

    Raises:
        OptionError: If it is no Python, misses a key, misspells one, or has a value of another kind.
    """
    if path.stem in INDEXES:
        raise OptionError(
            f"{path}: the report of this table would be {path.stem}.md, which is the index. Rename the file."
        )
    with naming(path, "Correct the file."):
        table = {key: value for key, value in Config.fromfile(str(path)).to_dict().items() if value is not None}
    for key, value in table.items():
        if key in TABLE_KEYS:
            expect(value, TABLE_KEYS[key], f"{path}: {key}")
        elif near := difflib.get_close_matches(key, TABLE_KEYS, n=1, cutoff=0.85):
            raise OptionError(f"{path}: '{key}' is not used by anything. Did you mean {near[0]}?")
    for key in ("title", "tasks", "rows"):
        if not table.get(key):
            raise OptionError(f"{path} needs {key}. A table file has: {', '.join(TABLE_KEYS)}.")
    check_entries(table.get("data", {}), DATA_KEYS, f"{path}: data")
    return table


def read_quick(table: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Read what ``quick`` of a table file sets."""
    less = {key: value for key, value in table.get("quick", {}).items() if value is not None}
    check_entries(less, QUICK_KEYS, f"{path}: quick")
    check_entries(less.get("starts", {}), dict.fromkeys(table.get("starts", {}), DICT), f"{path}: quick, starts")
    check_entries(less.get("data", {}), DATA_KEYS, f"{path}: quick, data")
    return less


def read_data(data: Mapping[str, str | None], who: str) -> tuple[str | None, str | None]:
    """Read the command that makes the data of a seed, and the variable by which configs read its folder; None for no data.

    Raises:
        OptionError: If one is given without the other, or the command cannot be run.
    """
    command, variable = (data.get(key) for key in DATA_KEYS)
    if command is None and variable is None:
        return None, None
    if not command or not variable:
        raise OptionError(f"{who} needs both command and variable, got {', '.join(data)}.")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise OptionError(f"{who}: command cannot be split into words ({error}): {command}") from error
    if not any("{data}" in word for word in words):
        raise OptionError(f"{who}: command needs {{data}}, which stands for the folder that it makes, got {command}")
    return command, variable


def is_missing(start: str) -> bool:
    """Say whether a start is a file of weights that is not there."""
    try:
        check_start({"load_from": start})
    except OptionError:
        return True
    return False


def check_starts(names: Sequence[str], starts: Mapping[str, Any], who: str, before: Sequence[str] = ()) -> None:
    """Check what a run starts from, and what that starts from; weights that are missing may come later.

    Args:
        names: What it starts from.
        starts: The starts of the table.
        who: The run.
        before: The starts that lead to it.

    Raises:
        OptionError: If a name is neither a start of the table nor like a file, an address or a model of the Hugging Face hub,
            or a start leads to itself.
    """
    for name in names:
        if name in before:
            circle = " -> ".join([*before[before.index(name) :], name])
            raise OptionError(
                f"{who}: start '{name}' starts from itself ({circle}). Let one of them start from other weights."
            )
        if name in starts:
            check_starts(starts[name].starts, starts, who, [*before, name])
        elif name != FROM_CONFIG and "/" not in name and not os.path.exists(name) and not is_missing(name):
            raise OptionError(
                f"{who}: start '{name}' is neither in starts nor a file. {hint(name, starts)} A model of the Hugging Face hub "
                "is named as OWNER/MODEL."
            )


def check_metrics(rows: Mapping[str, Any], tasks: Collection[str], who: str) -> None:
    """Check that all rows of a task name the same metrics, since a table has one column for each.

    Raises:
        OptionError: If they do not.
    """
    for task in tasks:
        named = list(dict.fromkeys(row.runs[task].metrics for row in rows.values() if task in row.runs))
        if len(named) > 1:
            told = " and ".join(f"[{', '.join(each)}]" for each in named[:2])
            raise OptionError(
                f"{who}: rows name different metrics of task '{task}': {told}. Set them in tasks, for all rows."
            )


def read_figure(figure: Mapping[str, Any] | None, rows: Mapping[str, Any], who: str) -> Mapping[str, Any] | None:
    """Read what a table's figure shows; None for no figure.

    Raises:
        OptionError: If a label is one that no row has, or is no number along the axis.
    """
    if not figure:
        return None
    check_entries(figure, FIGURE_KEYS, who)
    if not figure.get("x"):
        raise OptionError(f"{who} needs x, the label along the axis, got {', '.join(figure)}.")
    labels = list(dict.fromkeys(key for row in rows.values() for key in row.label))
    for key, label in figure.items():
        if label is not None and label not in labels:
            raise OptionError(f"{who}: {key} is '{label}', a label that no row has. {hint(label, labels)}")
    _check_numbers(rows, figure["x"], who)
    return figure


def read_benchmark(
    benchmark: Mapping[str, Any], rows: Mapping[str, Any], who: str
) -> tuple[dict[str, Any], list[CostClaim]]:
    """Read the arguments of a table's benchmarks, by sub-command, with their config; and the claims on costs.

    Raises:
        OptionError: If there is no config, or what the claims need is not measured.
    """
    check_entries(benchmark, BENCHMARK_KEYS, who)
    given = {key: value for key, value in benchmark.items() if value is not None}
    claims = [read_cost_claim(claim, who) for claim in given.pop("conclusions", ())]
    needed = ["config"] * bool(given) + ["config", "memory", "step"] * bool(claims)
    for key in needed:
        if key not in given:
            raise OptionError(f"{who} needs {key}, got {', '.join(benchmark)}.")
    if given:
        _check_numbers(rows, "number", who)
    return given, claims


def _check_numbers(rows: Mapping[str, Any], label: str, who: str) -> None:
    """Check that a label is a number above 0 in all rows that have it."""
    for name, row in rows.items():
        if label in row.label and not _is_above_0(row.label[label]):
            raise OptionError(
                f"{who}: label '{label}' of row '{name}' expects a number above 0, got '{row.label[label]}'."
            )


def _is_above_0(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
