#!/usr/bin/env python
"""Train a model: python tools/train.py configs/shapes/....py."""

import argparse
import os

from mmengine.config import DictAction

from clipbert_mm.engine.config import check_start, check_validation, drop_validation, load_config
from clipbert_mm.engine.launch import build_runner, use_amp
from clipbert_mm.engine.resuming import find_resumed
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import add_loader_flags, seed_number, set_loaders


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a model")
    parser.add_argument("config", help="config file")
    parser.add_argument("--work-dir", help="folder for logs and checkpoints (default: work_dirs/<config name>)")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="auto",
        metavar="auto|PATH",
        help="resume from the latest intact checkpoint of the work dir, or from the one at PATH",
    )
    parser.add_argument(
        "--load-from",
        nargs="+",
        metavar="SOURCE",
        help="weights to start from: files, addresses, Hugging Face folders or names (docs/where_to_start.md)",
    )
    parser.add_argument(
        "--amp",
        nargs="?",
        const="auto",
        choices=["auto", "fp16", "bf16"],
        help="mixed precision (fp16 on a GPU, bf16 on a CPU)",
    )
    parser.add_argument(
        "--micro-batch",
        nargs="?",
        type=int,
        const=0,
        metavar="N",
        help="keep the config's global batch on any number of processes: compute N items at a time in each and accumulate "
        "(default: as many as divide it, at most the config's batch size)",
    )
    parser.add_argument(
        "--auto-scale-lr",
        action="store_true",
        help="scale the learning rate with the global batch (auto_scale_lr of the config)",
    )
    parser.add_argument(
        "--no-validate", action="store_true", help="do not validate between epochs, nor select the best checkpoint"
    )
    parser.add_argument(
        "--seed", type=seed_number, help="seed of all random choices (default: the config's randomness.seed)"
    )
    parser.add_argument(
        "--diff-rank-seed",
        action="store_true",
        default=None,
        help="randomness.diff_rank_seed: a seed of its own per process",
    )
    parser.add_argument(
        "--deterministic",
        action="store_true",
        default=None,
        help="randomness.deterministic: the same results again on a GPU",
    )
    add_loader_flags(parser)
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="settings that override the config's"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    check_micro_batch(parser, args)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def check_micro_batch(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse --micro-batch with what it sets itself."""
    if args.micro_batch is None:
        return
    if args.micro_batch < 0:
        parser.error(f"--micro-batch expects a positive number of items, got {args.micro_batch}")
    if args.auto_scale_lr:
        parser.error(
            "--auto-scale-lr changes the learning rate with the global batch, which --micro-batch keeps: give one"
        )
    own = {"train_dataloader.batch_size", "train_dataloader.sampler", "optim_wrapper.accumulative_counts"}
    if clash := sorted(own & set(args.cfg_options or {})):
        parser.error(f"--micro-batch sets {clash[0]} itself: leave it out of --cfg-options")


def main(argv: list[str] | None = None) -> None:
    """Train."""
    args = parse_args(argv)
    config = load_config(args.config, args.cfg_options, needs=("model", "train_cfg", "train_dataloader"))
    config.launcher = args.launcher
    name = os.path.splitext(os.path.basename(args.config))[0]
    config.work_dir = args.work_dir or config.get("work_dir") or os.path.join("work_dirs", name)
    if args.no_validate:
        drop_validation(config)
    check_validation(config)
    randomness = {name: getattr(args, name) for name in ("seed", "diff_rank_seed", "deterministic")}
    given = {name: value for name, value in randomness.items() if value is not None}
    if given:
        config.randomness = {**(config.get("randomness") or {}), **given}
    set_loaders(config, args.loaders)
    if args.amp is not None:
        use_amp(config, args.amp)
    if args.auto_scale_lr:
        config.auto_scale_lr = {**(config.get("auto_scale_lr") or {}), "enable": True}
    if args.load_from is not None:
        config.load_from = args.load_from if len(args.load_from) > 1 else args.load_from[0]
    if args.resume is not None:
        config.resume = args.resume
    if config.get("resume") is not True and find_resumed(config.get("resume"), config)[0] is None:
        check_start(config)
    build_runner(config, micro_batch=args.micro_batch).train()


if __name__ == "__main__":
    run_tool(main)
