#!/usr/bin/env python
"""Measure time, memory and FLOPs: python tools/analysis_tools/benchmark.py {load,...} CONFIG."""

import argparse
import importlib
import json
from pathlib import Path

from mmengine.config import DictAction

from clipbert_mm.engine.config import expect_clipbert, load_config
from clipbert_mm.engine.errors import run_tool
from clipbert_mm.structures import written_whole

COMMANDS: dict[str, tuple[str, str]] = {
    "load": ("loading", "videos a second on one core, and where the time goes"),
    "retrieval": ("retrieval", "pairs of texts and clips a second, against a straightforward loop and the matrix rate"),
    "search": ("search", "indexing, a search, and the first answer of the command, and of what they are made"),
    "step": ("step", "time of a training step against N_train and T, and achieved FLOP/s"),
    "gains": ("gains", "time and memory that each way of computing a step gains"),
    "start": ("startup", "time from the start of a training to its first step"),
    "memory": ("memory", "memory of a training step against N_train and T, and the largest batch that fits"),
}
"""Module of clipbert_mm.benchmarks and what it measures, by sub-command."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure; writes a JSON report and a figure of it")
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (module, what) in COMMANDS.items():
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("config", help="config file")
        command.add_argument(
            "--out", type=Path, help="folder of NAME.json and NAME.png (default: work_dirs/benchmarks)"
        )
        command.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
        importlib.import_module(f"clipbert_mm.benchmarks.{module}").add_arguments(command)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Measure, write, draw."""
    args = parse_args(argv)
    config = load_config(args.config, args.cfg_options)
    expect_clipbert(config, "benchmark.py")
    benchmark = importlib.import_module(f"clipbert_mm.benchmarks.{COMMANDS[args.command][0]}")
    report = dict(command=args.command, config=Path(args.config).stem) | benchmark.measure(config, args)
    out = args.out or Path("work_dirs/benchmarks")
    target = out / f"{args.command}_{Path(args.config).stem}.json"
    with written_whole(target) as file:
        json.dump(report, file, indent=2)
    benchmark.draw(report, target.with_suffix(".png"))
    print(f"wrote {target} and {target.with_suffix('.png').name}")


if __name__ == "__main__":
    run_tool(main)
