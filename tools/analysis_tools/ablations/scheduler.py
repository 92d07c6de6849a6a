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
from contextlib import contextmanager
from dataclasses import dataclass, field
from statistics import fmean

from ablations.steps import Launcher, Step
from clipbert_mm.errors import BusyFolderError, ClipBertError
from clipbert_mm.fileio import locked

BUSY_SECONDS = 2.0
"""Seconds after which a step that another runner does is looked at again."""
SET_PARENT_DEATH_SIGNAL = 1
"""PR_SET_PDEATHSIG of Linux's prctl."""


@dataclass
class Outcome:
    """What came of the steps.

    Args:
        done: Steps that were done now.
        failed: Steps that failed, with the reason.
        left: Steps that were not run since one that they need failed, with its name.
    """

    done: list[Step] = field(default_factory=list)
    failed: dict[str, tuple[Step, str]] = field(default_factory=dict)
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
        self.children: dict[int, subprocess.Popen[bytes]] = {}
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
        outcome, waiting, again = Outcome(), list(steps), {}
        durations: dict[str, list[float]] = defaultdict(list)
        for step in finished:
            _note_duration(durations, step)
        running: dict[Future[str | None], Step] = {}
        with _terminated_as_interrupted(), ThreadPoolExecutor(self.count) as pool:
            try:
                while waiting or running:
                    now = time.monotonic()
                    for step in [s for s in waiting if again.get(s.folder, 0) <= now][:]:
                        if len(running) == self.count:
                            break
                        broken = [
                            other
                            for other in step.needs
                            if other in outcome.left or str(other.folder) in outcome.failed
                        ]
                        if broken:
                            waiting.remove(step)
                            outcome.left.append(step)
                        elif all(other.is_done() for other in step.needs):
                            waiting.remove(step)
                            running[pool.submit(self._attempt, step)] = step
                    if not running:
                        time.sleep(BUSY_SECONDS if waiting else 0)
                        continue
                    ended, _ = wait(running, timeout=BUSY_SECONDS if again else None, return_when=FIRST_COMPLETED)
                    for future in ended:
                        step = running.pop(future)
                        self._take(step, future, outcome, durations, waiting, again, list(running.values()))
            except KeyboardInterrupt:
                self._stop(running)
                raise
        return outcome

    def _take(self, step, future, outcome, durations, waiting, again, running) -> None:
        """Take in what came of one step."""
        try:
            state = future.result()
        except (ClipBertError, OSError) as error:
            state = str(error)
        if state == "busy":
            if step.folder not in again:
                print(f"{step.title}: another runner does it", flush=True)
            again[step.folder] = time.monotonic() + BUSY_SECONDS
            waiting.append(step)
            return
        again.pop(step.folder, None)
        if state is not None and state != "there":
            outcome.failed[str(step.folder)] = (step, state)
            print(f"{step.title}: failed", flush=True)
            return
        _note_duration(durations, step)
        if state is None:
            outcome.done.append(step)
            left = estimate_seconds(durations, [*waiting, *running], self.count)
            print(f"{step.title}: {format_seconds(step.done()['seconds'])}{left}", flush=True)

    def _attempt(self, step: Step) -> str | None:
        """Do a step; return None, "there" if it was done already, "busy" if another runner does it, or why it failed."""
        slot = self.slots.get()
        try:
            with locked(step.folder):
                if step.is_done():
                    return "there"
                return self._do(step, slot)
        except BusyFolderError:
            return "busy"
        finally:
            self.slots.put(slot)

    def _do(self, step: Step, slot: Mapping[str, str]) -> str | None:
        command = step.prepare(self.launcher)
        environment = {**os.environ, "GPUS": str(step.gpus), **slot}
        environment["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), environment.get("PATH", "")])
        began = time.monotonic()
        with open(step.log, "ab") as log:
            log.write(f"$ {' '.join(command)}\n".encode())
            log.flush()
            with self.guard:
                if self.stopping:
                    return "stopped"
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    start_new_session=True,  # Ctrl-C is for the runner, which passes it on once
                    preexec_fn=_end_with_runner,
                )
                self.children[child.pid] = child
        try:
            status = child.wait()
        finally:
            with self.guard:
                del self.children[child.pid]
        if status != 0:
            return "stopped" if self.stopping else f"exit status {status}: {_last_line(step)}\n    {step.log}"
        step.note_done(time.monotonic() - began)
        return None

    def _stop(self, running: Mapping[Future[str | None], Step]) -> None:
        """Let the processes save their state and end; a second Ctrl-C ends them at once."""
        print(
            f"\nstopping {len(running)} processes, which save their state; Ctrl-C again ends them at once", flush=True
        )
        with self.guard:
            self.stopping = True
        self._signal(signal.SIGINT)
        while True:
            try:
                wait(running)
                return
            except KeyboardInterrupt:
                self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        with self.guard:
            for child in self.children.values():
                if child.poll() is None:
                    os.killpg(child.pid, number)


_libc = ctypes.CDLL(None)


def _end_with_runner() -> None:
    """Let a child get SIGTERM, at which a training saves its state, if the runner is killed. Works on Linux only."""
    if hasattr(_libc, "prctl"):
        _libc.prctl(SET_PARENT_DEATH_SIGNAL, signal.SIGTERM)


@contextmanager
def _terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM, by which a cluster ends a job, as Ctrl-C."""
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


def _note_duration(durations: dict[str, list[float]], step: Step) -> None:
    if step.is_done():
        seconds = step.done()["seconds"]
        durations[step.family].append(seconds)
        durations[type(step).__name__].append(seconds)


def estimate_seconds(durations: Mapping[str, Sequence[float]], steps: Sequence[Step], count: int) -> str:
    """Say how long some steps take, by the same step of other seeds or else by the mean of its kind."""
    if not steps:
        return ""
    known = [durations.get(step.family) or durations.get(type(step).__name__) for step in steps]
    text = f"; {len(steps)} steps left"
    if all(known):
        text += f", about {format_seconds(sum(fmean(each) for each in known if each) / min(count, len(steps)))}"
    return text


def format_seconds(seconds: float) -> str:
    """Return a duration for people.

    >>> format_seconds(42.3), format_seconds(600), format_seconds(9000)
    ('42 s', '10 min', '2.5 h')
    """
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _last_line(step: Step) -> str:
    """Return the last line of a step's log that says something."""
    lines = [line.strip() for line in step.log.read_text(encoding="utf-8", errors="replace").splitlines()]
    return next((line[:160] for line in reversed(lines) if line and not line.startswith("$ ")), "")
