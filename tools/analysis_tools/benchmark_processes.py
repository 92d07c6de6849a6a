#!/usr/bin/env python
"""Measure what several processes cost over one with the same global batch, on the CPU, with training's own log."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

TRAIN = Path(__file__).resolve().parents[1] / "train.py"
WARM_UP = 5
"""Steps of a run that are not counted."""


def seconds_per_step(config: str, processes: int, threads: int, batch: int, epochs: int) -> list[float]:
    """Train in a folder that is thrown away; returns the seconds of each step after the first ones."""
    with tempfile.TemporaryDirectory() as folder:
        options = [
            f"train_dataloader.batch_size={batch // processes}",
            f"train_cfg.max_epochs={epochs}",
            "load_from=None",
            "default_hooks.logger.interval=1",
            "log_processor.window_size=1",
            "default_hooks.checkpoint.interval=-1",
            "default_hooks.checkpoint.save_last=False",
        ]
        command = [str(TRAIN), config, "--work-dir", folder]
        if processes > 1:
            launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
            command = [*launch, *command, "--launcher", "pytorch"]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""}
        command = [sys.executable, *command, "--cfg-options", *options]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
        rows = [
            json.loads(line) for line in next(Path(folder).glob("*/vis_data/scalars.json")).read_text().splitlines()
        ]
        return [row["time"] for row in rows if "loss" in row][WARM_UP:]


def main(argv: list[str] | None = None) -> None:
    """Measure in turns and print the medians and their ratios."""
    parser = argparse.ArgumentParser(description="Several processes against one with the same global batch, on the CPU")
    parser.add_argument("config", help="config of a training that takes seconds an epoch")
    parser.add_argument("--processes", type=int, default=2, help="processes, one thread each (default: 2)")
    parser.add_argument("--batch", type=int, default=32, help="items of a step over all processes (default: 32)")
    parser.add_argument("--epochs", type=int, default=1, help="epochs of a run (default: 1)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each kind, in turns (default: 3)")
    args = parser.parse_args(argv)
    if args.batch % args.processes:
        parser.error(f"--batch has to be a multiple of --processes, got {args.batch} and {args.processes}")
    kinds = {
        "one process, one thread": (1, 1),
        f"one process, {args.processes} threads": (1, args.processes),
        f"{args.processes} processes, one thread each": (args.processes, 1),
    }
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    for _ in range(args.rounds):
        for name, (processes, threads) in kinds.items():
            seconds[name] += seconds_per_step(args.config, processes, threads, args.batch, args.epochs)
    first = statistics.median(seconds["one process, one thread"])
    print(f"{args.batch} items a step, median of {args.rounds} runs in turns")
    for name, own in seconds.items():
        median = statistics.median(own)
        print(f"  {name:<32}{median * 1000:8.1f} ms a step {first / median:6.2f} x   ({len(own)} steps)")


if __name__ == "__main__":
    main()
