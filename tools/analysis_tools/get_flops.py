#!/usr/bin/env python
"""Count multiply-adds and parameters: python tools/analysis_tools/get_flops.py CONFIG."""

import argparse

from benchmarks.flops import ModuleFlops
from benchmarks.workload import build_model, read_setting
from mmengine.config import DictAction

from clipbert_mm.engine.config import expect_clipbert, load_config
from clipbert_mm.engine.run_tool import run_tool


def main(argv: list[str] | None = None) -> None:
    """Count."""
    parser = argparse.ArgumentParser(description="Multiply-adds and parameters of one video with one text, by module")
    parser.add_argument("config", help="config file")
    parser.add_argument("--clips", type=int, help="clips K of the video (default: the training pipeline's)")
    parser.add_argument("--frames", type=int, help="frames T of a clip (default: the training pipeline's)")
    parser.add_argument(
        "--size",
        "--shape",
        type=int,
        nargs="+",
        help="frame size in pixels, 448 or 448 448 (default: the training pipeline's)",
    )
    parser.add_argument("--text-length", type=int, default=20, help="tokens L of the text (default: 20)")
    parser.add_argument("--depth", type=int, default=2, help="how deep modules are listed (default: 2)")
    parser.add_argument("--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE")
    parser.set_defaults(batch=1, texts=1)
    args = parser.parse_args(argv)
    if args.size is not None:
        if len(args.size) > 2 or len(set(args.size)) > 1:
            given = " ".join(map(str, args.size))
            parser.error(
                f"--size takes one number, or height and width, which are equal since frames are square; got {given}. "
                "Clips and frames are --clips and --frames"
            )
        args.size = args.size[0]
    config = load_config(args.config, args.cfg_options, needs=("model", "train_dataloader"))
    expect_clipbert(config, "get_flops.py")
    own = read_setting(config, args)
    model = build_model(config, "cpu")
    flops = ModuleFlops(model, clips=own.clips, frames=own.frames, size=own.size, length=own.length)
    print(flops.table(args.depth))
    print(
        f"{flops.total / 1e9:.3f} G multiply-adds for {own.clips} x {own.frames} frames of {own.size} x {own.size} "
        f"pixels and {own.length} tokens (convolutions, matrix products, attention, normalizations; a multiply-add counts "
        f"once)\n{flops.by_torch() / 1e9:.3f} G by torch's own counter, which leaves out normalizations"
    )


if __name__ == "__main__":
    run_tool(main)
