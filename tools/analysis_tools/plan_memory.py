#!/usr/bin/env python
"""Find the micro-batch with which a training fits a GPU: python tools/analysis_tools/plan_memory.py CONFIG [CONFIG ...].

For each config and size of memory it prints the N of ``tools/train.py CONFIG --amp bf16 --micro-batch N``: the largest one that
divides the config's batch and fits. A tensor counts from its making to its end, in a forward and a backward pass that is not
computed (``benchmark.py memory``); to it come the gradients, those that several processes exchange, and AdamW's state. A fifth
of the memory is left for what is not counted, and 1 GB for CUDA.
"""

import argparse
from dataclasses import dataclass

from benchmarks.bench_memory import counted_peak, read_bytes
from benchmarks.flops import step_flops
from benchmarks.memory_tracker import without_computing
from benchmarks.workload import PRECISIONS, build_model, read_setting
from mmengine.config import Config, DictAction

from clipbert_mm.engine.config import expect_clipbert, load_config
from clipbert_mm.engine.out_of_memory import ADAM_STATES
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.registry import type_name

MEMORY = ("16GB", "24GB", "40GB", "80GB")
SHARE, CUDA = 0.8, 10**9
"""The share of a GPU's memory that is counted on, and the bytes that CUDA itself takes."""
HELD = ADAM_STATES + 2
"""Numbers for each trained parameter: AdamW's, the accumulated gradient, and that in the buckets of several processes."""


@dataclass(frozen=True)
class Plan:
    """What a training takes.

    Args:
        peaks: The peak in bytes by micro-batch, each a divisor of the config's batch size.
        flops: Floating-point operations of a step for an item, forward and backward (a multiply-add is two).
    """

    peaks: dict[int, float]
    flops: float

    def micro_batch(self, memory: float) -> int:
        """Return the largest micro-batch that fits; 0 if none does."""
        limit = SHARE * memory - CUDA
        return max((size for size, peak in self.peaks.items() if peak <= limit), default=0)


def plan(config: Config, precision: str) -> Plan:
    """Count memory and operations of a config's training step without computing it."""
    own = dict.fromkeys(("clips", "frames", "texts", "size"))
    setting = read_setting(config, argparse.Namespace(batch=1, text_length=text_length(config), **own))
    batch = config.train_dataloader.batch_size
    model = build_model(config, "cpu")
    more = HELD * sum(each.numel() * each.element_size() for each in model.parameters() if each.requires_grad)
    with without_computing(model, "cpu"):
        with step_flops() as counter:
            peaks = {1: counted_peak(model, setting, precision, "cpu") + more}
        for size in range(2, batch + 1):
            if batch % size == 0:
                peaks[size] = counted_peak(model, setting.but(batch=size), precision, "cpu") + more
    return Plan(peaks, counter.get_total_flops())


def text_length(config: Config) -> int:
    """Return the most tokens that a text of the training data has."""
    dataset = config.train_dataloader.dataset
    steps = dataset.get("datasets", [dataset])[0].pipeline
    return next(step["max_length"] for step in steps if type_name(step) == "Tokenize")


def main(argv: list[str] | None = None) -> None:
    """Plan, and print a table."""
    parser = argparse.ArgumentParser(description="The micro-batch with which each training fits a GPU's memory")
    parser.add_argument("configs", nargs="+", metavar="CONFIG", help="config files")
    parser.add_argument(
        "--memory", nargs="+", type=read_bytes, default=[read_bytes(each) for each in MEMORY], metavar="SIZE",
        help=f"memory of a GPU (default: {' '.join(MEMORY)})",
    )  # fmt: skip
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16", help="default: bf16; fp16 takes as much")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    args = parser.parse_args(argv)
    print("| config | TFLOP per item |", *(f"{memory / 1e9:g} GB |" for memory in args.memory))
    print("| --- |" + " --- |" * (1 + len(args.memory)))
    for path in args.configs:
        config = load_config(path, args.cfg_options, needs=("model", "train_dataloader"))
        expect_clipbert(config, "plan_memory.py")
        found = plan(config, args.precision)
        sizes = [found.micro_batch(memory) for memory in args.memory]
        cells = [f"{size} ({found.peaks[size] / 1e9:.1f} GB)" if size else "none" for size in sizes]
        print(f"| {path} | {found.flops / 1e12:.2f} |", " | ".join(cells), "|", flush=True)


if __name__ == "__main__":
    run_tool(main)
