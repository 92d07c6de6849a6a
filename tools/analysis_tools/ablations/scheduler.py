"""Runs steps in processes of their own, several at a time, each once even with several runners in one folder."""

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from ablations.steps import Launcher, Step
from clipbert_mm.engine.signals import EXIT_AGAIN
from clipbert_mm.errors import BusyFolderError, ClipBertError
from clipbert_mm.fileio import locked

BUSY_SECONDS = 2.0
"""Seconds after which a step that another runner does is looked at again."""
SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""
DONE, DONE_BEFORE, BUSY, STOPPED = "done", "done before", "busy", "stopped"


@dataclass
class Outcome:
    """What came of the steps.

    Args:
        done: Steps that were done now.
        failed: Steps that failed, each with the reason.
        left: Steps that were not run, since one that they need failed, or its result is gone.
    """

    done: list[Step] = field(default_factory=list)
    failed: list[tuple[Step, str]] = field(default_factory=list)
    left: list[Step] = field(default_factory=list)


class Scheduler:
    """Runs steps.

    Args:
        launcher: How trainings and tests are started.
        slots: Environment variables of each of the steps that run at a time.
    """

    def __init__(self, launcher: Launcher, slots: Sequence[Mapping[str, str]]) -> None:
        self.launcher = launcher
        self.slots: queue.SimpleQueue[Mapping[str, str]] = queue.SimpleQueue()
        for slot in slots:
            self.slots.put(slot)
        self.count = len(slots)
        self.children: set[subprocess.Popen[bytes]] = set()
        self.guard = threading.Lock()
        self.stopping = False

    def run(self, steps: Sequence[Step], finished: Sequence[Step] = ()) -> Outcome:
        """Run steps, each when those that it needs are done.

        Args:
            steps: The steps that are to be done, those that others need first.
            finished: Steps that were done before, for estimates.

        Raises:
            KeyboardInterrupt: After Ctrl-C or SIGTERM, when all processes have ended.
        """
        outcome, waiting, durations = Outcome(), list(steps), Durations(finished)
        busy: dict[Path, float] = {}  # when to look at them again
        running: dict[Future[str], Step] = {}
        with _terminated_as_interrupted(), ThreadPoolExecutor(self.count) as pool:
            try:
                while waiting or running:
                    self._leave_out(waiting, outcome)
                    now = time.monotonic()
                    ready = [s for s in waiting if busy.get(s.folder, 0) <= now and all(n.is_done() for n in s.needs)]
                    for step in ready[: self.count - len(running)]:
                        waiting.remove(step)
                        running[pool.submit(self._attempt, step)] = step
                    if not running and not busy:  # no step is left, or what the rest needs is gone
                        outcome.left += waiting
                        break
                    if not running:
                        time.sleep(BUSY_SECONDS)
                        continue
                    ended, _ = wait(running, timeout=BUSY_SECONDS if busy else None, return_when=FIRST_COMPLETED)
                    for future in ended:
                        step = running.pop(future)
                        result = _result(future)
                        if result == BUSY:
                            if step.folder not in busy:
                                print(f"{step.title}: another runner, or a process of one, is at it", flush=True)
                            busy[step.folder] = time.monotonic() + BUSY_SECONDS
                            waiting.append(step)
                            continue
                        busy.pop(step.folder, None)
                        if result in (DONE, DONE_BEFORE):
                            durations.add(step)
                            left = durations.estimate([*waiting, *running.values()], self.count)
                            print(f"{step.title}: {format_seconds(step.done()['seconds'])}{left}", flush=True)
                            outcome.done += [step] if result == DONE else []
                        else:
                            print(f"{step.title}: failed", flush=True)
                            outcome.failed.append((step, result))
            except KeyboardInterrupt:
                self._stop(running)
                raise
        return outcome

    def _leave_out(self, waiting: list[Step], outcome: Outcome) -> None:
        """Leave out the steps that need one that failed or was left out."""
        lost = {step.folder for step, _ in outcome.failed} | {step.folder for step in outcome.left}
        for step in list(waiting):  # those that others need come first
            if any(need.folder in lost for need in step.needs):
                waiting.remove(step)
                outcome.left.append(step)
                lost.add(step.folder)

    def _attempt(self, step: Step) -> str:
        """Do a step; return DONE, DONE_BEFORE, BUSY if another runner does it, or why it failed."""
        slot = self.slots.get()
        try:
            with locked(step.folder):
                if step.is_done():
                    return DONE_BEFORE
                if (work_dir := step.work_dir()) is not None:
                    with locked(work_dir):  # no process of a runner that was killed still saves its state there
                        pass
                return self._do(step, slot)
        except BusyFolderError:
            return BUSY
        finally:
            self.slots.put(slot)

    def _do(self, step: Step, slot: Mapping[str, str]) -> str:
        began = time.monotonic()
        progress = step.progress()
        status = self._run_process(step, slot)
        while status == EXIT_AGAIN and not self.stopping and progress != step.progress():  # a job at its time limit
            progress = step.progress()
            status = self._run_process(step, slot)
        if status == 0:
            step.note_done(time.monotonic() - began, self.launcher)
            return DONE
        return STOPPED if self.stopping else f"exit status {status}: {_reason(step)}"

    def _run_process(self, step: Step, slot: Mapping[str, str]) -> int:
        """Run the process of a step to its end; return its exit status."""
        command = step.prepare(self.launcher)
        environment = {**os.environ, "GPUS": str(step.gpus), **slot}
        environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment.get("PATH", "")])
        with open(step.log, "ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            with self.guard:
                if self.stopping:
                    return EXIT_AGAIN
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the runner, which tells the child once
                    preexec_fn=_end_with_runner,
                )
                self.children.add(child)
        try:
            return child.wait()
        finally:
            with self.guard:
                self.children.remove(child)

    def _stop(self, running: Mapping[Future[str], Step]) -> None:
        """Let the processes save their state and end; a second Ctrl-C kills them."""
        print(
            f"\nstopping {len(running)} processes, which save their state; Ctrl-C again ends them at once", flush=True
        )
        with self.guard:
            self.stopping = True
            for child in self.children:
                child.terminate()
        try:
            wait(running)
        except KeyboardInterrupt:
            with self.guard:
                for child in self.children:
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)
            wait(running)


def _result(future: Future[str]) -> str:
    """Return what came of a step; an error that a user can act on is the reason why it failed."""
    try:
        return future.result()
    except (ClipBertError, OSError) as error:
        return str(error)


_libc = ctypes.CDLL(None)


def _end_with_runner() -> None:
    """Let a child get SIGTERM, at which a training saves its state, if the runner is killed. Works on Linux only."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM, by which a cluster ends a job, as Ctrl-C; outside of the main thread, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Durations:
    """Durations of steps that are done, for estimates: of the same step of other seeds, or else of the same kind.

    Args:
        steps: Steps that are done.
    """

    def __init__(self, steps: Sequence[Step] = ()) -> None:
        self.seconds: dict[str | type, list[float]] = defaultdict(list)
        for step in steps:
            self.add(step)

    def add(self, step: Step) -> None:
        """Add a step that is done."""
        for key in (step.family, type(step)):
            self.seconds[key].append(step.done()["seconds"])

    def estimate(self, steps: Sequence[Step], count: int) -> str:
        """Say how many steps are left and, if one of each kind is done, about how long they take, ``count`` at a time."""
        if not steps:
            return ""
        known = [self.seconds.get(step.family) or self.seconds.get(type(step)) for step in steps]
        text = f"; {format_steps(len(steps))} left"
        if all(known):
            text += f", about {format_seconds(sum(fmean(each) for each in known if each) / min(count, len(steps)))}"
        return text


def format_steps(count: int) -> str:
    """Return a number of steps for people.

    >>> format_steps(1)
    '1 step'
    """
    return f"{count} step{'s' * (count != 1)}"


def format_seconds(seconds: float) -> str:
    """Return a duration for people.

    >>> format_seconds(42.3), format_seconds(600), format_seconds(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _reason(step: Step) -> str:
    """Return the last error that a step's log names, or else its last line that says something."""
    text = "\n" + step.log.read_text(encoding="utf-8", errors="replace")
    lines = [
        line.strip() for line in text.rpartition("\n$ ")[2].splitlines()[1:] if line.strip()
    ]  # of its last process
    errors = [line for line in lines if line.startswith("error: ")]
    return next((line[:300] for line in reversed(errors or lines)), "no output")
