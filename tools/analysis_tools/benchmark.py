#!/usr/bin/env python
"""Measure time, memory and FLOPs: python tools/analysis_tools/benchmark.py {load,...} CONFIG."""

import argparse
import importlib
import json
from pathlib import Path

from mmengine.config import Config, DictAction

from clipbert_mm.engine.config import expect_clipbert, load_config
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.fileio import atomic_write

COMMANDS: dict[str, tuple[str, str]] = {
    "load": ("bench_load", "videos a second on one core, and where the time goes"),
    "adapters": ("bench_adapters", "the share of adapters to and from MMAction2's transforms in the time of loading"),
    "retrieval": (
        "bench_retrieval",
        "pairs of texts and clips a second, against a straightforward loop and the matrix rate",
    ),
    "public": ("bench_public", "public image-text models: pairs against the library's own loop, and indexing"),
    "vectors": ("bench_vectors", "searching vectors of clips: engines for it, their times, memory, disk and recall"),
    "index": (
        "bench_index",
        "an index of 100,000 generated videos: adding, searching, filters, removing, memory, disk",
    ),
    "search": ("bench_search", "indexing, a search, and the first answer of the command, and of what they are made"),
    "step": ("bench_step", "time of a training step against N_train and T, and achieved FLOP/s"),
    "gains": ("bench_speedups", "time and memory that each way of computing a step gains"),
    "start": ("bench_start", "time from the start of a training to its first step, and of short commands"),
    "memory": ("bench_memory", "memory of a training step against N_train and T, and the largest batch that fits"),
}
"""Module of the package benchmarks and what it measures, by sub-command."""
WITHOUT_CONFIG = {"public": "Hugging Face folder or name", "vectors": "", "index": ""}
"""What a sub-command measures that needs no config; empty if it is generated."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure; writes a JSON report and a figure of it")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        measured = WITHOUT_CONFIG.get(name, "config file")
        if measured:
            command.add_argument("config", metavar="MODEL" if name in WITHOUT_CONFIG else None, help=measured)
        else:
            command.set_defaults(config="generated")
        command.add_argument(
            "--out", type=Path, help="folder of NAME.json and NAME.png (default: work_dirs/benchmarks)"
        )
        if name not in WITHOUT_CONFIG:
            command.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
        importlib.import_module(f"benchmarks.{module}").add_arguments(command)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure, write, draw."""
    args = parse_args(argv)
    config = Config()
    if args.command not in WITHOUT_CONFIG:
        config = load_config(args.config, args.cfg_options)
        expect_clipbert(config, "benchmark.py")
    benchmark = importlib.import_module(f"benchmarks.{COMMANDS[args.command][0]}")
    report = dict(command=args.command, config=Path(args.config).stem) | benchmark.measure(config, args)
    out = args.out or Path("work_dirs/benchmarks")
    target = out / f"{args.command}_{Path(args.config).stem}.json"
    with atomic_write(target) as file:
        json.dump(report, file, indent=2)
    benchmark.draw(report, target.with_suffix(".png"))
    print(f"wrote {target} and {target.with_suffix('.png').name}")


if __name__ == "__main__":
    run_tool(main)
