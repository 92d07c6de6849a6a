"""Throughput of scoring texts with videos, against a straightforward loop and against the device's matrix rate."""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from logging import getLogger
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from benchmarks.timing import MATRIX_SIZE, Timing, environment, time_in_turn
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import retrieval_metrics, shortlist_recall
from clipbert_mm.models import ClipBert
from clipbert_mm.models.encoders import PRECISIONS
from clipbert_mm.registry import MODELS
from clipbert_mm.retrieval.evaluator import RetrievalEvaluator, score_block
from clipbert_mm.retrieval.rerank import candidates, merge_scores, shortlist
from clipbert_mm.visualization.figures import save_figure

TEXTS_PER_PASS = 64
"""Texts per video for which the straightforward loop repeats the visual pass, as the paper's release does."""
LENGTHS = {"captions": (20, 11.5, 3.0, 6), "paragraphs": (100, 60.0, 20.0, 20)}
"""Longest text, mean, deviation and shortest, in tokens, of MSRVTT's captions, paragraphs of DiDeMo and ActivityNet."""
GALLERY_TEXTS = 1000
"""Texts of a test as MSRVTT's 1k, over which the visual pass of a video is spread."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add what can be chosen."""
    parser.add_argument("--checkpoint", help="also test it on the config's test data, by each way of scoring")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="threads on a CPU (default: 1)")
    parser.add_argument(
        "--cpu-time", action="store_true", help="count the time on the processor alone: for a CPU with other work to do"
    )
    parser.add_argument("--precisions", nargs="+", choices=list(PRECISIONS), default=["fp32", "bf16"])
    parser.add_argument("--texts", type=int, default=TEXTS_PER_PASS, help="texts per video (default: 64)")
    parser.add_argument("--shortlist", type=float, default=0.1, help="what the cascade keeps (default: 0.1)")
    parser.add_argument(
        "--cascade-size", type=int, default=10, help="texts, and videos, of the cascade's gallery; 0 for no cascade"
    )
    parser.add_argument("--repeats", type=int, default=5, help="timed repeats (default: 5)")


def measure(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Time the ways of scoring on random frames and texts, and test a checkpoint by each if there is one."""
    torch.set_num_threads(args.threads)
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        model = MODELS.build(config.model).to(args.device).eval()
    settings = {key: value for step in config.test_dataloader.dataset.pipeline for key, value in step.items()}
    report: dict[str, Any] = dict(
        environment=environment(args.device),
        settings=dict(
            frames=settings["num_frames"], size=settings["size"], clips=settings["num_clips"], texts=args.texts
        ),
        clock="time on the processor" if args.cpu_time else "wall clock",
    )
    shape = (settings["num_clips"], settings["num_frames"], 3, settings["size"], settings["size"])
    report["lengths"] = {kind: measure_pairs(model, kind, shape, args) for kind in LENGTHS}
    if args.cascade_size:
        report["cascade"] = measure_cascade(model, shape, args)
    if args.checkpoint is not None:
        report["ranks"] = measure_ranks(config, args)
    return report


def clock_of(args: argparse.Namespace) -> Callable[[], float]:
    """Return what tells the seconds.

    Raises:
        OptionError: If the processor's time is asked for where it is not the time that the work takes.
    """
    if args.cpu_time and (args.device != "cpu" or args.threads != 1):
        raise OptionError(
            f"--cpu-time is for one thread on a CPU, got --threads {args.threads} --device {args.device}."
        )
    return time.process_time if args.cpu_time else time.perf_counter


def draw_lengths(kind: str, count: int, most: int) -> list[int]:
    """Draw lengths of texts: the quantiles of a normal distribution, the same whatever the seed."""
    longest, mean, deviation, shortest = LENGTHS[kind]
    normal = statistics.NormalDist(mean, deviation)
    drawn = [normal.inv_cdf((i + 0.5) / count) for i in range(count)]
    return [int(np.clip(round(length), shortest, min(longest, most))) for length in drawn]


def draw_texts(model: ClipBert, kind: str, count: int) -> list[np.ndarray]:
    """Draw random tokens of such lengths, in random order."""
    rng = np.random.default_rng(0)
    lengths = rng.permutation(draw_lengths(kind, count, model.encoder.max_text_length))
    return [rng.integers(5, model.data_preprocessor.vocab_size, length) for length in lengths]


@torch.no_grad()
def score_plainly(model: ClipBert, tokens: Tensor, texts: list[np.ndarray], longest: int) -> Tensor:
    """The baseline: a batch of texts padded to the longest there may be, with one video, clip by clip, in float32.

    Args:
        model: The model.
        tokens: Visual tokens of the video, (K, S, D).
        texts: Token ids of each text.
        longest: The length that all are padded to.

    Returns:
        Scores, (texts,).
    """
    found = []
    for start in range(0, len(texts), TEXTS_PER_PASS):
        batch = texts[start : start + TEXTS_PER_PASS]
        ids = torch.zeros(len(batch), longest, dtype=torch.long)
        for row, text in zip(ids, batch, strict=True):
            row[: len(text)] = torch.from_numpy(text)
        mask = (torch.arange(longest) < torch.tensor([len(text) for text in batch])[:, None]).long()
        ids, mask = ids.to(tokens.device), mask.to(tokens.device)
        logits = [
            model.head(model.encoder.pool(model.encoder(ids, mask, clip.expand(len(batch), 1, -1, -1))))
            for clip in tokens
        ]
        found.append(model.head.scores(model.aggregator(torch.cat(logits, dim=1))))
    return torch.cat(found)


def measure_pairs(model: ClipBert, kind: str, shape: tuple[int, ...], args: argparse.Namespace) -> dict[str, Any]:
    """Time pairs of texts and a video of one clip; how many clips there are changes no ratio."""
    texts = draw_texts(model, kind, args.texts)
    size = MATRIX_SIZE[torch.device(args.device).type]
    longest = min(LENGTHS[kind][0], model.encoder.max_text_length)
    frames = torch.randn(1, *shape[1:], device=args.device)
    encoders = {name: model.pair_encoder(precision=name) for name in args.precisions}
    exact = model.encode_video(frames[None])[0].detach()
    tokens = {name: exact[None].to(pairs.dtype) for name, pairs in encoders.items()}

    def score(name: str) -> np.ndarray:
        return score_block(model, encoders[name], encoders[name].encode_texts(texts), tokens[name])

    @torch.no_grad()
    def visual_pass() -> object:
        return model.encode_with_coarse_tokens(frames[None])

    matrices = {
        name: torch.randn(2, size, size, device=args.device).to(PRECISIONS[name]) for name in {"fp32", *encoders}
    }
    contenders: dict[str, Callable[[], object]] = {
        f"product in {name}": lambda name=name: matrices[name][0] @ matrices[name][1]  # type: ignore[misc]
        for name in matrices
    }
    contenders |= {
        "visual pass": visual_pass,
        "baseline": lambda: score_plainly(model, exact, texts, longest),
    }
    for name in encoders:
        contenders[name] = lambda name=name: score(name)  # type: ignore[misc]
    timings = time_in_turn(contenders, repeats=args.repeats, device=args.device, clock=clock_of(args))
    wanted = score_plainly(model, exact, texts, longest).cpu().numpy()
    visual = timings.pop("visual pass")
    rates = {name: 2 * size**3 / timings.pop(f"product in {name}").median for name in matrices}
    cells = exact.shape[1]
    useful = statistics.mean(encoder_flops(model, len(text) + cells) for text in texts)
    ways: dict[str, Any] = {}
    for name, timing in timings.items():
        # What a pair costs in a test of GALLERY_TEXTS texts, with its share of the video's visual pass.
        seconds = timing.median / len(texts) + visual.median / (TEXTS_PER_PASS if name == "baseline" else GALLERY_TEXTS)
        rate = rates.get(name, rates["fp32"])
        ways[name] = dict(
            encoder=timing.to_dict(),
            pairs_per_s=1 / seconds,
            useful_share_of_matrix_rate=useful * len(texts) / timing.median / rate,
            limit_pairs_per_s=rate / useful,
        )
        if name != "baseline":
            found = score(name)[:, 0]
            ways[name]["ratio"] = ways[name]["pairs_per_s"] / ways["baseline"]["pairs_per_s"]
            ways[name]["ratio_of_each_repeat"] = [
                base / own for base, own in zip(timings["baseline"].seconds, timing.seconds, strict=True)
            ]
            ways[name]["largest_difference_of_scores"] = float(np.abs(found - wanted).max())
    ways["baseline"]["padded_flops_per_pair"] = encoder_flops(model, longest + cells)
    executed = statistics.mean(encoder_flops(model, len(text) + cells, whole=False) for text in texts)
    mean = statistics.mean(map(len, texts))
    flops = dict(useful_flops_per_pair=useful, executed_flops_per_pair=executed)
    sizes = dict(mean_length=mean, longest=longest, cells=cells, matrix_rate=rates)
    return dict(**sizes, **flops, visual_pass=visual.to_dict(), ways=ways)


def encoder_flops(model: ClipBert, length: int, whole: bool = True) -> float:
    """Count the FLOPs of the joint encoder for one sequence without padding; a multiply-add counts as two.

    Args:
        model: The model.
        length: Tokens of text and clip.
        whole: Whether all layers are computed for all tokens, as a plain forward pass does; else what
            :class:`~clipbert_mm.models.PairEncoder` executes for a pair.
    """
    config = model.encoder.bert.config
    width, inner = config.hidden_size, config.intermediate_size
    dense = 2 * (4 * width**2 + 2 * width * inner)  # of a token
    layer = length * dense + 4 * length**2 * width
    if whole:
        return config.num_hidden_layers * layer
    last = dense + 4 * length * width * config.num_attention_heads
    return (config.num_hidden_layers - 1) * layer + last - length * 6 * width**2  # the first layer's are shared


def measure_cascade(model: ClipBert, shape: tuple[int, ...], args: argparse.Namespace) -> dict[str, Any]:
    """Time a cascade against scoring all clips of all pairs, in the last of the precisions."""
    pairs = model.pair_encoder(precision=args.precisions[-1])
    count, clips = args.cascade_size, shape[0]
    texts = draw_texts(model, "captions", count)
    with torch.no_grad():
        cells = model.encode_video(torch.randn(1, 1, *shape[1:], device=args.device)).shape[2]
    generator = torch.Generator().manual_seed(0)
    width = model.encoder.bert.config.hidden_size
    tokens = torch.randn(count, clips, cells, width, generator=generator).to(pairs.dtype)  # LayerNorm's scale
    coarse_tokens = tokens.mean(dim=1, keepdim=True)
    encoded = pairs.encode_texts(texts)
    kept = []

    def cascade() -> np.ndarray:
        coarse = score_block(model, pairs, encoded, coarse_tokens)
        number = candidates(args.shortlist, count)
        chosen = shortlist(coarse, number, number)
        kept.append(float(chosen.mean()))
        return merge_scores(coarse, score_block(model, pairs, encoded, tokens, chosen), chosen)

    contenders = {"all clips of all": lambda: score_block(model, pairs, encoded, tokens), "cascade": cascade}
    timings = time_in_turn(contenders, repeats=args.repeats, device=args.device, clock=clock_of(args))
    return dict(
        precision=args.precisions[-1],
        texts=count,
        videos=count,
        clips=clips,
        shortlist=args.shortlist,
        pairs_kept=kept[-1],
        ratio=timings["all clips of all"].median / timings["cascade"].median,
        **{name.replace(" ", "_"): timing.to_dict() for name, timing in timings.items()},
    )


def measure_ranks(config: Config, args: argparse.Namespace) -> dict[str, Any]:
    """Test a checkpoint on the config's test data by each way of scoring: metrics, and the time that scoring takes."""
    config.load_from, config.resume = args.checkpoint, False
    ways: dict[str, tuple[str, float | None]] = {name: (name, None) for name in args.precisions}
    ways |= {f"{name}, cascade": (name, args.shortlist) for name in args.precisions}
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        config.work_dir, config.experiment_name = scratch, f"benchmark-{Path(scratch).name}"
        config.log_level = "WARNING"
        runner = build_runner(config)
        dataloader = runner.test_loop.dataloader
        runner.load_or_resume()
        reference = None
        for name, (precision, keep) in ways.items():
            pairs = runner.model.eval().pair_encoder(precision=precision)
            run = RetrievalEvaluator(runner.model, pairs, Path(scratch) / name, getLogger(__name__))
            records = run.encode(dataloader)
            rounds: list[Any] = []
            seconds = time_scoring(run, records, keep, args, rounds)
            scores, chosen = rounds[-1]
            text_video = np.repeat(np.arange(len(records)), [len(record["pieces"]) for record in records])
            reference = scores if reference is None else reference
            report[name] = dict(
                scoring=seconds.to_dict(),
                pairs_per_s=scores.size / seconds.median,
                metrics=retrieval_metrics(scores, text_video),
                largest_difference_of_scores=None if keep else float(np.abs(scores - reference).max()),
            )
            if chosen is not None:
                report[name]["pairs_kept"] = float(chosen.mean())
                report[name]["metrics"] |= shortlist_recall(chosen, text_video)
    return report


def time_scoring(
    run: RetrievalEvaluator, records: list[dict], keep: float | None, args: argparse.Namespace, rounds: list[Any]
) -> Timing:
    """Time the scoring of a gallery that is encoded, from no tile on disk to all of them."""
    folder = run.folder

    def score() -> None:
        run.folder = folder / str(len(rounds))
        rounds.append(run.score(records, keep))

    return time_in_turn({"score": score}, repeats=min(args.repeats, 3), device=args.device, clock=clock_of(args))[
        "score"
    ]


def draw(report: dict[str, Any], picture: Path) -> None:
    """Draw pairs a second by each way, with the limit that the matrix rate sets, and the metrics by each way."""
    kinds = list(report["lengths"])
    figure = Figure(figsize=(4.6 * (len(kinds) + ("ranks" in report)), 4.2), layout="constrained")
    panels = figure.subplots(1, len(kinds) + ("ranks" in report), squeeze=False)[0]
    for axes, kind in zip(panels, kinds, strict=False):
        found = report["lengths"][kind]
        names = list(found["ways"])
        speeds = [found["ways"][name]["pairs_per_s"] for name in names]
        limits = [found["ways"][name]["limit_pairs_per_s"] for name in names]
        axes.bar(
            names, limits, color="none", edgecolor="#555555", linestyle="--", label="matrix rate, useful tokens alone"
        )
        bars = axes.bar(names, speeds, color=["#bbbbbb", "#2b83ba", "#1a9641", "#fdae61"][: len(names)])
        shares = [found["ways"][name]["useful_share_of_matrix_rate"] for name in names]
        texts = [f"{speed:.3g}\n{share:.0%}" for speed, share in zip(speeds, shares, strict=True)]
        axes.bar_label(bars, texts, label_type="center", fontsize=9)
        axes.set_ylabel("pairs of a text and a clip per second")
        axes.set_title(f"{kind}: {found['mean_length']:.0f} of at most {found['longest']} tokens", fontsize=10)
        axes.legend(fontsize=8, loc="upper left")
        axes.margins(y=0.2)
    if "ranks" in report:
        draw_ranks(panels[-1], report["ranks"])
    where = report["environment"]
    figure.suptitle(
        f"{report.get('config', '')} on {where['device']}, {where['threads']} threads, {where['date']}", fontsize=9
    )
    save_figure(figure, picture)


def draw_ranks(axes: Any, ranks: dict[str, Any]) -> None:
    """Draw recall by each way of scoring."""
    columns = [f"{way}/{name}" for way in ("t2v", "v2t") for name in ("R@1", "R@5", "R@10")]
    width = 0.8 / len(ranks)
    for i, (name, found) in enumerate(ranks.items()):
        places = np.arange(len(columns)) + (i - (len(ranks) - 1) / 2) * width
        values = [found["metrics"][column] for column in columns]
        axes.bar(places, values, width, label=f"{name} ({found['pairs_per_s']:.3g} pairs/s)")
    axes.set_xticks(range(len(columns)), columns, fontsize=8)
    axes.set_ylabel("%")
    axes.set_title("recall by each way", fontsize=10)
    axes.legend(fontsize=7, loc="lower right")
