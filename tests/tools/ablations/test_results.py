"""Reports that were kept from earlier runs: continued with other seeds, on another machine, by a table that has changed."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ablation_reports import AS_CHOICE, TABLE, report
from ablations.intervals import estimate
from ablations.plan import Plan
from ablations.report import write_reports
from ablations.results import KeptResults, pack, unpack
from ablations.tables import read_table

from clipbert_mm.errors import OptionError


def continued(tmp_path: Path, seeds: tuple[int, ...] = (0, 1, 2), text: str = TABLE) -> tuple[Plan, dict]:
    """The plan of a runner elsewhere that has the reports alone, and its report."""
    (tmp_path / "hand.py").write_text(text)
    table = read_table(tmp_path / "hand.py")
    plan = Plan([table], seeds=seeds, out=tmp_path / "elsewhere", kept=KeptResults(tmp_path / "reports"))
    write_reports(plan, [table], tmp_path / "again")
    return plan, json.loads((tmp_path / "again" / "hand.json").read_text())


def add(plan: Plan, correct: dict[tuple[str, int], list[int]]) -> None:
    """Write the results of tests of questions, by row and seed."""
    for (row, seed), answers in correct.items():
        step = plan.tests["hand", row, "qa", seed]
        step.folder.mkdir(parents=True)
        (step.folder / "outcomes.json").write_text(json.dumps(dict(accuracy=answers)))
        place = dict(machine="NVIDIA H200, 16 cores", packages="torch 3.0, mmengine 0.10.7")
        (step.folder / "done.json").write_text(
            json.dumps(dict(date="2026-02-01T08:00:00", clipbert_mm="0.2.0", seconds=1, **place))
        )


def test_what_is_kept_is_not_run_and_is_reported_as_it_was(tmp_path: Path):
    first = report(tmp_path)[0]
    plan, again = continued(tmp_path)
    assert again == first
    assert len(first["rows"][1]["tasks"]["retrieval"]["outcomes"]) == 3
    assert (tmp_path / "again" / "hand.md").read_text() == (tmp_path / "reports" / "hand.md").read_text()
    tested = {step.title.split(", seed")[0] for step in plan.pending() if step.title.startswith("test")}
    assert tested == {"test of hand, n4, retrieval"}  # the one that was never run


def test_more_seeds_are_added_to_those_that_are_kept(tmp_path: Path):
    report(tmp_path)
    plan, _ = continued(tmp_path, seeds=(0, 1, 2, 3, 4))
    mixed = "Rows of different seeds are compared by Δ"
    correct = {("n1", 3): [0, 0, 0, 1], ("n1", 4): [1, 1, 0, 0], ("n2", 3): [1, 1, 1, 1], ("n2", 4): [1, 1, 0, 0]}
    add(plan, {key: answers for key, answers in correct.items() if key != ("n2", 4)})
    continued(tmp_path, seeds=(0, 1, 2, 3, 4))
    assert mixed in (tmp_path / "again" / "hand.md").read_text()
    add(plan, {("n2", 4): correct["n2", 4]})
    _, again = continued(tmp_path, seeds=(0, 1, 2, 3, 4))
    assert mixed not in (tmp_path / "again" / "hand.md").read_text()
    claim = again["conclusions"][1]["difference"]
    assert claim["seeds"] == 5
    assert claim["mean"] == pytest.approx((25 + 0 + 25 + 75 + 0) / 5)
    half = 2.7764 * np.std([25, 0, 25, 75, 0], ddof=1) / np.sqrt(5)
    assert claim["over_seeds"] == pytest.approx([25 - half, 25 + half])
    for _ in range(2):  # kept again, the report still knows where each seed was run
        assert again["runs"] == dict(
            dates=["2026-01-01", "2026-02-01"],
            releases=["0.1.0", "0.2.0"],
            machines=["CPU, small, 2 cores", "NVIDIA H200, 16 cores"],
            packages=["torch 2.14.1, numpy 2.4.6, mmengine 0.10.7", "torch 3.0, mmengine 0.10.7"],
        )
        runs = again["rows"][0]["tasks"]["qa"]["runs"]
        assert [runs[seed]["machine"].split(",")[0] for seed in "01234"] == ["CPU"] * 3 + ["NVIDIA H200"] * 2
        told = "2026-02-01 by clipbert_mm 0.1.0, 0.2.0; CPU, small, 2 cores and NVIDIA H200, 16 cores; "
        assert f"{told}torch 2.14.1, mmengine 0.10.7, torch 3.0." in (tmp_path / "again" / "hand.md").read_text()
        for name in ("hand.json", "hand.md"):
            (tmp_path / "again" / name).rename(tmp_path / "reports" / name)
        shutil.rmtree(tmp_path / "elsewhere", ignore_errors=True)
        _, again = continued(tmp_path, seeds=(0, 1, 2, 3, 4))


def without_queries(tmp_path: Path) -> dict:
    """A report as they were before they kept what became of each query; returns it as it is now."""
    first = report(tmp_path, AS_CHOICE, as_choice=True)[0]
    old = json.loads(json.dumps(first))
    for row in old["rows"]:
        for task in row["tasks"].values():
            for key in ("outcomes", "runs", "test"):
                task.pop(key)
    old["runs"] = {name: old["runs"][name] for name in ("dates", "releases")}
    old["environment"] = dict(device="CPU, old", cores=4, packages=dict(clipbert_mm="0.1.0", torch="2.0"))
    (tmp_path / "reports" / "hand.json").write_text(json.dumps(old))
    return first


def _numbers(report: Path) -> list[str]:
    """The lines of a report's tables."""
    return [line for line in report.read_text().splitlines() if line.startswith("|")]


def test_a_report_without_queries_stays_as_it_was(tmp_path: Path):
    first = without_queries(tmp_path)
    for _ in range(2):
        _, again = continued(tmp_path, text=AS_CHOICE)
        assert [claim["verdict"] for claim in again["conclusions"]] == [
            each["verdict"] for each in first["conclusions"]
        ]
        told, before = again["conclusions"][1]["difference"], first["conclusions"][1]["difference"]
        assert {key: told[key] for key in before} == before
        assert _numbers(tmp_path / "again" / "hand.md") == _numbers(tmp_path / "reports" / "hand.md")
        (tmp_path / "again" / "hand.json").rename(tmp_path / "reports" / "hand.json")  # kept again
    assert again["rows"][0]["tasks"]["qa"]["outcomes"] == {}  # which query was right is not made up
    assert again["runs"] == dict(
        dates=["2026-01-03"] * 2, releases=["0.1.0"], machines=["CPU, old, 4 cores"], packages=["torch 2.0"]
    )


def test_more_seeds_of_a_report_without_queries_join_its_intervals(tmp_path: Path):
    first = without_queries(tmp_path)["conclusions"][1]["difference"]
    plan, _ = continued(tmp_path, seeds=(0, 1, 2, 3, 4), text=AS_CHOICE)
    correct = {("n1", 3): [0, 0, 0, 1], ("n1", 4): [1, 1, 0, 0], ("n2", 3): [1, 1, 1, 1], ("n2", 4): [1, 1, 0, 0]}
    add(plan, correct)
    _, again = continued(tmp_path, seeds=(0, 1, 2, 3, 4), text=AS_CHOICE)
    claim = again["conclusions"][1]["difference"]
    assert (claim["seeds"], claim["mean"]) == (5, pytest.approx(25))
    outcomes = {row: {s: {"accuracy": np.array(correct[row, s])} for s in (3, 4)} for row in ("n1", "n2")}
    new = estimate({"n2": 1, "n1": -1}, outcomes, "accuracy", shared_queries=False)
    low, high = (
        np.hypot(0.6 * (first["over_queries"][end] - first["mean"]), 0.4 * (new.over_queries[end] - new.mean))
        for end in (0, 1)
    )
    assert claim["over_queries"] == pytest.approx([25 - low, 25 + high])
    (tmp_path / "again" / "hand.json").rename(tmp_path / "reports" / "hand.json")  # kept again, by another runner
    table = read_table(tmp_path / "hand.py")
    last = Plan([table], seeds=range(5), out=tmp_path / "third", kept=KeptResults(tmp_path / "reports"))
    write_reports(last, [table], tmp_path / "again")
    third = json.loads((tmp_path / "again" / "hand.json").read_text())["conclusions"][1]["difference"]
    assert third == claim


def test_a_difference_that_was_not_kept_is_wider_than_a_paired_one(tmp_path: Path):
    first = without_queries(tmp_path)
    kept = json.loads((tmp_path / "reports" / "hand.json").read_text())
    kept["conclusions"] = []  # claims that nobody judged
    (tmp_path / "reports" / "hand.json").write_text(json.dumps(kept))
    _, again = continued(tmp_path, text=AS_CHOICE)
    before, after = (each["conclusions"][1]["difference"] for each in (first, again))
    assert after["over_seeds"] == before["over_seeds"]
    assert after["over_queries"][0] < before["over_queries"][0] < before["over_queries"][1] < after["over_queries"][1]


def test_a_median_of_ranks_without_the_ranks_is_run_again(tmp_path: Path):
    old = report(tmp_path)[0]
    for row in old["rows"]:
        row["tasks"]["retrieval"].pop("outcomes", None)
    (tmp_path / "reports" / "hand.json").write_text(json.dumps(old))
    plan, again = continued(tmp_path)
    assert again["conclusions"][0]["difference"] is None
    assert sum("n1, retrieval" in step.title or "n2, retrieval" in step.title for step in plan.pending()) > 5


def test_a_kept_interval_is_that_of_its_own_results_alone(tmp_path: Path):
    without_queries(tmp_path)
    kept = json.loads((tmp_path / "reports" / "hand.json").read_text())
    claim = kept["conclusions"][1]
    claim["difference"] |= dict(mean=-40.0, over_queries=[-41.0, -39.0])  # of a row that was run again since
    (tmp_path / "reports" / "hand.json").write_text(json.dumps(kept))
    _, again = continued(tmp_path, text=AS_CHOICE)
    difference = again["conclusions"][1]["difference"]
    assert difference["over_queries"][0] < difference["mean"] < difference["over_queries"][1]


def test_a_claim_with_another_margin_is_another_one(tmp_path: Path):
    report(tmp_path)
    (tmp_path / "hand.py").write_text(
        TABLE.replace('better=["n2", "n1"], margin=1.0', 'better=["n2", "n1"], margin=2.0', 1)
    )
    table, kept = read_table(tmp_path / "hand.py"), KeptResults(tmp_path / "reports")
    assert [kept.verdict("hand", claim) for claim in table.claims] == ["undecided"] * 3
    (tmp_path / "hand.py").write_text(TABLE)
    table = read_table(tmp_path / "hand.py")
    assert [kept.verdict("hand", claim) for claim in table.claims] == ["seen", "undecided", "undecided"]


def test_seeds_that_are_kept_are_reported_and_not_run(tmp_path: Path):
    report(tmp_path)
    plan, again = continued(tmp_path, seeds=(5,))
    assert again["seeds"] == [0, 1, 2, 5]
    assert [claim["verdict"] for claim in again["conclusions"]] == ["seen", "undecided", "undecided"]
    assert {step.seed for step in plan.pending()} == {5}


def test_results_of_other_settings_are_not_taken(tmp_path: Path):
    report(tmp_path)
    plan, again = continued(tmp_path, text=TABLE.replace('test={"test_dataloader', 'overrides={"test_dataloader'))
    assert plan.result(("hand", "n1", "qa", 0)) is not None  # no training has changed by it
    plan, again = continued(tmp_path, text=TABLE + 'tasks["qa"]["overrides"] = {"optim_wrapper.optimizer.lr": 1e-4}\n')
    values = {row["name"]: {task: len(each["values"]) for task, each in row["tasks"].items()} for row in again["rows"]}
    assert values == {"n1": dict(retrieval=3, qa=0), "n2": dict(retrieval=3, qa=0), "n4": dict(retrieval=0)}


def test_more_seeds_of_what_is_undecided_alone(tmp_path: Path):
    report(tmp_path)
    table, kept = read_table(tmp_path / "hand.py"), KeptResults(tmp_path / "reports")
    plan = Plan([table], seeds=[0, 3], out=tmp_path / "elsewhere", undecided_only=True, kept=kept)
    tested = sorted(step.title for step in plan.pending() if step.title.startswith("test"))
    assert tested == [
        "test of hand, n1, qa, seed 3",
        "test of hand, n1, retrieval, seed 3",  # for 4 clips on par, which was not run
        "test of hand, n2, qa, seed 3",
        "test of hand, n4, retrieval, seed 0",
        "test of hand, n4, retrieval, seed 3",
    ]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("nowhere", None, "expects a folder with reports of earlier runs"),
        ("kept", "[1]", "is no report of .*TypeError"),
    ],
)
def test_what_is_no_report_is_refused(tmp_path: Path, name: str, text: str | None, message: str):
    if text is not None:
        (tmp_path / name).mkdir()
    if text:
        (tmp_path / name / "table.json").write_text(text)
    with pytest.raises(OptionError, match=message):
        KeptResults(tmp_path / name)


def test_a_damaged_report_is_named(tmp_path: Path):
    broken = report(tmp_path)[0]
    broken["rows"][1]["tasks"]["qa"].pop("seconds")
    (tmp_path / "reports" / "hand.json").write_text(json.dumps(broken))
    with pytest.raises(
        OptionError, match=r"The report of hand in --kept is damaged at row 'n2', qa \(KeyError: 'seconds'\)"
    ):
        continued(tmp_path)


def test_a_damaged_estimate_is_named(tmp_path: Path):
    without_queries(tmp_path)
    kept = json.loads((tmp_path / "reports" / "hand.json").read_text())
    kept["conclusions"][1]["difference"] = dict(average=1.0)
    (tmp_path / "reports" / "hand.json").write_text(json.dumps(kept))
    with pytest.raises(
        OptionError, match=r"A report in --kept is damaged: \{'average': 1.0\} is no estimate of n2 and n1"
    ):
        continued(tmp_path, text=AS_CHOICE)


def test_reports_are_not_read_from_where_they_are_written(
    tool: Callable, tmp_path: Path, capsys: pytest.CaptureFixture
):
    parse = tool("analysis_tools/ablation.py").parse_args
    with pytest.raises(SystemExit):
        parse(["table2", "--out", str(tmp_path), "--kept", str(tmp_path / "reports")])
    assert "which this run writes: copy the reports" in capsys.readouterr().err


def test_undecided_needs_the_reports_that_say_so(tool: Callable, capsys: pytest.CaptureFixture):
    with pytest.raises(SystemExit):
        tool("analysis_tools/ablation.py").parse_args(["table2", "--undecided"])
    assert "--undecided needs --kept FOLDER" in capsys.readouterr().err


def test_outcomes_survive_as_text():
    for values in ([1.0, 0.0, 0.0], [1.0, 12.0, 3.0], [0.333333, 1.0], [1.0]):
        assert unpack(pack(np.array(values))).tolist() == values
