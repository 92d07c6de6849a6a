"""Record which lines each test executes, how long it takes, and whether it starts processes."""

import re
import sys
import time
from collections import defaultdict
from collections.abc import Iterator

import coverage
import pytest
from mutants import Mutant

RUNS_PYTHON = re.compile(r"python|clipbert|\.sh")
"""Commands that may run our code."""


def fixture_id(definition: pytest.FixtureDef) -> str:
    """Identify a fixture; the same name may be defined in several places."""
    return f"fixture {definition.argname} of {definition.baseid}"


class CoverageRecorder:
    """Pytest plugin that gives each test, and each fixture shared by several tests, a coverage context of its own."""

    def __init__(self, watch: coverage.Coverage) -> None:
        self.watch = watch
        self.context = ""
        self.seconds: dict[str, float] = {}
        self.fixtures: dict[str, list[str]] = {}
        self.processes: set[str] = set()
        sys.addaudithook(self._audit)

    def _audit(self, event: str, arguments: tuple) -> None:
        """Record that a test starts Python, but not that MMEngine asks for the version of gcc."""
        if event == "os.fork" or (event == "subprocess.Popen" and RUNS_PYTHON.search(str(arguments[:2]))):
            self.processes.add(self.context)

    def _in_context(self, context: str) -> Iterator[None]:
        outer, self.context = self.context, context
        self.watch.switch_context(context)
        try:
            return (yield)
        finally:
            self.context = outer
            self.watch.switch_context(outer)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        """Record a test."""
        definitions = item._fixtureinfo.name2fixturedefs.values()
        self.fixtures[item.nodeid] = [fixture_id(one) for several in definitions for one in several]
        start = time.monotonic()
        result = yield from self._in_context(item.nodeid)
        self.seconds[item.nodeid] = time.monotonic() - start
        return result

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: pytest.FixtureDef) -> Iterator[None]:
        """Record a fixture: as part of its test, or on its own if several tests share it."""
        return (yield from self._in_context(self.context if fixturedef.scope == "function" else fixture_id(fixturedef)))


class LineCoverage:
    """Choose the tests that can notice a mutant.

    A test covers what its fixtures execute, although a fixture of a module or session runs for its first test only.
    Child processes are not measured, so a test that starts some can notice any mutant.
    """

    def __init__(
        self, seconds: dict[str, float], fixtures: dict[str, list[str]], processes: list[str], lines: dict
    ) -> None:
        self.seconds = seconds
        self.processes = {test for test, names in fixtures.items() if {test, *names} & set(processes)}
        users = defaultdict(set)
        for test, names in fixtures.items():
            for name in (test, *names):
                users[name].add(test)
        self._tests = {
            file: {int(line): set().union(*(users[name] for name in names)) for line, names in by_line.items()}
            for file, by_line in lines.items()
        }

    def choose(self, mutant: Mutant) -> list[str]:
        """Return the tests to run: file by file, the fastest first, and those that start processes last."""
        by_line = self._tests.get(mutant.file, {})
        covering = (set().union(*(by_line.get(line, ()) for line in lines)) for lines in mutant.candidate_lines)
        tests = self.processes.union(next(filter(None, covering), ()))
        file_seconds = defaultdict(float)
        for test in tests:
            file_seconds[test.partition("::")[0]] += self.seconds[test]

        def order(test: str) -> tuple:
            file = test.partition("::")[0]
            return test in self.processes, file_seconds[file], file, self.seconds[test]

        return sorted(tests, key=order)
