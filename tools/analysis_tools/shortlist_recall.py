#!/usr/bin/env python
"""What a shortlist by vectors, or by coarse tokens, keeps: shortlist_recall.py CONFIG CHECKPOINT."""

import argparse
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.config import DictAction
from torch import Tensor

from clipbert_mm.engine.config import load_config
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.evaluation.retrieval_metric import query_figures, relevance
from clipbert_mm.fileio import atomic_write
from clipbert_mm.registry import LOOPS
from clipbert_mm.retrieval.evaluator import RetrievalEvaluator, score_block
from clipbert_mm.retrieval.loops import RetrievalTestLoop
from clipbert_mm.retrieval.rerank import candidates, merge_scores, shortlist

RECALLS = ("R@1", "R@5", "R@10")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Compute the table and print it; returns what it is made of."""
    parser = argparse.ArgumentParser(description="What a shortlist by vectors, or by coarse tokens, keeps")
    parser.add_argument("config", help="config with a test of retrieval")
    parser.add_argument("checkpoint", help="checkpoint file")
    parser.add_argument("--shares", type=float, nargs="+", default=[0.01, 0.05, 0.1, 0.2], help="of the videos")
    parser.add_argument("--queries", type=int, metavar="N", help="texts, evenly spread (default: all)")
    parser.add_argument(
        "--temperature", type=float, default=0.1, help="difference of similarities that counts e-fold (default: 0.1)"
    )
    parser.add_argument("--work-dir", help="folder for logs (default: work_dirs/<config name>)")
    parser.add_argument("--out", metavar="FILE.json", help="write the figures to a file")
    parser.add_argument(
        "--cfg-options", nargs="+", action=DictAction, metavar="KEY=VALUE", help="settings that override the config's"
    )
    args = parser.parse_args(argv)
    config = load_config(args.config, args.cfg_options, needs=("model", "test_cfg", "test_dataloader"))
    name = os.path.splitext(os.path.basename(args.config))[0]
    config.work_dir = args.work_dir or config.get("work_dir") or os.path.join("work_dirs", name)
    config.load_from, config.resume = args.checkpoint, False
    test = {key: value for key, value in config.test_cfg.items() if key not in ("type", "shortlist")}
    own = dict(shares=args.shares, temperature=args.temperature, queries=args.queries)
    config.test_cfg = dict(test, type="ShortlistRecallLoop", **own)
    figures = build_runner(config).test()
    print(table(figures))
    if args.out is not None:
        with atomic_write(args.out) as file:
            json.dump(figures, file, indent=1)
    return figures


@LOOPS.register_module(force=True)
class ShortlistRecallLoop(RetrievalTestLoop):
    """Score all pairs, and what chooses a shortlist; resumes as the test does.

    Args:
        shares: Shares of the videos that a shortlist keeps.
        temperature: Difference of similarities that counts e-fold where clips are weighted by their own.
        queries: Number of texts, evenly spread, that are looked for; None for all.
        **options: As of :class:`~clipbert_mm.retrieval.loops.RetrievalTestLoop`.
    """

    def __init__(
        self,
        *args: Any,
        shares: Sequence[float],
        temperature: float,
        queries: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.shortlist = list(shares)  # type: ignore[assignment]  # results of another test are not mixed with these
        self.shares, self.temperature, self.queries = shares, temperature, queries

    def _evaluate(self, evaluator: RetrievalEvaluator) -> dict[str, Any]:
        encoder = evaluator.model.encoder
        encoder.has_vectors, has_vectors = False, encoder.has_vectors  # so that coarse tokens are kept, not vectors
        try:
            records = ask(evaluator.encode(self.dataloader), self.queries)
            texts = [np.array(ids, np.int64) for record in records for ids in record["pieces"]]
            names = [f"{record['sample_idx']:07d}" for record in records]
            full, _ = evaluator.score(records)
            ranked = {"coarse tokens": coarse_scores(evaluator, texts, names)}
        finally:
            encoder.has_vectors = has_vectors
        if has_vectors:
            similarity = similarities(evaluator, texts, names)  # (M, V, K)
            scaled = similarity / self.temperature
            ranked["vectors, max"] = similarity.amax(dim=2).numpy()
            ranked["vectors, mean"] = similarity.mean(dim=2).numpy()
            ranked["vectors, logsumexp"] = scaled.logsumexp(dim=2).numpy()
            ranked["vectors, query-weighted"] = (scaled.softmax(dim=2) * similarity).sum(dim=2).numpy()
        ranked["chance"] = np.random.default_rng(0).random(full.shape)
        text_video = np.repeat(np.arange(len(records)), [len(record["pieces"]) for record in records])
        return summarize(full, ranked, text_video, self.shares)


def ask(records: Sequence[dict[str, Any]], queries: int | None) -> list[dict[str, Any]]:
    """Return the records of the readable videos with some of their texts, evenly spread; None for all."""
    readable = [record for record in records if record["broken"] is None]
    count = sum(len(record["pieces"]) for record in readable)
    asked = set(np.linspace(0, count - 1, min(queries or count, count)).round().astype(int).tolist())
    numbers = iter(range(count))
    return [record | dict(pieces=[ids for ids in record["pieces"] if next(numbers) in asked]) for record in readable]


def coarse_scores(evaluator: RetrievalEvaluator, texts: Sequence[np.ndarray], names: Sequence[str]) -> np.ndarray:
    """Score texts with videos by their coarse tokens, (M, V)."""
    encoded = evaluator.pairs.encode_texts(texts)
    return np.concatenate(
        [
            score_block(evaluator.model, evaluator.pairs, encoded, evaluator.store.read(names[i : i + 16], "coarse"))
            for i in range(0, len(names), 16)
        ],
        axis=1,
    )


@torch.no_grad()
def similarities(evaluator: RetrievalEvaluator, texts: Sequence[np.ndarray], names: Sequence[str]) -> Tensor:
    """Return the cosine similarities of the vectors of texts and of each clip of videos, (M, V, K)."""
    encoder, vectors = evaluator.model.encoder, evaluator.pairs.encode_texts(texts).vectors
    clips = [encoder.clip_vectors(evaluator.model.clip_fusion(evaluator.store.read([name]))) for name in names]
    return torch.einsum("mp,vkp->mvk", vectors.float(), torch.cat(clips).float()).cpu()


def summarize(
    full: np.ndarray, ranked: Mapping[str, np.ndarray], text_video: np.ndarray, shares: Sequence[float]
) -> dict[str, Any]:
    """Compute what shortlists keep.

    Args:
        full: Scores of all pairs with all clips, (M, V).
        ranked: Scores by which videos are chosen, (M, V), by what they are from.
        text_video: The video of each text, (M,).
        shares: Shares of the videos that a shortlist keeps.

    Returns:
        By what ``ranked`` is from and share, in percent: how often the right video is in the shortlist (``right``), and the
        video that is first of all (``top-1``), the part of the first ten that are in it (``top-10``), and the recalls of
        ranking the shortlist with all clips. Also these ``exhaustive`` recalls, and the numbers of ``texts`` and ``videos``.
    """
    texts, videos = full.shape
    best = np.argsort(-full, axis=1, kind="stable")[:, :10]  # (M, 10)
    found: dict[str, Any] = dict(texts=texts, videos=videos, exhaustive=recalls(full, text_video), shortlists={})
    for name, scores in ranked.items():
        of_name = found["shortlists"][name] = {}
        for share in shares:
            chosen = shortlist(scores, candidates(share, videos), 0)
            kept = np.take_along_axis(chosen, best, axis=1)  # (M, 10)
            of_name[f"{share:g}"] = {
                "right": 100 * float(chosen[np.arange(texts), text_video].mean()),
                "top-1": 100 * float(kept[:, 0].mean()),
                "top-10": 100 * float(kept.mean()),
                **recalls(merge_scores(scores, full, chosen), text_video),
            }
    return found


def recalls(scores: np.ndarray, text_video: np.ndarray) -> dict[str, float]:
    """Return the recalls of text-to-video retrieval, in percent."""
    figures = query_figures(scores, relevance(text_video, scores.shape[1]))
    return {name: 100 * float(figures[name].mean()) for name in RECALLS}


def table(found: Mapping[str, Any]) -> str:
    """Lay the figures out as a Markdown table."""
    columns = ("right", "top-1", "top-10", *RECALLS)
    lines = [f"{found['texts']} texts, {found['videos']} videos, in percent", ""]
    lines += [f"| shortlist by | of the videos | {' | '.join(columns)} |", "| --- | --- |" + " --- |" * len(columns)]
    for name, of_name in found["shortlists"].items():
        for share, row in of_name.items():
            values = " | ".join(f"{row[column]:.1f}" for column in columns)
            lines.append(f"| {name} | {float(share):.0%} | {values} |")
    values = " | ".join(f"{found['exhaustive'][name]:.1f}" for name in RECALLS)
    return "\n".join([*lines, f"| none: all pairs | 100% | 100.0 | 100.0 | 100.0 | {values} |"])


if __name__ == "__main__":
    run_tool(main)
