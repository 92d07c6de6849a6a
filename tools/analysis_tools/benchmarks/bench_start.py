"""Time from the start of a training to its first step, by phase, and of short commands: help, an import, a search."""

import argparse
import itertools
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from mmengine.config import Config

from benchmarks.command_times import time_commands
from benchmarks.timing import Timing, environment
from clipbert_mm.errors import ClipBertError
from clipbert_mm.visualization.figures import save_figure

PHASES = ("interpreter", "import torch", "other imports", "config", "model", "data", "first batch", "first step")
"""What a training does until its first step is done, in order."""

TRAINING = """
import json, sys, time
times = []
def note():
    times.append((time.time(), time.process_time()))
note()
import torch
note()
from mmengine.hooks import Hook
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner
note()
config = load_config(sys.argv[1])
note()
runner = build_runner(config)
note()

class Stop(Hook):
    priority = "VERY_LOW"
    def before_train_epoch(self, runner):
        note()
    def before_train_iter(self, *arguments, **more):
        note()
    def after_train_iter(self, *arguments, **more):
        note()
        with open(sys.argv[2], "w") as file:
            json.dump(dict(times=times, modules=sorted(sys.modules)), file)
        raise SystemExit

runner.register_hook(Stop())
runner.train()
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be set."""
    parser.add_argument("--repeats", type=int, default=5, help="times that each is started (default: 5)")
    parser.add_argument(
        "--warmup", type=int, default=1, help="starts before, which find files that were not read yet (default: 1)"
    )
    parser.add_argument("--index", type=Path, help="also measure a search in this index")
    parser.add_argument("--text", default="a red circle", help="what is searched for (default: a red circle)")


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Begin a training several times, each in a process of its own, from random weights; run short commands the same way.

    Returns:
        A report of times of each of ``PHASES``, by the clock and by the processor, ``total``, the ``packages`` that were
        imported; and of ``commands``, see :func:`~benchmarks.command_times.time_commands`.

    Raises:
        ClipBertError: If the training ends before its first step, or a command fails.
    """
    config = Config(config.to_dict())
    config.load_from, config.resume, config.log_level = None, False, "ERROR"
    runs = []
    for _ in range(args.warmup + args.repeats):
        with tempfile.TemporaryDirectory() as folder:
            config.work_dir = folder
            runs.append(begin(config, Path(folder)))
    runs = runs[args.warmup :]
    packages = {name.partition(".")[0] for name in runs[-1]["modules"]} - set(sys.stdlib_module_names)
    return dict(
        environment=environment(),
        phases={
            phase: Timing(tuple(run["seconds"][phase] for run in runs)).to_dict()
            | dict(processor_s=statistics.median(run["processor_seconds"][phase] for run in runs))
            for phase in PHASES
        },
        total=Timing(tuple(sum(run["seconds"].values()) for run in runs)).to_dict(),
        modules=len(runs[-1]["modules"]),
        packages=sorted(name for name in packages if not name.startswith("_")),
        commands=time_commands(short_commands(args), repeats=args.repeats, warmup=args.warmup),
    )


def short_commands(args: argparse.Namespace) -> dict[str, list[str]]:
    """Return the arguments of Python of each command that is timed."""
    commands = {
        "import clipbert_mm": ["-c", "import clipbert_mm"],
        "clipbert --help": ["-m", "clipbert_mm", "--help"],
    }
    if args.index is not None:
        commands["clipbert search"] = ["-m", "clipbert_mm", "search", args.text, "--index", str(args.index)]
    return commands


def begin(config: Config, folder: Path) -> dict[str, Any]:
    """Begin a training in a process of its own and end it after its first step.

    Returns:
        ``seconds`` and ``processor_seconds`` of each phase, and the ``modules`` that it had imported.

    Raises:
        ClipBertError: If it ends before.
    """
    config.dump(folder / "config.py")
    started = time.time()
    command = [sys.executable, "-c", TRAINING, str(folder / "config.py"), str(folder / "times.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not (folder / "times.json").is_file():
        raise ClipBertError(f"The training ended before its first step:\n{done.stderr.strip()[-2000:]}")
    found = json.loads((folder / "times.json").read_text())
    ends = [[started, 0.0], *found.pop("times")]
    spans = [(after[0] - before[0], after[1] - before[1]) for before, after in itertools.pairwise(ends)]
    seconds, processor = zip(*spans, strict=True)
    return found | dict(
        seconds=dict(zip(PHASES, seconds, strict=True)), processor_seconds=dict(zip(PHASES, processor, strict=True))
    )


def draw(report: dict[str, Any], out_file: str | Path) -> None:
    """Draw the median of each phase as a bar that begins where the one before ends; below, a bar for each command."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    rows = [*PHASES, *report["commands"]]
    left = 0.0
    for i, name in enumerate(rows):
        timing = report["phases"].get(name) or report["commands"][name]
        width, processor = timing["median_s"], timing["processor_s"]
        begin = left if name in PHASES else 0.0
        axes.barh(len(rows) - i, width, left=begin, color="#4878a8" if name in PHASES else "#a87848")
        axes.annotate(
            f"{width:.2f} s, of the processor {processor:.2f} s",
            (begin + width, len(rows) - i),
            xytext=(4, 0),
            textcoords="offset points",
            va="center",
        )
        left += width
    axes.set_yticks(range(len(rows), 0, -1), rows)
    axes.set_xlabel("seconds from the start of the process")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.3)
    axes.set_title(f"{report.get('config', '')}; {report['environment']['device']}", fontsize=9, loc="left")
    save_figure(figure, out_file)
