#!/usr/bin/env python
"""Open every video of a dataset and write down what is found: python tools/analysis_tools/scan_videos.py CONFIG|FOLDER."""

import argparse
import os
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from length_figures import draw_average_lengths, draw_durations
from scanning import (
    Limits,
    config_files,
    describe_lengths,
    folder_files,
    scan,
)

from clipbert_mm.datasets.ledger import STATUSES, ledger_path
from clipbert_mm.engine.config import expect_clipbert, load_config
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.errors import printable
from clipbert_mm.fileio import locked

SHOWN = 10
"""How many files of a status are named on the screen."""


def find_files(targets: list[str]) -> dict[str, dict[str, dict[str, Any]]]:
    """Return the files of each dataset, by its name, with what opens them."""
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for target in targets:
        name, is_named, path = target.partition("=")
        name, path = (name, path) if is_named else ("", target)
        if path.endswith((".py", ".json", ".yaml", ".yml")):
            config = load_config(path, needs=())
            expect_clipbert(config, "scan_videos.py")
            datasets = config_files(config)
        else:
            datasets = {os.path.basename(os.path.normpath(path)): folder_files(path)}
        for own, files in datasets.items():
            found.setdefault(name or own, {}).update(files)
    return found


def reporter() -> Callable[[int, int], None]:
    """Say every ten seconds how far it is."""
    start = last = time.monotonic()

    def report(done: int, total: int) -> None:
        nonlocal last
        if time.monotonic() - last > 10:
            last = time.monotonic()
            print(f"{done:,} of {total:,} files after {last - start:.0f} s", flush=True)

    return report


def summarize(entries: list[dict[str, Any]]) -> None:
    """Print how many files have which status, and the first of those that are not as usual."""
    counts = Counter(entry["status"] for entry in entries)
    print("  ".join(f"{status}: {counts[status]:,}" for status in STATUSES))
    for status in STATUSES[1:]:
        own = [entry for entry in entries if entry["status"] == status]
        for entry in own[:SHOWN]:
            print(f"  {status}: {printable(entry['path'])}: {entry['reason']}")
        if len(own) > SHOWN:
            print(f"  {status}: {len(own) - SHOWN:,} more, see the ledger")


def main(argv: list[str] | None = None) -> None:
    """Scan."""
    parser = argparse.ArgumentParser(
        description="Open every video or image in parallel, decode its first, middle and last frame, and write ledger.jsonl, "
        "which datasets take to leave files out, durations.png, and, of several datasets, average_lengths.png. Run again, it "
        "looks only at what is new or has changed, was missing or took too long."
    )
    parser.add_argument(
        "targets",
        nargs="+",
        metavar="[NAME=]CONFIG|FOLDER",
        help="a config, for the files of all its datasets, or a folder or LMDB; NAME is for the pictures",
    )
    usual = Limits()
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes (default: one a core)")
    parser.add_argument("--timeout", type=float, default=20, help="seconds that one file may take (default: 20)")
    parser.add_argument("--out", default="work_dirs/scan", help="folder of the ledger (default: work_dirs/scan)")
    parser.add_argument("--min-seconds", type=float, default=usual.min_seconds, help="shorter videos are too short")
    parser.add_argument("--fps", type=float, nargs=2, default=(usual.min_fps, usual.max_fps), metavar=("MIN", "MAX"))
    parser.add_argument("--max-aspect-ratio", type=float, default=usual.max_aspect_ratio, metavar="RATIO")
    args = parser.parse_args(argv)
    datasets = find_files(args.targets)
    files = {path: opener for own in datasets.values() for path, opener in own.items()}
    limits = Limits(
        min_seconds=args.min_seconds,
        min_fps=args.fps[0],
        max_fps=args.fps[1],
        max_aspect_ratio=args.max_aspect_ratio,
    )
    out = Path(args.out)
    with locked(out):
        entries = scan(
            files, out / "ledger.jsonl", workers=args.workers, timeout=args.timeout, limits=limits, report=reporter()
        )
    summarize(entries)
    known = {entry["path"]: entry["seconds"] for entry in entries if entry["fps"] is not None}
    seconds = {
        name: [known[path] for path in map(ledger_path, own) if path in known] for name, own in sorted(datasets.items())
    }
    seconds = {name: values for name, values in seconds.items() if values}  # not those of images
    written = ["ledger.jsonl"]
    for name, values in seconds.items():
        print(f"{name}: {describe_lengths(values)}")
    if seconds:
        draw_durations(seconds, out / "durations.png")
        written.append("durations.png")
    if len(seconds) > 1:
        draw_average_lengths(seconds, out / "average_lengths.png")
        written.append("average_lengths.png")
    print(f"wrote {', '.join(written)} to {out}")


if __name__ == "__main__":
    run_tool(main)
