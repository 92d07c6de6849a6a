#!/usr/bin/env python
"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT."""

import argparse
import os
from pathlib import Path

from mmengine.config import DictAction

from clipbert_mm.checkpoint import find_selected
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner, use_amp_in_test
from clipbert_mm.engine.mmengine_habits import is_retrieval, metrics_of
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import read_rankings
from clipbert_mm.visualization import draw_reliability, draw_retrieval


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Test a checkpoint")
    parser.add_argument("config", help="config file")
    parser.add_argument(
        "checkpoint", help="checkpoint file, or a work folder for the one that validation selected, else the last"
    )
    parser.add_argument("--work-dir", help="folder for logs and metrics (default: work_dirs/<config name>)")
    parser.add_argument(
        "--amp",
        nargs="?",
        const="auto",
        choices=["auto", "fp16", "bf16"],
        help="half precision (fp16 on a GPU, bf16 on a CPU)",
    )
    parser.add_argument(
        "--dump", metavar="FILE.pkl", help="write every prediction to a pickle file for offline evaluation"
    )
    parser.add_argument(
        "--show-dir",
        metavar="DIR",
        help="write rankings.json, an image of queries with their best videos and, with calibration=True of the metric, "
        "a reliability diagram",
    )
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="settings that override the config's"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.dump is not None and not args.dump.endswith((".pkl", ".pickle")):
        parser.error(f"--dump writes a pickle file, expected a name that ends with .pkl, got {args.dump}")
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Test; returns the metrics."""
    args = parse_args(argv)
    config = load_config(args.config, args.cfg_options, needs=("model", "test_cfg", "test_dataloader"))
    config.launcher = args.launcher
    name = os.path.splitext(os.path.basename(args.config))[0]
    config.work_dir = args.work_dir or config.get("work_dir") or os.path.join("work_dirs", name)
    config.load_from, config.resume = find_selected(args.checkpoint), False
    if args.amp is not None:
        use_amp_in_test(config, args.amp)
    if args.show_dir is not None:
        metrics = metrics_of(config.test_evaluator)
        retrieval = [metric for metric in metrics if is_retrieval(metric)]
        if not retrieval:
            types = ", ".join(str(metric.get("type")) for metric in metrics)
            raise OptionError(f"--show-dir draws retrieval and needs a RetrievalMetric, {args.config} has {types}.")
        rankings = retrieval[0].rankings_file = os.path.join(args.show_dir, "rankings.json")
    runner = build_runner(config)
    if config.load_from != args.checkpoint:
        is_selected = os.path.basename(config.load_from).startswith("best_")
        which = "which validation selected" if is_selected else "the last of a training that selected none"
        runner.logger.info(f"Tests {config.load_from}, {which}.")
    if args.dump is not None:
        from mmengine.evaluator import DumpResults

        runner.test_evaluator.metrics.append(DumpResults(out_file_path=args.dump, collect_device="gpu"))
    scores = runner.test()
    if args.show_dir is not None and runner.rank == 0:
        out_file = Path(args.show_dir) / "retrieval.png"
        draw_retrieval(rankings, out_file)
        runner.logger.info(f"Wrote {out_file}.")
        calibration = read_rankings(rankings).get("calibration")
        if calibration is not None:
            draw_reliability(calibration, out_file.with_name("reliability.png"))
            runner.logger.info(f"Wrote {out_file.with_name('reliability.png')}.")
    return scores


if __name__ == "__main__":
    run_tool(main)
