"""The scheduler on steps of a shell: order, failures, devices, several runners, and jobs that ask to be run again."""

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import pytest
from ablations import scheduler
from ablations.scheduler import Durations, Scheduler
from ablations.steps import Launcher, Step

from clipbert_mm.fileio import locked


@dataclass
class ShellStep(Step):
    """Runs a line of a shell in its folder."""

    line: str = "true"

    def prepare(self, launcher: Launcher) -> list[str]:
        return ["sh", "-c", f"cd {self.folder} && {self.line}"]

    def work_dir(self) -> Path | None:
        return self.folder / "work" if "work" in self.title else None

    def progress(self) -> float:
        return len(list(self.folder.glob("part*")))


@pytest.fixture
def step(tmp_path: Path) -> Callable[..., ShellStep]:
    def make(name: str, line: str = "true", *needs: Step) -> ShellStep:
        return ShellStep(tmp_path / name, name, name, 0, list(needs), line=line)

    return make


def test_steps_run_after_those_that_they_need(step: Callable):
    first = step("first", "sleep 0.1; touch made")
    second = step("second", "test -f ../first/made", first)
    outcome = Scheduler(Launcher(), [{}, {}]).run([first, second])
    assert [each.title for each in outcome.done] == ["first", "second"]
    assert first.done()["seconds"] >= 0.1


def test_a_failure_leaves_out_what_needs_it_and_nothing_else(step: Callable, capsys: pytest.CaptureFixture):
    broken = step("broken", "echo error: no room >&2; echo some end; exit 3")
    after, last = step("after", "true", broken), step("other", "true")
    again = step("again", "true", after)
    outcome = Scheduler(Launcher(), [{}]).run([broken, after, again, last])
    assert [(each.title, why) for each, why in outcome.failed] == [("broken", "exit status 3: error: no room")]
    assert [each.title for each in outcome.left] == ["after", "again"]
    assert [each.title for each in outcome.done] == ["other"]
    assert "broken: failed" in capsys.readouterr().out
    assert "no room" in broken.log.read_text()


def test_what_needs_a_result_that_is_gone_is_left_out(step: Callable):
    after = step("after", "true", step("gone"))
    assert Scheduler(Launcher(), [{}]).run([after]).left == [after]


def test_each_process_has_its_devices(step: Callable):
    steps = [step(f"s{i}", "sleep 0.05; echo $CUDA_VISIBLE_DEVICES > device") for i in range(4)]
    Scheduler(Launcher(), [{"CUDA_VISIBLE_DEVICES": "3"}, {"CUDA_VISIBLE_DEVICES": "5"}]).run(steps)
    assert {(each.folder / "device").read_text().strip() for each in steps} == {"3", "5"}


def test_two_runners_share_the_steps(step: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduler, "BUSY_SECONDS", 0.05)

    def steps() -> list[ShellStep]:
        first = step("first", "echo x >> count; sleep 0.1")
        return [first, *(step(f"s{i}", "echo x >> count; sleep 0.05", first) for i in range(4))]

    with ThreadPoolExecutor(2) as runners:
        outcomes = list(runners.map(lambda _: Scheduler(Launcher(), [{}]).run(steps()), range(2)))
    assert sum(len(outcome.done) for outcome in outcomes) == 5
    assert {(each.folder / "count").read_text() for each in steps()} == {"x\n"}
    assert all(each.is_done() for each in steps())


def test_a_process_that_outlives_its_runner_is_waited_for(step: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(scheduler, "BUSY_SECONDS", 0.05)
    saves = step("work", "test -f work/saved")
    with ThreadPoolExecutor(1) as runner, locked(saves.folder / "work"):
        outcome = runner.submit(Scheduler(Launcher(), [{}]).run, [saves])
        time.sleep(0.1)
        assert not outcome.done()
        (saves.folder / "work" / "saved").touch()
    assert [each.title for each in outcome.result().done] == ["work"]


def test_a_job_at_its_time_limit_is_run_again_while_it_proceeds(step: Callable):
    proceeds = step("proceeds", "test -f part3 || { touch part$(ls | grep -c part); exit 75; }")
    stands = step("stands", "echo x >> count; exit 75")
    outcome = Scheduler(Launcher(), [{}]).run([proceeds, stands])
    assert [each.title for each in outcome.done] == ["proceeds"]
    assert [each.title for each, _ in outcome.failed] == ["stands"]
    assert (stands.folder / "count").read_text() == "x\n"


def test_a_slurm_job_is_sent_by_the_script_of_the_tools(
    step: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "srun").write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/sent\n')
    (tmp_path / "bin" / "srun").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")
    job = step("job")
    job.gpus = 2
    monkeypatch.setattr(
        job, "prepare", lambda launcher: launcher.command("train", "ab12-seed0", 2, ["c.py", "--seed", "0"])
    )
    assert not Scheduler(Launcher(slurm="gpus"), [{}]).run([job]).failed
    sent = (tmp_path / "sent").read_text()
    assert "--partition=gpus --job-name=ab12-seed0 --ntasks=2" in sent
    assert sent.endswith("train.py c.py --seed 0 --launcher slurm\n")


def test_several_processes_on_this_machine_are_started_by_torchrun():
    train = Launcher().command("train", "name", 4, ["c.py", "--resume"])
    assert train[1].endswith("tools/dist_train.sh")
    assert train[2:] == ["c.py", "4", "--resume"]
    assert Launcher().command("test", "name", 4, ["c.py", "w.pth", "--work-dir"])[2:] == [
        "c.py",
        "w.pth",
        "4",
        "--work-dir",
    ]


def test_the_time_left_is_that_of_other_seeds_or_of_the_kind(step: Callable):
    one, two = step("one"), step("two")
    for each, seconds in ((one, 10.0), (two, 30.0)):
        each.folder.mkdir()
        each.note_done(seconds, Launcher())
    durations = Durations([one, two])
    assert durations.estimate([step("one"), step("new")], 1) == "; 2 steps left, about 30 s"  # 10 + (10 + 30) / 2
    assert durations.estimate([step("two"), step("two")], 2) == "; 2 steps left, about 30 s"
    assert Durations().estimate([one], 1) == "; 1 step left"


def test_where_and_with_what_a_step_was_done_is_noted(step: Callable):
    one = step("one")
    one.folder.mkdir()
    one.note_done(1.0, Launcher())
    packages = dict(package.split() for package in one.done()["packages"].split(", "))
    assert packages["torch"] == version("torch")
    assert one.done()["machine"].endswith(f", {len(os.sched_getaffinity(0))} cores")
    one.note_done(1.0, Launcher(slurm="gpu"))
    assert one.done()["machine"] == "Slurm partition gpu"
