"""Mutation testing: change the code in one place at a time, and check that the tests of its room fail.

mutmut generates the mutants. Its own runner leaves out what runs on import (constants, defaults of dataclasses) and decorated
functions, knows no rooms and draws no sample, so this script runs them: one process imports the large libraries once and
forks for each mutant, and a mutant is tested by the tests that execute its lines.

``[tool.mutate]`` of pyproject.toml lists the rooms. Each room has a results file in build/mutation. An interrupted run
resumes; after a change of code or tests it starts over.

    python tools/mutation/mutate.py models evaluation --sample 30 --seed 0
    python tools/mutation/mutate.py --sample 30 --operators number name swap_op keywords if_exp
    python tools/mutation/mutate.py --report
"""

import argparse
import json
import signal
import sys
import tempfile
from pathlib import Path

from forked_tests import ForkedTests
from mutants import OPERATORS, draw_sample, find_mutants

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10; pytest depends on tomli there
    import tomli as tomllib

RESULTS = ("killed", "timeout", "survived")


def read_results(path: Path) -> list[dict]:
    """Read a room's results: a header, then one row per mutant."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def run_room(runner: ForkedTests, name: str, room: dict, path: Path, options: argparse.Namespace) -> None:
    """Run a sample of a room's mutants; resume if the results file has some of them."""
    code, tests = runner.files(room["code"]), runner.files(room["tests"])
    line_coverage = runner.measure(code, tests)
    mutants = [mutant for file in code for mutant in find_mutants(runner.root, file)]
    sample = draw_sample(mutants, options.sample, options.seed, options.operators)
    header = dict(room=name, mutants=len(mutants), seed=options.seed, operators=options.operators)
    header["fingerprint"] = runner.fingerprint()
    old_header, *rows = read_results(path) or [{}]
    if old_header != header:
        reused = {mutant.id for mutant in sample} if options.keep_killed else set()
        rows = [row for row in rows if row["id"] in reused and row["result"] != "survived"]
    path.write_text("".join(json.dumps(row) + "\n" for row in [header, *rows]))
    done = {row["id"] for row in rows}
    for mutant in sample:
        if mutant.id in done:
            continue
        row = {key: getattr(mutant, key) for key in ("id", "file", "line", "operator")} | {"diff": mutant.diff()}
        row |= runner.run(mutant, line_coverage)
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name:12} {row['result']:8} {row['seconds']:6.1f} s  {describe(row)}", flush=True)


def describe(row: dict) -> str:
    """Format a mutant as one line."""
    return f"{row['id']}  {row['file']}:{row['line']}  {row['operator']}: {row['diff']}"


def report(folder: Path) -> str:
    """Format the results of all rooms: a table, then the mutants that survived."""
    table = ["room         mutants   run  killed  timeout  survived  noticed"]
    survivors = ["", "Survivors:"]
    for path in sorted(folder.glob("*.jsonl")):
        header, *rows = read_results(path)
        killed, timeout, survived = (sum(row["result"] == result for row in rows) for result in RESULTS)
        share = f"{(killed + timeout) / len(rows):.1%}" if rows else "-"
        table.append(
            f"{header['room']:12} {header['mutants']:7} {len(rows):5} {killed:7} {timeout:8} {survived:9} {share:>8}"
        )
        survivors += [describe(row) for row in rows if row["result"] == "survived"]
    return "\n".join(table + survivors)


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rooms", nargs="*", help="rooms of pyproject.toml (default: all)")
    parser.add_argument("--sample", type=int, metavar="N", help="mutants per room (default: all)")
    parser.add_argument("--operators", nargs="+", choices=OPERATORS, help="kinds of mutants (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the sample (default: 0)")
    parser.add_argument("--keep-killed", action="store_true", help="after an edit, run only survivors and new mutants")
    parser.add_argument("--report", action="store_true", help="only print the results so far")
    parser.add_argument("--settings", type=Path, default=Path("pyproject.toml"), help="file with the table of rooms")
    parser.add_argument("--results", type=Path, default=Path("build/mutation"), help="folder of the results")
    options = parser.parse_args()
    rooms = tomllib.loads(options.settings.read_text())["tool"]["mutate"]
    if unknown := set(options.rooms) - set(rooms):
        parser.error(f"expected rooms from {', '.join(rooms)}, got {', '.join(sorted(unknown))}")
    folder = options.results.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if not options.report:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))  # ends the tests, too
        with tempfile.TemporaryDirectory() as scratch:
            runner = ForkedTests(Path.cwd(), Path(scratch))
            for name in options.rooms or rooms:
                run_room(runner, name, rooms[name], folder / f"{name}.jsonl", options)
    print(report(folder))


if __name__ == "__main__":
    main()
