#!/usr/bin/env python
"""How long writing a checkpoint keeps training waiting: the paper's model with AdamW's state, on this machine's disk.

python tools/analysis_tools/benchmark_checkpoints.py [FOLDER]
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner.checkpoint import save_checkpoint

from clipbert_mm.checkpoint import verify_checkpoint, write_checkpoint
from clipbert_mm.engine.config import load_config
from clipbert_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[2]
CONFIG = ROOT / "configs/retrieval/clipbert_r50_8xb16-8x2-20e_msrvtt.py"
STEPS = 140_000 // 128
"""Of an epoch of that config: 7,000 videos with 20 captions, batches of 16 on 8 GPUs."""


def seconds(function: Callable[[], object], repeats: int) -> list[float]:
    """Time a call several times."""
    found = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        found.append(time.perf_counter() - began)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time of writing a checkpoint of the paper's size")
    parser.add_argument("folder", nargs="?", help="where to write (default: the system's folder for temporary files)")
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    init_default_scope("clipbert_mm")
    config = load_config(str(CONFIG))
    model = MODELS.build(config.model)
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter) if parameter.requires_grad else None
    wrapper.optimizer.step()
    content = dict(state_dict=model.state_dict(), optimizer=wrapper.state_dict())
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        ours, theirs = os.path.join(folder, "ours.pth"), os.path.join(folder, "theirs.pth")
        size = write_checkpoint(content, ours) / 1e6
        written, mmengine, checked = [], [], []
        for _ in range(args.repeats):  # in turn, so that what else the machine does hits each alike
            written += seconds(lambda: write_checkpoint(content, ours), 1)
            mmengine += seconds(lambda: save_checkpoint(content, theirs), 1)
            os.utime(ours)  # else it is known to be whole
            checked += seconds(lambda: verify_checkpoint(ours), 1)
    stall = statistics.median(written)
    print(f"checkpoint: {size:.0f} MB")
    span = f"{min(written):.2f} to {max(written):.2f}"
    print(f"written, flushed to the disk, renamed: {stall:.2f} s (median; {span}), {size / stall:.0f} MB/s")
    other = statistics.median(mmengine)
    print(f"MMEngine's, through memory and not flushed: {other:.2f} s, {other / stall:.2f} x")
    print(f"checked when it is opened: {statistics.median(checked):.2f} s")
    print(
        f"once an epoch, that is less than 2 % if an epoch takes longer than {stall / 0.02:.0f} s, or a step of the config's "
        f"{STEPS} longer than {stall / 0.02 / STEPS:.2f} s; every 15 minutes it is {stall / 9:.2f} %"
    )


if __name__ == "__main__":
    main()
