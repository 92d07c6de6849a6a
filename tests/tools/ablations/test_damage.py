"""Files of a run that are damaged, and folders that cannot be written, are named before anything runs or is written."""

import os
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from ablation_reports import QUESTIONS, TABLE, report
from ablations.plan import Plan
from ablations.scheduler import Outcome
from ablations.steps import Launcher
from ablations.tables import read_table

from clipbert_mm.errors import OptionError


@pytest.fixture
def runner(tool: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The tool, whose steps must not be run."""
    module = tool("analysis_tools/ablation.py")
    monkeypatch.setattr(module.Scheduler, "run", lambda *_: pytest.fail("a step was run"))
    return module


@pytest.mark.parametrize("option", [[], ["--report-only"]])
@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("runs/*/test-*/done.json", "", r"done\.json cannot be used \(JSONDecodeError: .*\)\. Remove it, and the step"),
        ("runs/*/test-*/done.json", "{}", r"done\.json cannot be used \(ValueError: it needs seconds, date, "),
        ("runs/*/done.json", "null", r"seed\d/done\.json cannot be used \(TypeError: .* from its last checkpoint"),
        (
            "runs/*/test-*/outcomes.json",
            '{"accuracy": [1, 0',
            r"outcomes\.json cannot be used .*Remove the folder .*test-",
        ),
        ("runs/*/test-*/outcomes.json", '{"accuracy": 1}', r"outcomes\.json cannot be used \(TypeError"),
        ("reports/old.json", "{", r"reports/old\.json cannot be used \(JSONDecodeError: .*Remove it; --report-only"),
        ("reports/old.json", "[]", r"reports/old\.json cannot be used \(TypeError"),
        ("reports/old.json", '{"conclusions": []}', r"reports/old\.json cannot be used \(KeyError: 'title'"),
    ],
)
def test_a_damaged_file_is_named(
    runner: ModuleType, tmp_path: Path, option: list[str], file: str, text: str, message: str
):
    report(tmp_path)
    out = tmp_path / "out"
    (out / "reports").mkdir()
    damaged = next(iter(sorted(out.glob(file))), out / file)
    damaged.write_text(text)
    with pytest.raises(OptionError, match=message):
        runner.main([str(tmp_path / "hand.py"), "--out", str(out), *option])
    assert not list((out / "reports").glob("hand*"))


def test_a_damaged_report_of_a_benchmark_is_named(runner: ModuleType, tmp_path: Path):
    (tmp_path / "hand.py").write_text(TABLE + f"benchmark = dict(config='{QUESTIONS}', memory=[])\n")
    step = Plan([read_table(tmp_path / "hand.py")], seeds=None, out=tmp_path / "out").benchmarks["hand"]["memory"]
    (step.folder / "report").mkdir(parents=True)
    step.note_done(1.0, Launcher())
    for text in (None, '{"cli'):
        if text:
            (step.folder / "report" / "memory.json").write_text(text)
        with pytest.raises(OptionError, match=r"memory-\w+/report cannot be used .* it is measured again\."):
            runner.main([str(tmp_path / "hand.py"), "--out", str(tmp_path / "out"), "--report-only"])


def test_a_damaged_kept_report_is_named_before_anything_runs(runner: ModuleType, tmp_path: Path):
    report(tmp_path)
    kept = tmp_path / "reports" / "hand.json"
    kept.write_text(kept.read_text().replace('"over_seeds"', '"over"'))
    with pytest.raises(OptionError, match=r"A report in --kept is damaged"):
        runner.main([str(tmp_path / "hand.py"), "--out", str(tmp_path / "other"), "--kept", str(tmp_path / "reports")])
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("option", [[], ["--dry-run"], ["--report-only"]])
@pytest.mark.parametrize("place", ["out", "out/reports", "above"])
def test_a_file_where_a_folder_is_to_be_is_named(runner: ModuleType, tmp_path: Path, option: list[str], place: str):
    (tmp_path / place).parent.mkdir(exist_ok=True)
    (tmp_path / place).write_text("mine")
    out = tmp_path / ("above/out" if place == "above" else "out")
    with pytest.raises(OptionError, match=f"--out {out} expects a folder, and {tmp_path / place} is none"):
        runner.main(["table1", "--on", "shapes", "--out", str(out), *option])
    assert (tmp_path / place).read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_named(runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != tmp_path)  # root may write everywhere
    with pytest.raises(OptionError, match=f"the folder {tmp_path} cannot be written"):
        runner.main(["table1", "--on", "shapes", "--out", str(tmp_path / "new" / "out"), "--dry-run"])
    assert not (tmp_path / "new").exists()


def test_why_steps_failed_is_told_even_if_the_reports_cannot_be_written(
    runner: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    def no_room(*_: object) -> None:
        raise OSError(28, "No space left on device", "index.md")

    monkeypatch.setattr(runner.Scheduler, "run", lambda _, steps, __: Outcome(failed=[(steps[0], "exit status 3")]))
    monkeypatch.setattr(runner, "write_reports", no_room)
    (tmp_path / "hand.py").write_text(TABLE)
    with pytest.raises(OSError, match=r"No space left on device: 'index\.md'"):
        runner.main([str(tmp_path / "hand.py"), "--out", str(tmp_path / "out")])
    assert "1 step failed, 0 not run." in (told := capsys.readouterr().out)
    assert "data, seed 0: exit status 3" in told
