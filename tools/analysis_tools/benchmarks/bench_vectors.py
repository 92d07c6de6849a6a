"""Searching vectors: the candidates' times, memory and disk for the nearest 128 videos, each in a process of its own."""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import warnings
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config

from benchmarks import vector_engines
from benchmarks.timing import Timing, environment, time_in_turn
from benchmarks.vector_engines import CLIPS, ENGINES, forget_files, open_vectors
from benchmarks.vector_set import make_queries, write_vectors
from clipbert_mm.errors import ClipBertError, OptionError
from clipbert_mm.visualization.figures import save_figure

DISTRIBUTIONS = {"torch": "torch", "lancedb": "lancedb", "usearch": "usearch", "faiss": "faiss-cpu"}
"""Distribution that brings a module."""
THREAD_VARIABLES = ("OMP_NUM_THREADS", "RAYON_NUM_THREADS", "LANCE_CPU_THREADS", "OPENBLAS_NUM_THREADS")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("--sizes", type=int, nargs="+", default=[16_000, 160_000, 1_600_000], help="numbers of vectors")
    parser.add_argument("--engines", nargs="+", default=list(ENGINES), choices=list(ENGINES), metavar="ENGINE")
    parser.add_argument("--queries", type=int, default=7, help="timed queries (default: 7)")
    parser.add_argument("--threads", type=int, default=2, help="threads of each engine (default: 2)")
    parser.add_argument(
        "--folder", type=Path, help="where vectors and indexes are written (default: a temporary folder)"
    )


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Measure each engine with each number of vectors.

    Returns:
        A report of ``kernels``, by number of vectors, and of ``rows``, one for each engine and number; ``left_out`` are the
        engines that are not installed.

    Raises:
        OptionError: If a size is no number of whole videos.
    """
    if any(size < CLIPS or size % CLIPS for size in args.sizes) or args.queries < 1:
        raise OptionError(f"benchmark.py vectors expects multiples of {CLIPS} and at least a query, got {args.sizes}.")
    torch.set_num_threads(args.threads)
    left_out = [name for name in args.engines if find_spec(ENGINES[name].module) is None]
    rows, kernels = [], {}
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        for size in args.sizes:
            file, queries = Path(name) / "vectors.f16", Path(name) / "queries.npy"
            write_vectors(file, size // CLIPS)
            np.save(queries, make_queries(open_vectors(file), args.queries))
            kernels[str(size)] = measure_kernels(file, queries)
            expected = reference(file, queries)
            for engine in (each for each in args.engines if each not in left_out and size <= ENGINES[each].largest):
                rows.append(dict(engine=engine, vectors=size) | measure_engine(engine, file, queries, expected, args))
                print(json.dumps(rows[-1]), flush=True)
    return dict(
        environment=environment() | dict(engines=releases(), load=os.getloadavg()),
        left_out=left_out,
        kernels=kernels,
        rows=rows,
    )


def releases() -> dict[str, str]:
    """Return the releases of the engines that are installed."""
    found = {}
    for name in DISTRIBUTIONS.values():
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def reference(file: Path, queries: Path) -> list[set[int]]:
    """Return the best videos of each query, in double precision."""
    vectors, best = open_vectors(file), []
    wide = np.load(queries).T.astype(np.float64)
    scores = np.concatenate(
        [vectors[start : start + 65536].astype(np.float64) @ wide for start in range(0, len(vectors), 65536)]
    )
    for own in scores.reshape(-1, CLIPS, wide.shape[1]).max(1).T:
        best.append(set(np.argsort(-own)[: vector_engines.FOUND].tolist()))
    return best


def measure_engine(
    name: str, file: Path, queries: Path, expected: list[set[int]], args: argparse.Namespace
) -> dict[str, Any]:
    """Build and search in two processes, and compare with the reference."""
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        job = dict(engine=name, vectors=str(file), queries=str(queries), folder=folder)
        built = run_job(job | dict(act="build"), args.threads)
        own_files = [path for path in Path(folder).rglob("*") if path.is_file()]
        searched_files = own_files or [file]
        forget_files([*searched_files, file])
        searched = run_job(job | dict(act="search"), args.threads)
        disk = sum(path.stat().st_size for path in searched_files)
    found = [set(each) for each in searched.pop("found")]
    recall = statistics.mean(len(own & best) / len(best) for own, best in zip(found, expected, strict=True))
    timing = Timing(tuple(searched.pop("seconds"))).to_dict()
    return dict(exact=ENGINES[name].exact, search=timing, recall=recall, disk_bytes=disk) | built | searched


def run_job(job: dict[str, Any], threads: int) -> dict[str, Any]:
    """Run the script of an engine.

    Raises:
        ClipBertError: If it fails.
    """
    with tempfile.TemporaryDirectory() as name:
        answer = Path(name) / "answer.json"
        command = [sys.executable, vector_engines.__file__, json.dumps(job | dict(answer=str(answer)))]
        limits = {variable: str(threads) for variable in THREAD_VARIABLES}
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=os.environ | limits)
        if done.returncode:
            raise ClipBertError(f"{job['engine']} ended without an answer:\n{done.stderr.strip()[-2000:]}")
        return json.loads(answer.read_text())


def measure_kernels(file: Path, queries: Path) -> dict[str, Any]:
    """Time ways of multiplying all vectors with a query in torch, and reading their bytes once, which is the limit."""
    vectors = open_vectors(file)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
        rows = torch.from_numpy(vectors)
    query, words = torch.from_numpy(np.load(queries)[0]), rows.view(torch.int64)
    scores = torch.empty(len(rows))

    def blocks(size: int, reused: bool) -> None:
        buffer = torch.empty(size, rows.shape[1])
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            single = buffer[: len(part)].copy_(part) if reused else part.float()
            torch.mv(single, query, out=scores[start : start + len(part)])

    contenders = {"reading the bytes once": lambda: words.sum()}
    for size in (1024, 4096, 8192, 65536):
        contenders[f"blocks of {size}, one buffer"] = lambda size=size: blocks(size, True)
    contenders["blocks of 4096, .float()"] = lambda: blocks(4096, False)
    contenders["half precision"] = lambda: torch.mv(rows, query.half())
    contenders["numpy, blocks of 1024"] = lambda: [
        vectors[start : start + 1024].astype(np.float32) @ query.numpy() for start in range(0, len(vectors), 1024)
    ]
    return {name: timing.to_dict() for name, timing in time_in_turn(contenders, repeats=5).items()}


def draw(report: dict[str, Any], picture: str | Path) -> None:
    """Draw the times of a warm search over the numbers of vectors."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name in dict.fromkeys(row["engine"] for row in report["rows"]):
        own = [row for row in report["rows"] if row["engine"] == name]
        style = "-" if own[0]["exact"] else "--"
        axes.plot([row["vectors"] for row in own], [row["search"]["median_s"] for row in own], f"o{style}", label=name)
    limit = {int(size): own["reading the bytes once"]["median_s"] for size, own in report["kernels"].items()}
    axes.plot(list(limit), list(limit.values()), "k:", label="reading the bytes once")
    axes.set(xscale="log", yscale="log", xlabel="vectors of 256", ylabel="warm search, s")
    axes.legend(fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"nearest 128 videos; {report['environment']['device']}", fontsize=9)
    save_figure(figure, picture)
