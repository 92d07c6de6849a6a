"""How long short commands take, each in a process of its own, and which packages their imports are of."""

import os
import re
import resource
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from benchmarks.timing import Timing
from clipbert_mm.errors import ClipBertError

IMPORTED = re.compile(r"import time:\s+(\d+) \|\s+\d+ \|\s+([\w.]+)")
"""A line of ``python -X importtime``: microseconds of a module without those that it imports, and its name."""
PACKAGES = 8
"""Most packages that a report lists."""


def time_commands(commands: dict[str, Sequence[str]], *, repeats: int, warmup: int) -> dict[str, dict[str, Any]]:
    """Run commands in turn, several times.

    Args:
        commands: Arguments of Python, by the name of each command.
        repeats: Times that each is run.
        warmup: Times that it is run before, to find files that were not read yet.

    Returns:
        For each, seconds by the clock; ``processor_s``, seconds of user and system time, which another process on the machine
        hardly changes; the number of ``modules``, and ``imports_s``, seconds of imports by package, by the clock, in a run of
        its own.

    Raises:
        ClipBertError: If a command fails.
    """
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    processor: dict[str, list[float]] = {name: [] for name in commands}
    for number in range(warmup + repeats):
        for name, arguments in commands.items():
            before, started = _processor_seconds(), time.perf_counter()
            _run(arguments)
            if number >= warmup:
                seconds[name].append(time.perf_counter() - started)
                processor[name].append(_processor_seconds() - before)
    report = {}
    for name, arguments in commands.items():
        report[name] = (
            Timing(tuple(seconds[name])).to_dict()
            | dict(processor_s=statistics.median(processor[name]))
            | sum_imports(_run(["-X", "importtime", *arguments]))
        )
    return report


def sum_imports(log: str) -> dict[str, Any]:
    """Count the modules in the log of ``python -X importtime``, and add up their seconds by package, the longest first."""
    lines = IMPORTED.findall(log)
    by_package: Counter[str] = Counter()
    for microseconds, module in lines:
        by_package[module.partition(".")[0]] += int(microseconds)
    longest = by_package.most_common(PACKAGES)
    return dict(modules=len(lines), imports_s={package: microseconds / 1e6 for package, microseconds in longest})


def _processor_seconds() -> float:
    """Return the seconds of user and system time of all processes that were started and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _run(arguments: Sequence[str]) -> str:
    """Run Python and return what it wrote to the standard error stream."""
    done = subprocess.run([sys.executable, *map(os.fspath, arguments)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ClipBertError(f"python {' '.join(map(str, arguments))} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stderr
