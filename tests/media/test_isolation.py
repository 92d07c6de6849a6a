"""Work in processes: every job is answered once, and one that hangs, crashes or raises is told from the others."""

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from clipbert_mm.errors import OptionError
from clipbert_mm.fileio import parse_bytes
from clipbert_mm.media.isolation import Outcome, run_each


@pytest.mark.parametrize(("jobs", "workers"), [(20, 3), (2, 5), (0, 2), (7, 1)])
def test_every_job_is_done_once(jobs: int, workers: int):
    found = list(run_each(math.factorial, range(jobs), workers=workers, timeout=60))
    assert sorted(found) == [Outcome(i, math.factorial(i)) for i in range(jobs)]


def test_a_job_that_hangs_is_named_and_ended():
    jobs = [0.01, 300.0, 0.02, 301.0, 0.03]
    found = {each.job: each for each in run_each(time.sleep, jobs, workers=2, timeout=1)}
    assert found.keys() == set(jobs)
    for job in (300.0, 301.0):
        assert found.pop(job) == Outcome(job, None, "it took longer than 1 seconds", timed_out=True)
    assert all(each == Outcome(each.job) for each in found.values())


def test_all_processes_may_hang():
    found = list(run_each(time.sleep, [300, 301, 302], workers=3, timeout=0.5))
    assert sorted(each.job for each in found if each.timed_out) == [300, 301, 302]


@pytest.mark.parametrize(
    ("end", "how"),
    [
        (signal.SIGSEGV, "signal SIGSEGV"),
        (signal.SIGKILL, "signal SIGKILL, perhaps from the system, which was out of memory"),
        (None, "exit code 3"),
    ],
)
def test_a_job_that_crashes_is_named(end: signal.Signals | None, how: str):
    function = os._exit if end is None else signal.raise_signal
    jobs = [3, 3, 3] if end is None else [end, signal.SIGCONT, end, signal.SIGCONT]  # SIGCONT does nothing
    found = list(run_each(function, jobs, workers=2, timeout=60))
    crashed = [each for each in found if each.job != signal.SIGCONT]
    assert len(found) == len(jobs)
    assert [each.failure for each in crashed] == [f"the decoder ended its process ({how})"] * len(crashed)
    assert not any(each.timed_out for each in found)
    assert all(each == Outcome(signal.SIGCONT) for each in found if each.job == signal.SIGCONT)


def test_an_error_of_ours_is_no_trouble_of_the_file():
    with pytest.raises(RuntimeError, match=r"(?s)-1: Traceback .*ValueError"):
        list(run_each(math.sqrt, [1, 4, -1], workers=2, timeout=60))


def test_errors_that_a_user_can_act_on_come_as_they_are(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "none")):
        list(run_each(os.listdir, [tmp_path / "none"], workers=1, timeout=60))
    with pytest.raises(OptionError, match=r"^Expected a size of memory such as '4GiB' or '500MiB', got 'much'\.$"):
        list(run_each(parse_bytes, ["much"], workers=1, timeout=60))


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux's bound on memory, or its /proc")


@linux
def test_l1_a_job_that_takes_all_memory_is_named():
    found = list(run_each(bytes, [100, 1 << 40, 200, 300 << 20], workers=1, timeout=60, memory=200 << 20))
    failures = {each.job: each.failure for each in found}
    assert failures.pop(1 << 40) == failures.pop(300 << 20) == "it needs more than 0.195 GiB of memory"
    assert failures == {100: "", 200: ""}


@linux
def test_no_process_outlives_the_one_that_asked(tmp_path: Path):
    script = "import os, sys, time; from clipbert_mm.media.isolation import run_each\n"
    script += "def work(file):\n    with open(file, 'a') as f: print(os.getpid(), file=f)\n    time.sleep(300)\n"
    (tmp_path / "script.py").write_text(
        script + "if __name__ == '__main__': list(run_each(work, sys.argv[1:], workers=2, timeout=600))\n"
    )
    files = [tmp_path / "a", tmp_path / "b"]
    child = subprocess.Popen([sys.executable, tmp_path / "script.py", *files])
    while not all(file.exists() and file.read_text() for file in files):
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    workers = [int(file.read_text()) for file in files]
    for _ in range(3000):
        if not any(Path(f"/proc/{number}").exists() for number in workers):
            return
        time.sleep(0.01)
    raise AssertionError("they go on")
