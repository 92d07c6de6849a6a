"""Run tests in forks of one process that has imported the large libraries."""

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path

import coverage
import pytest
from line_coverage import CoverageRecorder, LineCoverage
from mutants import Mutant

LIBRARIES = ("torch", "cv2", "av", "mmengine.runner", "transformers.models.bert.modeling_bert", "mmpretrain.models")
"""What takes seconds to import, and nothing of clipbert_mm."""
ROOM_LIMIT = 1800
"""Seconds that all tests of a room may take."""


class TestSelection:
    """Pytest plugin that runs the given tests in the given order and records the first failure."""

    def __init__(self, tests: list[str]) -> None:
        self.order = {test: i for i, test in enumerate(tests)}
        self.failed = ""

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Select and sort."""
        items[:] = sorted(
            (item for item in items if item.nodeid in self.order), key=lambda item: self.order[item.nodeid]
        )

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Record a failure."""
        if report.failed:
            self.failed = self.failed or report.nodeid


class ForkedTests:
    """A copy of the working tree, where files are mutated and tests run.

    Args:
        source: The working tree.
        folder: An empty folder for the copy and for what the tests write.
    """

    def __init__(self, source: Path, folder: Path) -> None:
        self.root = folder / "tree"
        self.answer = folder / "answer.json"
        self.log = folder / "log"
        listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        for name in subprocess.run(listing, cwd=source, capture_output=True, check=True, text=True).stdout.split("\0")[
            :-1
        ]:
            if (source / name).is_file() or (source / name).is_symlink():
                (self.root / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, self.root / name, follow_symlinks=False)
        os.chdir(self.root)
        sys.path.insert(0, str(self.root))
        os.environ.update(PYTHONPATH=str(self.root), CUDA_VISIBLE_DEVICES="", HF_HUB_OFFLINE="1")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in LIBRARIES:
                import_module(name)

    def fingerprint(self) -> str:
        """Hash code and tests."""
        files = sorted(path for folder in ("clipbert_mm", "tests") for path in (self.root / folder).rglob("*.py"))
        texts = (f"{path.relative_to(self.root)}\n{path.read_text()}\n" for path in files)
        return hashlib.sha256("".join(texts).encode()).hexdigest()

    def files(self, patterns: list[str]) -> list[str]:
        """List the files that match any of the glob patterns."""
        return sorted(str(file.relative_to(self.root)) for pattern in patterns for file in self.root.glob(pattern))

    def measure(self, code: list[str], tests: list[str]) -> LineCoverage:
        """Run all tests of a room, and the doctests of its code, without a mutant."""

        def work() -> int:
            watch = coverage.Coverage(
                data_file=None, config_file=False, include=[str(self.root / file) for file in code]
            )
            watch.start()
            recorder = CoverageRecorder(watch)
            status = self._pytest([*tests, *code], recorder)
            watch.stop()
            data = watch.get_data()
            lines = {
                str(Path(file).relative_to(self.root)): data.contexts_by_lineno(file) for file in data.measured_files()
            }
            recorded = dict(seconds=recorder.seconds, fixtures=recorder.fixtures, processes=list(recorder.processes))
            self.answer.write_text(json.dumps(recorded | dict(lines=lines)))
            return status

        sys.dont_write_bytecode = False  # compile once for all runs that follow
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        status = self._fork(work, ROOM_LIMIT)
        sys.dont_write_bytecode = True
        os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
        if status != 0:
            sys.exit(
                f"{self.log.read_text()}\nExpected the room's tests to pass without a mutant, pytest ended with {status}."
            )
        return LineCoverage(**json.loads(self.answer.read_text()))

    def run(self, mutant: Mutant, line_coverage: LineCoverage) -> dict:
        """Run the tests that can notice a mutant.

        Returns:
            ``result`` ("killed", "timeout" or "survived"), ``killed_by``, how many ``tests`` were chosen, and ``seconds``.
        """
        tests = line_coverage.choose(mutant)
        limit = 30 + 3 * sum(line_coverage.seconds[test] for test in tests)

        def work() -> int:
            selection = TestSelection(tests)
            files = dict.fromkeys(test.partition("::")[0] for test in tests)
            for (
                file
            ) in files:  # doctest modules: pytest itself would import them a second time, and register them twice
                if file.startswith("clipbert_mm/"):
                    import_module(file.removesuffix("/__init__.py").removesuffix(".py").replace("/", "."))
            status = self._pytest(["--exitfirst", *files], selection)
            self.answer.write_text(json.dumps(selection.failed))
            return status

        path = self.root / mutant.file
        original, mtime = path.read_bytes(), path.stat().st_mtime
        self.answer.write_text('""')
        start = time.monotonic()
        try:
            path.write_text(mutant.code())
            os.utime(path, (mtime + 1000, mtime + 1000))  # so that the .pyc of the original does not match
            status = self._fork(work, limit) if tests else 0
        finally:
            path.write_bytes(original)
            os.utime(path, (mtime, mtime))
        result = {0: "survived", None: "timeout"}.get(status, "killed")
        killed_by = json.loads(self.answer.read_text()) or ("import" if result == "killed" else "")
        return dict(result=result, killed_by=killed_by, tests=len(tests), seconds=round(time.monotonic() - start, 1))

    def _pytest(self, arguments: list[str], plugin: object) -> int:
        """Run pytest in this process, without a cache."""
        return pytest.main(
            ["-p", "no:cacheprovider", f"--basetemp={self.root.parent / 'scratch'}", *arguments], [plugin]
        )

    def _fork(self, work: Callable[[], int], limit: float) -> int | None:
        """Run a function in a fork, then kill all that it started.

        Returns:
            The exit status, or None after ``limit`` seconds.
        """

        def child() -> None:
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            with suppress(OSError):  # outside Linux
                Path("/proc/self/oom_score_adj").write_text("1000")  # a mutant that takes all memory is killed first
            log = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(log, 1)
            os.dup2(log, 2)
            status = 70
            try:
                status = int(work())
            finally:
                sys.stdout.flush()
                os._exit(status)  # do not wait for threads

        process = multiprocessing.get_context("fork").Process(target=child)
        process.start()
        try:
            process.join(limit)
        finally:
            status = process.exitcode
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.join()
        return status
