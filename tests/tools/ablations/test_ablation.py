"""The runner end to end: a small table is killed, continued by two runners at once, and reported; a row fails."""

import json
import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from ablation_runs import run_ablation
from ablations.outcomes import read_outcomes
from ablations.steps import write_config
from mmengine.config import Config
from warm_python import processes, quick_python

TABLE = """
title = "Small"
data = dict(command="ln -s {world} {{data}}", variable="SMALL_ROOT")
quickly = {{"default_hooks.checkpoint.save_last": True, "train_dataloader.batch_size": 8}}
starts = dict(pretrain=dict(config="{config}", start=None, overrides=quickly))
tasks = dict(retrieval=dict(config="{config}", start="pretrain", overrides=quickly))
seeds = (0, 1)
clips = "test_dataloader.dataset.pipeline.1.num_clips"
rows = {{
    "lse": dict(label={{"N_test": 3}}),
    "lse-1": dict(label={{"N_test": 1}}, test={{clips: 1}}),
    "max": dict(label={{"N_test": 2}}, overrides={{"model.aggregator.type": "MaxAggregator"}}, test={{clips: 2}}),
}}
conclusions = [
    dict(number="iii", statement="clips help", task="retrieval", metric="t2v/R@1", better=["lse", "lse-1"], margin=1.0)
]
figure = dict(x="N_test")
"""
"""Four trainings, six tests and two worlds: two rows share a training, and all start from one pre-training a seed."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("ablation")
    (folder / "bin").mkdir()
    with quick_python(folder / "bin"):
        yield folder


@pytest.fixture
def table(runner_config: Config, world: Path, folder: Path) -> Path:
    """A table file on the small world with the tiny model."""
    config = runner_config.to_dict()
    for name in ("launcher", "work_dir", "experiment_name"):
        config.pop(name)
    config.update(load_from="nothing.pth", custom_imports=dict(imports=["conftest"]))
    for loader in ("train_dataloader", "test_dataloader"):
        config[loader]["dataset"]["data_root"] = "{{$SMALL_ROOT:nowhere}}"
    write_config(folder / "config.py", config, None)
    path = folder / "small.py"
    path.write_text(TABLE.format(world=world, config=folder / "config.py"))
    return path


class Runner:
    """A runner in a process of its own."""

    def __init__(self, folder: Path, name: str, *arguments: str) -> None:
        self.log = folder / f"{name}.log"
        given = [*map(str, arguments), "--out", str(folder / "out")]
        python = str(folder / "bin" / "python")
        self.process = processes().Process(target=run_ablation, args=(python, given, str(self.log)))
        self.process.start()

    def end(self) -> int:
        """Wait for its end; return its exit status."""
        self.process.join()
        return self.process.exitcode


def starts_of(out: Path) -> dict[Path, int]:
    """How often each step was started, by its folder."""
    return {log.parent: log.read_text().count("$ ") for log in out.rglob("log.txt")}


def wait_for(out: Path, steps: int, runner: Runner) -> None:
    """Wait until so many steps are done."""
    while len(list(out.rglob("done.json"))) < steps:
        assert runner.process.is_alive(), runner.log.read_text()
        time.sleep(0.005)


@pytest.mark.slow
def test_a_table_is_killed_continued_by_two_runners_and_reported(table: Path, folder: Path):
    out = folder / "out"
    killed = Runner(folder, "killed", table, "--jobs", "2")
    wait_for(out, 4, killed)
    killed.process.kill()
    killed.process.join()
    done = {path: path.stat().st_mtime_ns for path in out.rglob("done.json")}
    assert 4 <= len(done) < 14
    interrupted = {path for path in starts_of(out) if not (path / "done.json").is_file()}

    stopped = Runner(folder, "stopped", table, "--jobs", "1")
    wait_for(out, len(done) + 1, stopped)
    os.kill(stopped.process.pid, signal.SIGINT)
    assert stopped.end() == 130
    assert re.search(r"^stopped; what is done is kept. To continue: ", stopped.log.read_text(), re.MULTILINE)
    interrupted |= {path for path in starts_of(out) if not (path / "done.json").is_file()}

    both = [Runner(folder, f"runner{i}", table, "--jobs", "1") for i in range(2)]
    assert [each.end() for each in both] == [0, 0], [each.log.read_text() for each in both]
    counts = starts_of(out)
    assert len(counts) == len(list(out.rglob("done.json"))) == 14  # 2 worlds, 2 + 4 trainings, 6 tests
    assert {path for path, count in counts.items() if count > 1} <= interrupted
    assert {path: path.stat().st_mtime_ns for path in done} == done

    report = json.loads((out / "reports" / "small.json").read_text())
    values = {}
    for row in report["rows"]:
        own = row["tasks"]["retrieval"]
        values[row["name"]] = own["values"]
        assert own["queries"] == {"0": 14, "1": 14}
        assert own["estimates"]["t2v/R@1"]["mean"] == pytest.approx(
            np.mean([each["t2v/R@1"] for each in own["values"].values()])
        )
    trainings = [row["tasks"]["retrieval"]["training"] for row in report["rows"]]
    assert trainings[0] == trainings[1] != trainings[2]
    assert values["lse"] != values["lse-1"]
    kept = read_outcomes(next((out / "runs").glob(f"{trainings[2]}-seed1/test-*")))
    assert 100 * kept["t2v/R@1"].mean() == values["max"]["1"]["t2v/R@1"]
    text = (out / "reports" / "small.md").read_text()
    assert "missing" not in text
    assert text.count("| 2 of 2 |") == 3
    assert cv2.imread(str(out / "reports" / "small.png")).std() > 5
    for private in (str(folder), os.uname().nodename):
        assert private not in text + json.dumps(report)


@pytest.mark.slow
def test_a_row_that_fails_leaves_the_others(table: Path, folder: Path):
    broken = table.with_name("broken.py")
    row = '"broken": dict(overrides={"train_dataloader.dataset.ann_file": "nothing.jsonl"}),\n    "max"'
    broken.write_text(table.read_text().replace('"max"', row, 1))
    runner = Runner(folder, "broken", broken, "--seeds", "0")
    assert runner.end() == 1
    text = runner.log.read_text()
    assert "training of broken, broken, retrieval, seed 0: exit status 1: error: " in text
    log = next(Path(line.strip()) for line in text.splitlines() if line.strip().endswith("log.txt"))
    assert "nothing.jsonl" in log.read_text()
    assert "not run, since a step that it needs is not done: test of broken, broken, retrieval, seed 0" in text
    report = (folder / "out" / "reports" / "broken.md").read_text()
    (row,) = [line for line in report.splitlines() if line.startswith("| ") and "0 of 1" in line]
    assert row.count("missing") == 6  # four metrics, the difference, the time
    assert report.count("| 1 of 1 |") == 3
