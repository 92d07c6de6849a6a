#!/usr/bin/env python
"""Test a checkpoint: python tools/test.py CONFIG CHECKPOINT."""

import argparse
import os
from pathlib import Path
from typing import Any

import mmengine
from mmengine.config import Config, DictAction
from mmengine.evaluator import DumpResults

from clipbert_mm.apis.answer_drawings import AnswerVideoHook, answers_questions
from clipbert_mm.checkpoint import find_selected
from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner, use_amp_in_test
from clipbert_mm.engine.mmengine_habits import is_retrieval, metrics_of
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import Refused, add_loader_flags, set_loaders
from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import DumpLabels, read_rankings
from clipbert_mm.fileio import temporary_folder
from clipbert_mm.visualization import draw_reliability, draw_retrieval
from clipbert_mm.visualization.windows import check_display, show_pictures


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
        "--out",
        "--dump",
        metavar="FILE.pkl",
        help="write every prediction to a pickle file for offline evaluation; or the metrics, see --out-item",
    )
    parser.add_argument(
        "--out-item",
        choices=["pred", "metrics", "labels"],
        default="pred",
        help="what --out writes: predictions; metrics, to a .json, .yaml or .pkl file; or questions in the form of a "
        "classifier's predictions, which the tools of MMPretrain and MMAction2 read (default: pred)",
    )
    parser.add_argument(
        "--show-dir",
        metavar="DIR",
        help="write videos with the answers and scores drawn on them, in DIR/videos and to the visualizer's backends; of "
        "retrieval also rankings.json, an image of queries with their best videos and, with calibration=True of the metric, "
        "a reliability diagram",
    )
    parser.add_argument("--show", action="store_true", help="show the images of --show-dir in a window")
    parser.add_argument(
        "--wait-time", type=float, default=2.0, metavar="SECONDS", help="how long --show shows each image (default: 2)"
    )
    parser.add_argument(
        "--interval", action=Refused, reason="is not an option: the image has queries evenly spread over the test."
    )
    parser.add_argument(
        "--tta",
        action=Refused,
        reason="is not an option: a test averages over clips. Set more of them in the test pipeline (num_clips).",
    )
    add_loader_flags(parser)
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="settings that override the config's"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch", "slurm", "mpi"], default="none")
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    check_out(parser, args)
    os.environ.setdefault("LOCAL_RANK", str(args.local_rank))
    return args


def check_out(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Refuse names of files that --out cannot write."""
    if args.out is None:
        if args.out_item != "pred":
            parser.error(f"--out-item {args.out_item} needs --out FILE")
        return
    kinds = (".pkl", ".pickle") if args.out_item != "metrics" else (".pkl", ".pickle", ".json", ".yaml", ".yml")
    if not args.out.endswith(kinds):
        hint = "; --out-item metrics writes the metrics as .json" if args.out_item != "metrics" else ""
        what = "predictions to a pickle file" if args.out_item != "metrics" else "metrics"
        parser.error(f"--out writes {what}, expected a name that ends with {' or '.join(kinds)}, got {args.out}{hint}")


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Test; returns the metrics."""
    args = parse_args(argv)
    if args.show:
        check_display("--show", "--show-dir DIR writes the images instead.")
    config = load_config(args.config, args.cfg_options, needs=("model", "test_cfg", "test_dataloader"))
    config.launcher = args.launcher
    name = os.path.splitext(os.path.basename(args.config))[0]
    config.work_dir = args.work_dir or config.get("work_dir") or os.path.join("work_dirs", name)
    config.load_from, config.resume = find_selected(args.checkpoint), False
    set_loaders(config, args.loaders)
    if args.amp is not None:
        use_amp_in_test(config, args.amp)
    with temporary_folder() as scratch:
        folder = Path(args.show_dir or scratch)
        if args.show or args.show_dir is not None:
            write_rankings(config, args, folder / "rankings.json")
        runner = build_runner(config)
        if config.load_from != args.checkpoint:
            is_selected = os.path.basename(config.load_from).startswith("best_")
            which = "which validation selected" if is_selected else "the last of a training that selected none"
            runner.logger.info(f"Tests {config.load_from}, {which}.")
        if args.out is not None and args.out_item != "metrics":
            writer = DumpLabels if args.out_item == "labels" else DumpResults
            runner.test_evaluator.metrics.append(writer(out_file_path=args.out, collect_device="gpu"))
        if args.show_dir is not None:
            runner.register_hook(AnswerVideoHook(folder / "videos", folder / "rankings.json"))
        scores = runner.test()
        if runner.rank == 0:
            if args.out is not None and args.out_item == "metrics":
                os.makedirs(os.path.dirname(args.out) or ".", exist_ok=True)
                mmengine.dump(scores, args.out)
            if args.show or args.show_dir is not None:
                drawn = draw(runner, folder)
                if args.show:
                    show_pictures(drawn, args.wait_time)
    return scores


def write_rankings(config: Config, args: argparse.Namespace, rankings: Path) -> None:
    """Let the retrieval metric of a config write its rankings, which :func:`draw` draws.

    Raises:
        OptionError: If it has none, and there is nothing else to draw.
    """
    metrics = metrics_of(config.test_evaluator)
    retrieval = [metric for metric in metrics if is_retrieval(metric)]
    if retrieval:
        retrieval[0].rankings_file = str(rankings)
    elif args.show or not answers_questions(config.model):
        types = ", ".join(str(metric.get("type")) for metric in metrics)
        raise OptionError(
            "--show draws retrieval and needs a RetrievalMetric; --show-dir also draws questions and needs a head for them. "
            f"{args.config} has {types}."
        )


def draw(runner: Any, folder: Path) -> list[Path]:
    """Draw the rankings in a folder, if there are any; returns the images."""
    if not any(map(is_retrieval, runner.test_evaluator.metrics)):
        return []
    drawn = [folder / "retrieval.png"]
    draw_retrieval(folder / "rankings.json", drawn[0])
    calibration = read_rankings(folder / "rankings.json").get("calibration")
    if calibration is not None:
        drawn.append(folder / "reliability.png")
        draw_reliability(calibration, drawn[1])
    for path in drawn:
        runner.logger.info(f"Wrote {path}.")
    return drawn


if __name__ == "__main__":
    run_tool(main)
