"""From tables and seeds to steps: which trainings, tests and data they need, each once."""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from ablations.checks import hint, naming
from ablations.outcomes import NO_OUTCOMES, reported_metrics
from ablations.results import KeptResults, Key, Result, result_of
from ablations.scheduler import format_steps
from ablations.steps import DATA_FOLDER, BenchmarkStep, DataStep, Step, TestStep, TrainingStep
from ablations.table_parts import FROM_CONFIG, is_missing
from ablations.tables import ROOT, Run, Table, variable_set
from ablations.verdicts import UNDECIDED
from clipbert_mm.engine.config import RUNNER_KEYS, drop_validation, load_config, without_folders
from clipbert_mm.errors import ClipBertError, OptionError

IRRELEVANT = frozenset(
    ("work_dir", "launcher", "resume", "load_from", "experiment_name", "log_level", "log_processor", "visualizer")
)
"""Names in a config that do not change what a run computes, or that are given to it otherwise."""


class Plan:
    """All steps of some tables.

    Args:
        tables: The tables.
        seeds: The seeds; None for those of each table.
        out: The folder of all steps.
        options: More settings of the rows' trainings and tests, by dotted key.
        gpus: Processes of a run. If the recipe is for another number, its global batch is kept (``--micro-batch``).
        micro_batch: Items that a process computes at a time, 0 for as many as divide a step; None for what the recipe says.
        amp: Precision of the rows' trainings, as ``--amp`` of tools/train.py; None for what the config says.
        conclusions_only: Whether to run only what the conclusions of the tables are judged by.
        undecided_only: Whether to run only what those conclusions are judged by that the reports of ``kept`` leave undecided.
        kept: Results of earlier runs, which are not run again.

    Raises:
        OptionError: If a config does not have what a table sets, or a test does not give a metric that is to be reported.
    """

    def __init__(
        self,
        tables: Sequence[Table],
        *,
        seeds: Sequence[int] | None,
        out: Path,
        options: Mapping[str, Any] | None = None,
        gpus: int = 1,
        micro_batch: int | None = None,
        amp: str | None = None,
        conclusions_only: bool = False,
        undecided_only: bool = False,
        kept: KeptResults | None = None,
    ) -> None:
        self.kept = kept or KeptResults(None)
        claims = [(table.name, claim) for table in tables for claim in table.claims]
        costs = [(table.name, claim) for table in tables for claim in table.cost_claims]
        self.measured = {table.name for table in tables}
        """The tables whose benchmark is run."""
        if undecided_only:
            claims, costs = (
                [each for each in known if self.kept.verdict(*each) == UNDECIDED] for known in (claims, costs)
            )
            self.measured = {name for name, _ in costs}
        self.judged = {(name, row, claim.task) for name, claim in claims for row in claim.weights}
        self.conclusions_only = conclusions_only or undecided_only
        self.out, self.options, self.configs = out, dict(options or {}), ConfigReader()
        self.gpus, self.micro_batch, self.amp = gpus, micro_batch, amp
        self.steps: dict[Path, Step] = {}
        """The steps by their folders, those that others need first."""
        self.tests: dict[Key, TestStep] = {}
        """The test of a table's row, task and seed."""
        self.benchmarks: dict[str, dict[str, BenchmarkStep]] = {}
        """The benchmarks of a table by sub-command."""
        self.planned = {table.name: tuple(seeds if seeds is not None else table.seeds) for table in tables}
        """The seeds of a table that are to be run."""
        self.seeds = {name: tuple(sorted({*own, *self.kept.seeds(name)})) for name, own in self.planned.items()}
        """The seeds of a table that are reported: those, and what is kept."""
        self.missing: dict[str, list[str]] = {}
        """The rows that are to be run and cannot, by the file of weights that is missing."""
        for table in tables:
            for name, row in table.rows.items():
                for task, run in row.runs.items():
                    self._add_row(table, name, task, run)
            if table.benchmark:
                self.benchmarks[table.name] = self._benchmarks(table)

    def check_weights(self) -> None:
        """Check that all weights that rows start from are there.

        Raises:
            OptionError: If some are missing.
        """
        if self.missing:
            listed = "".join(f"\n  {path}: {format_names(rows)}" for path, rows in self.missing.items())
            raise OptionError(
                f"Files of weights that rows start from are missing; nothing was run:{listed}\n"
                "Get them (docs/where_to_start.md), set the variables that lead to them, or leave these rows out: "
                f"--skip-missing runs the rest, {format_steps(len(self.pending()))}."
            )

    def _add_row(self, table: Table, name: str, task: str, run: Run) -> None:
        who = f"{table.name}, {name}, {task}"
        self._check_metrics(table, name, task, run, who)
        missing = self._missing_weights(table, run, who)
        for path in missing if self._is_wanted((table.name, name, task)) else ():
            rows = self.missing.setdefault(path, [])
            rows += [] if f"{table.name} {name}" in rows else [f"{table.name} {name}"]
        if not missing:
            for seed in self.seeds[table.name]:
                self.tests[table.name, name, task, seed] = self._test(table, run, seed, who)

    def _check_metrics(self, table: Table, name: str, task: str, run: Run, who: str) -> None:
        """Check that the test of a run gives the metrics that the report shows and that conclusions are judged by."""
        config = self.configs.read(table, run, {**run.overrides, **self.options, **run.test}, who)
        known = reported_metrics(config.get("test_evaluator"))
        if not known:
            raise OptionError(f"{who}: {NO_OUTCOMES}")
        claims = [claim for claim in table.claims if claim.task == task and name in claim.weights]
        wanted = dict.fromkeys(run.metrics, "metrics")
        wanted |= {claim.metric: f"conclusion ({claim.number})" for claim in claims}
        for metric, where in wanted.items():
            if metric not in known:
                raise OptionError(f"{who}: its test gives no metric '{metric}' of {where}. {hint(metric, known)}")

    def _is_wanted(self, row: tuple[str, str, str]) -> bool:
        """Say whether the tests of a table's row and task are to be run."""
        return not self.conclusions_only or row in self.judged

    def pending(self) -> list[Step]:
        """Return the steps that are to be done, those that others need first; what only done steps need is not."""
        needed: dict[Path, Step] = {}

        def visit(step: Step) -> None:
            if step.folder not in needed and not step.is_done():
                for other in step.needs:
                    visit(other)
                needed[step.folder] = step

        for target in self.targets():
            visit(target)
        return list(needed.values())

    def result(self, key: Key) -> Result | None:
        """Return the result of a test that is done, else the one that was kept; None if there is neither."""
        step = self.tests[key]
        if step.is_done():
            return result_of(step)
        return None if step.training is None else self.kept.find(key, step.training.family, step.family)

    def is_kept(self, key: Key) -> bool:
        """Say whether the result of a test is a kept one."""
        return not self.tests[key].is_done() and self.result(key) is not None

    def targets(self) -> list[Step]:
        """Return the steps whose results the report shows, or the conclusions are judged by, each once; not of kept results."""
        wanted = [key for key in self.tests if self._is_wanted(key[:3])]
        wanted = [key for key in wanted if key[3] in self.planned[key[0]] and not self.is_kept(key)]
        tests = [self.tests[key] for key in wanted]
        benchmarks = [step for name, each in self.benchmarks.items() if name in self.measured for step in each.values()]
        return list({step.folder: step for step in [*tests, *benchmarks]}.values())

    def _add(self, step: Step) -> Any:
        return self.steps.setdefault(step.folder, step)

    def _data(self, table: Table, seed: int) -> DataStep | None:
        if table.data_command is None:
            return None
        command = table.data_command
        family = _hash(command)
        folder = self.out / "data" / f"{family}-seed{seed}"
        return self._add(DataStep(folder, f"data, seed {seed}", family, seed, command=command))

    def _training(self, table: Table, run: Run, seed: int, who: str, *, is_row: bool) -> TrainingStep:
        options = self.options if is_row else {}
        config = self.configs.read(table, run, {**run.overrides, **options}, who)
        data = self._data(table, seed)
        starts: list[TrainingStep | str] = []
        for name in _start_names(run, config):
            if name in table.starts:
                starts.append(self._training(table, table.starts[name], seed, f"start '{name}'", is_row=False))
            else:
                starts.append(name)
        trained = {key: value for key, value in config.items() if not key.startswith("test_")}
        begun = [hash_start(start) if isinstance(start, str) else start.family for start in starts]
        amp = self.amp if is_row else None
        micro_batch = 0 if self.micro_batch is None and self.gpus != run.gpus else self.micro_batch
        launched = [amp] if amp else []
        if micro_batch is not None and (items := other_items_per_step(config, run.gpus)):
            launched.append(f"{items} items per step")
        family = _hash([content_of(trained), begun, table.data_command, *launched])
        needs: list[Step] = [step for step in (data, *starts) if isinstance(step, Step)]
        folder = self.out / "runs" / f"{family}-seed{seed}"
        known = self.steps.get(folder)
        if isinstance(known, TrainingStep):
            return known
        return self._add(
            TrainingStep(
                folder,
                f"training of {who}, seed {seed}",
                family,
                seed,
                needs,
                config=trained,
                gpus=self.gpus,
                micro_batch=micro_batch,
                amp=amp,
                starts=starts,
                data=None if data is None else data.data,
            )
        )

    def _missing_weights(self, table: Table, run: Run, who: str) -> list[str]:
        """Return the files that a run, or what it starts from, starts from and that are not there."""
        config = self.configs.read(table, run, run.overrides, who)
        missing = []
        for name in _start_names(run, config):
            if name in table.starts:
                missing += self._missing_weights(table, table.starts[name], f"start '{name}'")
            elif is_missing(name):
                missing.append(os.path.abspath(name))
        return missing

    def _test(self, table: Table, run: Run, seed: int, who: str) -> TestStep:
        training = self._training(table, run, seed, who, is_row=True)
        options = {**run.overrides, **self.options, **run.test}
        config = self.configs.read(table, run, options, who)
        tested = {key: value for key, value in config.items() if key == "model" or key.startswith("test_")}
        family = _hash([training.family, content_of(tested)])
        folder = training.folder / f"test-{family}"
        needs: list[Step] = [training]
        return self._add(
            TestStep(
                folder,
                f"test of {who}, seed {seed}",
                family,
                seed,
                needs,
                config=config,
                gpus=training.gpus,
                training=training,
                data=training.data,
            )
        )

    def _benchmarks(self, table: Table) -> dict[str, BenchmarkStep]:
        spec = dict(table.benchmark)
        config = Path(spec.pop("config"))
        config = config if config.is_file() else ROOT / config
        steps = {}
        for command, arguments in spec.items():
            words = [command, str(config), *map(str, arguments)]
            with naming(config, "Correct the file."):
                family = _hash([load_config(str(config)).to_dict(), command, list(map(str, arguments))])
            folder = self.out / "benchmarks" / f"{command}-{family}"
            steps[command] = self._add(
                BenchmarkStep(folder, f"benchmark '{command}' of {table.name}", family, 0, arguments=words)
            )
        return steps


class ConfigReader:
    """Reads the configs of runs as the tools use them, each once."""

    def __init__(self) -> None:
        self.known: dict[str, dict[str, Any]] = {}

    def read(self, table: Table, run: Run, options: Mapping[str, Any], who: str) -> dict[str, Any]:
        """Read a config, with :data:`~ablations.steps.DATA_FOLDER` for the data of a seed.

        Raises:
            OptionError: If an option sets nothing.
        """
        variable = table.data_variable if table.data_command else None
        key = json.dumps([str(run.config), options, variable, run.validate], sort_keys=True, default=repr)
        if key not in self.known:
            try:
                with variable_set(variable, DATA_FOLDER), naming(run.config, "Correct the file."):
                    config = load_config(
                        str(run.config), dict(options), needs=("model", "train_cfg", "test_dataloader")
                    )
            except ClipBertError as error:
                raise OptionError(f"{who}: {error}") from error
            if not run.validate:
                drop_validation(config)
            self.known[key] = config.to_dict()
        read = self.known[key]
        randomness = {name: value for name, value in (read.get("randomness") or {}).items() if name != "seed"}
        return {name: read[name] for name in sorted(read) if name in RUNNER_KEYS} | {"randomness": randomness}


def content_of(config: Mapping[str, Any]) -> Any:
    """Return what a config computes: without names that are :data:`IRRELEVANT`, and of absolute paths only the last part."""
    content = {key: value for key, value in config.items() if key not in IRRELEVANT}
    if "runner_type" in content:  # named without its scope in the runs of the last release, which are found again
        content["runner_type"] = str(content["runner_type"]).removeprefix("clipbert_mm.")
    return without_folders(content)


def other_items_per_step(config: Mapping[str, Any], gpus: int) -> int | None:
    """Return the items per step that ``--micro-batch`` keeps, where they are not those of the recipe's number of GPUs.

    >>> loader, wrapper = dict(batch_size=8), dict(accumulative_counts=2)
    >>> config = dict(train_dataloader=loader, optim_wrapper=wrapper, auto_scale_lr=dict(base_batch_size=64))
    >>> other_items_per_step(config, gpus=4), other_items_per_step(config, gpus=1)
    (None, 64)
    """
    own = config["train_dataloader"].get("batch_size", 1) * config["optim_wrapper"].get("accumulative_counts", 1) * gpus
    base = (config.get("auto_scale_lr") or {}).get("base_batch_size", own)
    return None if base == own else base


def _start_names(run: Run, config: Mapping[str, Any]) -> list[str]:
    names: list[str] = []
    for start in run.starts:
        own = config.get("load_from") if start == FROM_CONFIG else start
        names += [own] if isinstance(own, str) else own or []
    return names


def format_names(names: Sequence[str], shown: int = 4) -> str:
    """Return the first of some names, and how many more there are.

    >>> format_names(["a", "b", "c"], shown=2)
    'a, b and 1 more'
    """
    more = len(names) - shown
    return ", ".join(names[:shown]) + (f" and {more} more" if more > 0 else "")


def hash_start(start: str) -> str:
    """Return a hash of a file of weights; for a folder or a name of a hub, the name."""
    if not os.path.isfile(start):
        return start
    status = os.stat(start)
    return _file_hash(start, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=64)
def _file_hash(path: str, size: int, changed: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(2**20):
            digest.update(block)
    return digest.hexdigest()


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()[:12]
