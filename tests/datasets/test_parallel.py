"""Work in processes: every job is answered once, and one that hangs, crashes or raises is told from the others."""

import math
import os
import signal
import time

import pytest

from clipbert_mm.datasets.parallel import Outcome, run_each


@pytest.mark.parametrize(("jobs", "workers"), [(20, 3), (2, 5), (0, 2), (7, 1)])
def test_every_job_is_done_once(jobs: int, workers: int):
    found = list(run_each(math.factorial, range(jobs), workers=workers, timeout=60))
    assert sorted(found) == [Outcome(i, math.factorial(i)) for i in range(jobs)]


def test_a_job_that_hangs_is_named_and_ended():
    start = time.monotonic()
    jobs = [0.01, 300.0, 0.02, 301.0, 0.03]
    found = {each.job: each for each in run_each(time.sleep, jobs, workers=2, timeout=1)}
    assert time.monotonic() - start < 30, "nobody waits for the jobs that hang"
    assert found.keys() == set(jobs)
    for job in (300.0, 301.0):
        assert found.pop(job) == Outcome(job, None, "it took longer than 1 seconds", timed_out=True)
    assert all(each == Outcome(each.job) for each in found.values())


def test_all_processes_may_hang():
    found = list(run_each(time.sleep, [300, 301, 302], workers=3, timeout=0.5))
    assert sorted(each.job for each in found if each.timed_out) == [300, 301, 302]


@pytest.mark.parametrize(
    ("end", "how"), [(signal.SIGSEGV, "signal SIGSEGV"), (signal.SIGKILL, "signal SIGKILL"), (None, "exit code 3")]
)
def test_a_job_that_crashes_is_named(end: signal.Signals | None, how: str):
    function = os._exit if end is None else signal.raise_signal
    jobs = [3, 3, 3] if end is None else [end, signal.SIGCONT, end, signal.SIGCONT]  # SIGCONT does nothing
    found = list(run_each(function, jobs, workers=2, timeout=60))
    crashed = [each for each in found if each.job != signal.SIGCONT]
    assert len(found) == len(jobs)
    assert [each.trouble for each in crashed] == [f"the decoder ended its process ({how})"] * len(crashed)
    assert not any(each.timed_out for each in found)
    assert all(each == Outcome(signal.SIGCONT) for each in found if each.job == signal.SIGCONT)


def test_an_error_of_ours_is_no_trouble_of_the_file():
    with pytest.raises(RuntimeError, match=r"(?s)-1: Traceback .*ValueError"):
        list(run_each(math.sqrt, [1, 4, -1], workers=2, timeout=60))
