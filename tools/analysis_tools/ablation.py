#!/usr/bin/env python
"""Run tables of the paper and report them: python tools/analysis_tools/ablation.py table2 --on shapes."""

import argparse
import os
import shlex
import sys
from pathlib import Path

from ablations.plan import Plan, format_names
from ablations.report import check_reports, write_reports
from ablations.results import KeptResults
from ablations.scheduler import Outcome, Scheduler, format_seconds, format_steps
from ablations.steps import Launcher
from ablations.tables import SETS, read_tables, table_names
from mmengine.config import DictAction

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import seed_number
from clipbert_mm.errors import BusyFolderError, OptionError
from clipbert_mm.fileio import locked
from clipbert_mm.processes import EXIT_INTERRUPTED

FOLDERS = ("data", "runs", "benchmarks", "reports")
"""What is written in --out."""


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train and test the rows of tables for several seeds, and report them")
    parser.add_argument("tables", nargs="*", help="short names or paths of table files (default: all tables of --on)")
    parser.add_argument(
        "--on", choices=SETS, default="paper", help="the paper's tables, on MSRVTT, or their twins on Shapes"
    )
    parser.add_argument("--out", type=Path, default=Path("work_dirs/ablations"), help="default: work_dirs/ablations")
    parser.add_argument("--seeds", type=seed_number, nargs="+", help="default: those of the table file")
    parser.add_argument(
        "--conclusions", action="store_true", help="run only the rows and tasks that conclusions are judged by"
    )
    parser.add_argument(
        "--undecided", action="store_true", help="of those, run only what the reports of --kept leave undecided"
    )
    parser.add_argument(
        "--kept",
        type=Path,
        metavar="FOLDER",
        help="reports of earlier runs; their results are reported and not run again",
    )
    parser.add_argument("--quick", action="store_true", help="less of everything, as the table file says")
    parser.add_argument("--jobs", type=int, help="processes at a time (default: one per device, else one per CPU core)")
    parser.add_argument("--devices", nargs="+", metavar="GPU", help="GPUs to use, as in CUDA_VISIBLE_DEVICES")
    parser.add_argument("--gpus-per-run", type=int, default=1, help="processes of a run (default: 1)")
    parser.add_argument(
        "--micro-batch",
        type=int,
        metavar="N",
        help="items that a process computes at a time (default: the recipe's batch, or as many as divide its step)",
    )
    parser.add_argument("--amp", choices=["auto", "fp16", "bf16"], help="mixed precision in the trainings of the rows")
    parser.add_argument("--slurm", metavar="PARTITION", help="run each training and test as a Slurm job")
    parser.add_argument("--dry-run", action="store_true", help="list the steps and their states")
    parser.add_argument("--skip-missing", action="store_true", help="leave out rows whose starting weights are missing")
    parser.add_argument("--report-only", action="store_true", help="report what is done; run nothing")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="settings of the trainings of all rows"
    )
    args = parser.parse_args(argv)
    if args.undecided and args.kept is None:
        parser.error("--undecided needs --kept FOLDER, the reports that say what is undecided")
    if args.kept is not None and args.kept.resolve() == (args.out / "reports").resolve():
        parser.error(
            f"--kept expects another folder than {args.out / 'reports'}, which this run writes: copy the reports first"
        )
    for name in ("jobs", "gpus_per_run", "micro_batch"):
        if (value := getattr(args, name)) is not None and value < 1:
            parser.error(f"--{name.replace('_', '-')} expects a number from 1, got {value}")
    return args


def main(argv: list[str] | None = None) -> int:
    """Plan, run, report; returns 1 if a step failed, 130 after Ctrl-C."""
    args = parse_args(argv)
    check_out(args.out)
    tables = read_tables(args.tables or table_names(args.on), args.on, quick=args.quick)
    plan = Plan(
        tables,
        seeds=args.seeds,
        out=args.out,
        options=args.cfg_options,
        gpus=args.gpus_per_run,
        micro_batch=args.micro_batch,
        amp=args.amp,
        conclusions_only=args.conclusions,
        undecided_only=args.undecided,
        kept=KeptResults(args.kept),
    )
    if not (args.skip_missing or args.dry_run or args.report_only):
        plan.check_weights()
    check_reports(plan, tables, args.out / "reports")
    if args.dry_run:
        list_steps(plan)
        return 0
    outcome = Outcome()
    if not args.report_only:
        pending = plan.pending()
        slots = choose_slots(args)
        done = [step for step in plan.steps.values() if step.is_done()]
        print(f"{format_steps(len(done))} done before, {len(pending)} to do, {len(slots)} at a time", flush=True)
        scheduler = Scheduler(Launcher(args.slurm), slots)
        try:
            outcome = scheduler.run(pending, done)
        except KeyboardInterrupt:
            print(f"stopped; what is done is kept. To continue: {shlex.join([*sys.orig_argv])}", flush=True)
            return EXIT_INTERRUPTED
    try:
        write_reports(plan, tables, args.out / "reports")
        print(f"wrote {args.out / 'reports' / 'index.md'}", flush=True)
    finally:  # why steps failed is told even if the reports cannot be written
        status = summarize(outcome)
    return status


def check_out(out: Path) -> None:
    """Check that the folder of all steps can be written, or made.

    Raises:
        OptionError: If it cannot, or a file is in its place.
    """
    for folder in (out, *(out / name for name in FOLDERS)):
        there = next(each for each in (folder, *folder.absolute().parents) if os.path.lexists(each))
        if not there.is_dir():
            raise OptionError(
                f"--out {out} expects a folder, and {there} is none. Choose another, or move what is there."
            )
        if not os.access(there, os.W_OK | os.X_OK):
            raise OptionError(
                f"--out {out}: the folder {there} cannot be written. Choose another, or change its permissions."
            )


def choose_slots(args: argparse.Namespace) -> list[dict[str, str]]:
    """Return the environment of each of the processes that run at a time: its GPUs, its threads.

    Raises:
        OptionError: If there are fewer devices than a run needs.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if args.slurm is not None:
        return [{} for _ in range(args.jobs or 4)]
    if args.devices:
        size = args.gpus_per_run
        groups = [args.devices[i : i + size] for i in range(0, len(args.devices) - size + 1, size)]
        if not groups:
            raise OptionError(f"--gpus-per-run {size} needs as many --devices, got {len(args.devices)}.")
        jobs = args.jobs or len(groups)
        return [{"CUDA_VISIBLE_DEVICES": ",".join(groups[i % len(groups)])} for i in range(jobs)]
    import torch

    usual = 1 if torch.cuda.is_available() else max(1, cores // args.gpus_per_run)
    jobs = args.jobs or usual
    threads = (
        {} if "OMP_NUM_THREADS" in os.environ else {"OMP_NUM_THREADS": str(max(1, cores // (jobs * args.gpus_per_run)))}
    )
    return [dict(threads) for _ in range(jobs)]


def list_steps(plan: Plan) -> None:
    """Print each step with its state."""
    pending = {step.folder for step in plan.pending()}
    kept = {plan.tests[key].folder for key in plan.tests if plan.is_kept(key)}
    for step in plan.steps.values():
        if step.folder not in pending:
            other = "kept" if step.folder in kept else "not needed"
            state = f"done, {format_seconds(step.done()['seconds'])}" if step.is_done() else other
        else:
            state = "begun" if step.is_begun() else "to do"
            if step.folder.is_dir():
                try:
                    with locked(step.folder):
                        pass
                except BusyFolderError:
                    state = "running"
        print(f"{state:12}  {step.title}  {step.folder}")
    for path, rows in plan.missing.items():
        print(f"{'no weights':12}  {format_names(rows)}  {path}")
    print(f"{format_steps(len(plan.steps))}, {len(pending)} to do")


def summarize(outcome: Outcome) -> int:
    """Print what failed and was left out; return the exit status."""
    if not outcome.failed and not outcome.left:
        return 0
    print(f"{format_steps(len(outcome.failed))} failed, {len(outcome.left)} not run. The same command tries again.")
    for step, reason in outcome.failed:
        print(f"  {step.title}: {reason}\n    {step.log}")
    for step in outcome.left:
        print(f"  not run, since a step that it needs is not done: {step.title}")
    return 1


if __name__ == "__main__":
    run_tool(main)
