"""Feed damaged and hostile files to the package, each in a process of its own, and say what came of them.

    python tests/damage/run.py [--kinds media images] [--count 300] [--first 0] [--keep FOLDER]

A kind is a module beside this one with three functions: ``prepare(folder)`` writes sound files, ``damage(rng, folder, target)``
damages one of them and returns ``"PATH: what was done"``, ``use(path)`` reads the result as a user's file is read. A file that
is read, or refused by a ClipBertError, is well treated. All else is a fault: a crash, a hang, another exception, more memory
than ``MEMORY``, an endless message, and a change to the sound files, which stand for all that lies elsewhere.
"""

import argparse
import importlib.util
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from clipbert_mm.errors import ClipBertError

KINDS = ("media", "images", "lmdbs", "checkpoints", "galleries", "annotations", "requests")
SECONDS = 60
"""Time that a file may take, in seconds."""
MEMORY = 2 * 2**30
"""Memory that a file may take, in bytes, beyond what the process had before."""
LETTERS = 2000
"""Letters that an error may have; a user's data may be 500 of them."""
WELL = ("read", "named")
"""Outcomes that are no faults."""


@dataclass(frozen=True)
class Outcome:
    """What came of a file.

    Args:
        kind: Kind of the file.
        seed: Seed by which it was damaged.
        what: "read", "named" (refused by a ClipBertError), or the fault.
        damage: What was done to the file.
        said: The error's words, or how the process ended.
    """

    kind: str
    seed: int
    what: str
    damage: str
    said: str


def load_kind(name: str) -> ModuleType:
    """Import the module of a kind."""
    spec = importlib.util.spec_from_file_location(f"damage_{name}", Path(__file__).with_name(f"{name}.py"))
    assert spec is not None, name
    assert spec.loader is not None, name
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def try_kind(name: str, seeds: range, folder: Path) -> Iterator[Outcome]:
    """Damage and read one file for each seed.

    Args:
        name: The kind.
        seeds: The seeds.
        folder: An empty folder to work in.
    """
    kind = load_kind(name)
    sources = folder / "sources"
    sources.mkdir(parents=True)
    kind.prepare(sources)
    before = snapshot(sources)
    for seed in seeds:
        case = folder / f"case_{seed}"
        case.mkdir()
        path, _, damage = kind.damage(random.Random(seed), sources, case / "file").partition(": ")
        what, said = try_file(kind, Path(path))
        if snapshot(sources) != before:
            what, before = "other files changed", snapshot(sources)
        yield Outcome(name, seed, what, f"{Path(path).name}: {damage}", said)
        if what in WELL:
            shutil.rmtree(case, ignore_errors=True)


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Return size and time of change of all files below a folder."""
    found = ((path, path.lstat()) for path in folder.rglob("*"))
    return {str(path): (status.st_size, status.st_mtime_ns) for path, status in found if not path.is_dir()}


def try_file(kind: ModuleType, path: Path) -> tuple[str, str]:
    """Read a file in a child of this process; returns the outcome and the words that go with it."""
    answer, sends = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(answer)
        _read_and_leave(kind, path, sends)
    os.close(sends)
    began, ended, usage = time.monotonic(), 0, None
    with open(answer, "rb") as pipe:
        os.set_blocking(pipe.fileno(), False)
        said = b""
        while not ended:
            if time.monotonic() - began > SECONDS:
                os.kill(child, signal.SIGKILL)
                os.wait4(child, 0)
                return "hang", f"more than {SECONDS} s"
            said += pipe.read() or b""
            ended, status, usage = os.wait4(child, os.WNOHANG)
            time.sleep(0.002)
        said += pipe.read() or b""
    assert usage is not None, "the child has ended"
    if os.WIFSIGNALED(status):
        return "crash", f"signal {signal.Signals(os.WTERMSIG(status)).name}"
    if not said:
        return "crash", f"exit status {os.WEXITSTATUS(status)}"
    what, _, words = said.decode(errors="replace").partition("\n")
    taken = usage.ru_maxrss * 1024 - int(words.partition("\n")[0])
    words = words.partition("\n")[2]
    if what == "named" and len(words) > LETTERS:
        return "endless message", words[:300]
    return ("memory", f"{taken / 2**30:.1f} GiB; {what}: {words}") if taken > MEMORY else (what, words)


def _read_and_leave(kind: ModuleType, path: Path, sends: int) -> None:
    """Read a file in a child, tell what came of it, and end the process."""
    try:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        held = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 3 * MEMORY,) * 2)  # so that the machine lives on
        try:
            kind.use(path)
            what, words = "read", ""
        except ClipBertError as error:
            what, words = "named", f"{type(error).__name__}: {error}"
        except MemoryError:
            what, words = "memory", traceback.format_exc()
        except BaseException as error:  # also what a decoder's binding makes up
            what, words = f"unnamed {type(error).__name__}", traceback.format_exc()
        os.write(sends, f"{what}\n{held}\n{words[-60_000:]}".encode(errors="backslashreplace"))
    finally:
        os._exit(0)


def run(names: list[str], counts: dict[str, int], first: int, keep: Path | None, workers: int) -> list[Outcome]:
    """Try all kinds, each in some processes at a time; returns all outcomes, and prints the faults of each kind."""
    outcomes = []
    for name in names:
        began = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"damage-{name}-") as folder:
            found = _run_shares(name, range(first, first + counts[name]), Path(folder), workers)
            for outcome in (each for each in found if each.what not in WELL):
                _say(f"{outcome.kind} seed {outcome.seed}: {outcome.what}: {outcome.damage}\n  {outcome.said[-1500:]}")
                case = next(Path(folder).glob(f"*/case_{outcome.seed}"), None)
                if keep is not None and case is not None:
                    target = keep / name / str(outcome.seed)
                    shutil.copytree(case, target, symlinks=True, ignore=_pipes, dirs_exist_ok=True)
        sums = ", ".join(f"{count} {what}" for what, count in sorted(Counter(each.what for each in found).items()))
        seeds = f"seeds {first} to {first + counts[name] - 1}"
        _say(f"{name}: {len(found)} files ({seeds}): {sums}; {time.monotonic() - began:.0f} s")
        outcomes += found
    return outcomes


def _pipes(folder: str, names: list[str]) -> list[str]:
    return [name for name in names if Path(folder, name).is_fifo()]


def _run_shares(name: str, seeds: range, folder: Path, workers: int) -> list[Outcome]:
    """Share the seeds of a kind among processes; returns their outcomes in the order of the seeds."""
    logs = [folder / f"outcomes_{i}.jsonl" for i in range(workers)]
    shares = [[name, *map(str, (seeds.start + i, seeds.stop, workers, log))] for i, log in enumerate(logs)]
    children = [subprocess.Popen([sys.executable, __file__, "--share", *share], cwd=folder) for share in shares]
    assert [child.wait() for child in children] == [0] * workers, f"a process of {name} failed"
    found = [Outcome(**json.loads(line)) for log in logs for line in log.read_text().splitlines()]
    assert len(found) == len(seeds), f"{name}: {len(seeds)} files were wanted, got {len(found)}"
    return sorted(found, key=lambda outcome: outcome.seed)


def _run_share(name: str, first: str, stop: str, step: str, log: str) -> None:
    """Try one process's share of the seeds."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what libraries print is no outcome
    with open(log, "w", buffering=1) as outcomes:
        for outcome in try_kind(name, range(int(first), int(stop), int(step)), Path(f"share_{first}").absolute()):
            outcomes.write(json.dumps(vars(outcome)) + "\n")


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run the command line; the exit code is 1 where there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--count", type=int, default=300, help="files of each kind")
    parser.add_argument("--media-count", type=int, help="files of the kind media (default: as of the others)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first seed")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="where files that show a fault are kept")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--share", nargs=5, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.share:
        _run_share(*args.share)
        return 0
    counts = dict.fromkeys(args.kinds, args.count)
    if "media" in counts and args.media_count:
        counts["media"] = args.media_count
    outcomes = run(args.kinds, counts, args.first, args.keep, args.workers)
    faults = [each for each in outcomes if each.what not in WELL]
    _say(f"{len(outcomes)} files, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    tests = Path(__file__).parents[1]
    sys.path[:1] = [str(tests), str(tests.parent / "tools" / "analysis_tools")]  # requests.py beside this is no library
    sys.exit(main())
