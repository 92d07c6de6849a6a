#!/usr/bin/env python
"""The paper's recipe on the embedded Shapes world, from nothing to a table and pictures: make demo."""

import argparse
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.config import Config
from mmengine.dist import barrier, is_main_process

from clipbert_mm import compat
from clipbert_mm.datasets.shapes.world import ShapesWorld
from clipbert_mm.engine.config import drop_validation, load_config
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import seed_number
from clipbert_mm.evaluation import read_rankings, retrieval_metrics
from clipbert_mm.visualization import draw_curves, draw_retrieval

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "shapes"
STAGES = {
    "objects": "resnet_tiny_1xb32-5e_shapes-objects",
    "pretrain": "clipbert_tiny_1xb32-4e_shapes-pretrain",
    "retrieval": "clipbert_tiny_1xb16-2x2-4e_shapes-retrieval",
}
COLUMNS = ("R@1", "R@5", "R@10", "MdR", "MnR")


def main(argv: list[str] | None = None) -> None:
    """Write the world, train the backbone, pre-train, fine-tune, test; what an earlier run finished is not done again."""
    parser = argparse.ArgumentParser(description="CLIPBERT's recipe on the Shapes world")
    parser.add_argument(
        "--out", type=Path, default=Path("work_dirs/demo"), help="folder for everything (default: work_dirs/demo)"
    )
    parser.add_argument(
        "--seed", type=seed_number, default=0, help="seed of the world and of the training (default: 0)"
    )
    parser.add_argument("--launcher", choices=["none", "pytorch"], default="none", help="what started the processes")
    args = parser.parse_args(argv)
    started = time.monotonic()
    if args.launcher != "none":
        compat.start_processes(args.launcher)
    world = args.out / "shapes"
    os.environ["SHAPES_ROOT"] = str(world)  # the configs read it
    say(f"1/5  the Shapes world: {world}")
    if is_main_process():
        ShapesWorld(seed=args.seed).write(world)
    barrier()
    checkpoint: Path | None = None
    for number, stage in enumerate(STAGES, start=2):
        say(f"{number}/5  training, stage '{stage}'")
        checkpoint = train(stage, args, load_from=checkpoint)
    say("5/5  testing with 8 clips and with 1")
    results = {f"N_test = {clips}": test(clips, args, checkpoint) for clips in (8, 1)}
    if is_main_process():
        results["chance"] = chance(args.out / "test_8" / "rankings.json")
        report(results, args.out, time.monotonic() - started)


def say(text: str) -> None:
    """Print a line, once for all processes."""
    if is_main_process():
        print(text, flush=True)


def stage_config(stage: str, args: argparse.Namespace, work_dir: Path) -> Config:
    """Read a stage's config and lead it to the demo's folders."""
    config = load_config(str(CONFIGS / f"{STAGES[stage]}.py"))
    config.launcher = args.launcher
    config.randomness.seed = args.seed
    config.work_dir = str(work_dir)
    config.experiment_name = f"{stage}-{time.time_ns()}"
    return config


class Essentials(logging.Filter):
    """Lets progress, results and warnings through to the screen; MMEngine's log file has the other lines of the run."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Say whether a line is shown."""
        shown = ("Epoch", "scored", "encoded", "Wrote", "Trained", "train:", "test:")
        return record.levelno >= logging.WARNING or record.getMessage().startswith(shown)


def run(config: Config, method: str) -> Any:
    """Build a runner, show the essentials of its log, and call its ``train`` or ``test``."""
    config.log_level = "WARNING"  # while it is built
    runner = build_runner(config, micro_batch=0)  # the same items a step, however many processes share them
    for handler in runner.logger.handlers if is_main_process() else ():
        runner.logger.setLevel(logging.INFO)
        handler.setLevel(logging.INFO)
        if type(handler) is logging.StreamHandler:
            handler.addFilter(Essentials())
    return getattr(runner, method)()


def train(stage: str, args: argparse.Namespace, load_from: Path | None) -> Path:
    """Train a stage, or go on where an earlier run was cut; returns its checkpoint."""
    work_dir = args.out / stage
    config = stage_config(stage, args, work_dir)
    drop_validation(config)  # the last checkpoint is shown
    final = work_dir / f"epoch_{config.train_cfg.max_epochs}.pth"
    if final.is_file():
        say(f"     done already: {final}")
        return final
    config.resume = (work_dir / "last_checkpoint").is_file()
    config.load_from = None if config.resume or load_from is None else str(load_from)
    began = time.monotonic()
    run(config, "train")
    say(f"     {time.monotonic() - began:.0f} s")
    return final


def test(clips: int, args: argparse.Namespace, checkpoint: Path | None) -> dict[str, float]:
    """Test a checkpoint with a number of uniform clips; returns the metrics."""
    work_dir = args.out / f"test_{clips}"
    done = work_dir / "metrics.json"
    if done.is_file():
        say(f"     done already: {done}")
        return json.loads(done.read_text())
    config = stage_config("retrieval", args, work_dir)
    sampling = next(step for step in config.test_dataloader.dataset.pipeline if step.type == "SampleClips")
    sampling.num_clips = clips
    config.test_evaluator.rankings_file = str(work_dir / "rankings.json")
    config.load_from = str(checkpoint)
    metrics = run(config, "test")
    if is_main_process():
        done.write_text(json.dumps(metrics, indent=2))
    return metrics


def chance(rankings_file: Path, draws: int = 200) -> dict[str, float]:
    """Compute what random scores reach on the same gallery, on average over some draws."""
    rankings = read_rankings(rankings_file)
    rng = np.random.default_rng(0)
    shape, text_video = rankings["scores"].shape, np.array(rankings["text_video"])
    drawn = [retrieval_metrics(rng.random(shape), text_video) for _ in range(draws)]
    return {key: float(np.mean([metrics[key] for metrics in drawn])) for key in drawn[0]}


def report(results: dict[str, dict[str, float]], out: Path, seconds: float) -> None:
    """Print the table; write metrics.json, curves.png and retrieval.png."""
    (out / "metrics.json").write_text(json.dumps(results, indent=2))
    draw_curves({stage: out / stage for stage in STAGES}, out / "curves.png")
    draw_retrieval(out / "test_8" / "rankings.json", out / "retrieval.png")
    videos = len(json.loads((out / "test_8" / "rankings.json").read_text())["videos"])
    print(f"\nShapes retrieval, {videos} held-out videos, trained on 2 x 2 frames")
    print(f"{'':28}" + "".join(f"{column:>7}" for column in COLUMNS))
    for direction, words in (("t2v", "text -> video"), ("v2t", "video -> text")):
        for name, metrics in results.items():
            values = "".join(f"{metrics[f'{direction}/{column}']:7.1f}" for column in COLUMNS)
            print(f"{f'{words}, {name}':<28}{values}")
    print(f"\n{seconds:.0f} s. Metrics: {out}/metrics.json, curves: {out}/curves.png, queries: {out}/retrieval.png")


if __name__ == "__main__":
    run_tool(main)
