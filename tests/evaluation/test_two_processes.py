"""Two processes, of which one has an item more, find the very metrics that one finds."""

import json
import multiprocessing
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import distributed

from clipbert_mm.registry import METRICS
from clipbert_mm.structures import VideoTextSample

ITEMS = 7
ANSWERS = {"circle": 0, "two": 1, "blue": 2, "a man": 3, "no": 4}


def sample(i: int, **fields: Any) -> VideoTextSample:
    """A predicted sample."""
    metainfo = {name: fields.pop(name) for name in ("answer_types", "question_ids") if name in fields}
    made = VideoTextSample(metainfo=dict(path=f"{i}.mp4", broken="cut short" if i == 4 else None) | metainfo)
    made.set_data(fields)
    return made


def predictions(kind: str) -> list[Any]:
    """What a model might say of seven items with one to three texts each; scores are few, so that some tie."""
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 4, ITEMS)
    read = [i for i in range(ITEMS) if i != 4]
    texts = int(counts[read].sum())
    made = []
    for i, m in enumerate(counts.tolist()):
        scores = torch.from_numpy(rng.integers(0, 3, (m, len(ANSWERS))) / 3)
        types = [("what", "who")[k] for k in rng.integers(0, 2, m)]
        if kind == "RetrievalMetric":
            own = None if i == 4 else rng.integers(0, 6, texts).astype(float)
            moments = dict(
                spans=[[[0, 1 + k]] if k else None for k in range(m)],
                clip_times=[[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]],
                clip_scores=rng.integers(0, 3, (m, 3)).astype(float),
            )
            made.append(
                dict(
                    sample_idx=i,
                    path=f"{i}.mp4",
                    texts=[f"text {(i + k) % 3}" for k in range(m)],
                    broken=None if own is not None else "cut",
                    scores=own,
                )
                | ({} if own is None else moments)
            )
        elif kind == "AnswerAccuracy":
            made.append(sample(i, scores=scores, answer_labels=rng.integers(-1, len(ANSWERS), m), answer_types=types))
        elif kind == "VQAAccuracy":
            truth = rng.integers(0, 4, scores.shape) / 3
            ids = [f"{i}-{k}" for k in range(m)]
            made.append(sample(i, scores=scores, answer_scores=truth, answer_types=types, question_ids=ids))
        elif kind == "CountError":
            made.append(sample(i, scores=scores[:, 0] * 9, counts=rng.integers(1, 11, m).astype(np.float32)))
        else:
            words = torch.from_numpy(rng.random(2 * m) < 0.5)
            made.append(sample(i, scores=scores[:, 0] - 1 / 3, match_labels=rng.integers(0, 2, m), mlm_correct=words))
    return made


def evaluate(kind: str, options: dict[str, Any], rank: int, processes: int) -> dict[str, float]:
    """The metrics as one of so many processes finds them, with its share as MMEngine's sampler deals it."""
    made = predictions(kind)
    metric = METRICS.build(dict(type=kind, **options))
    metric.dataset_meta = None
    rounded_up = -(-ITEMS // processes) * processes
    for place in range(rank, rounded_up, processes):
        entry = made[place % ITEMS]
        metric.process(None, [entry if isinstance(entry, dict) else entry.to_dict()])
    return metric.evaluate(ITEMS)


def be_one_of_two(rank: int, meeting: str, jobs: list[tuple[str, dict[str, Any]]], answer: Connection) -> None:
    """Evaluate as one of two processes."""
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=rank, world_size=2)
    answer.send([evaluate(kind, options, rank, 2) for kind, options in jobs])


def test_two_processes_with_uneven_shares_find_what_one_finds(tmp_path: Path):
    (tmp_path / "answers.json").write_text(json.dumps(ANSWERS))

    def jobs(name: str) -> list[tuple[str, dict[str, Any]]]:
        return [
            ("RetrievalMetric", dict(rankings_file=str(tmp_path / f"{name}-rankings.json"))),
            ("RetrievalMetric", dict(multi_positive=True, calibration=True)),
            ("AnswerAccuracy", {}),
            (
                "VQAAccuracy",
                dict(answer_file=str(tmp_path / "answers.json"), submission_file=str(tmp_path / f"{name}-server.json")),
            ),
            ("CountError", dict(low=1, high=10)),
            ("PretrainingAccuracy", {}),
        ]

    context = multiprocessing.get_context("fork")
    pipes = [context.Pipe() for _ in range(2)]
    workers = [
        context.Process(target=be_one_of_two, args=(rank, str(tmp_path / "meeting"), jobs("two"), theirs), daemon=True)
        for rank, (_, theirs) in enumerate(pipes)
    ]
    for worker in workers:
        worker.start()
    assert all(ours.poll(120) for ours, _ in pipes), "a process has ended"
    first, second = (ours.recv() for ours, _ in pipes)
    alone = [evaluate(kind, options, 0, 1) for kind, options in jobs("one")]
    assert first == second == alone
    assert all(metrics["coverage"] == pytest.approx(600 / 7) for metrics in alone)
    for name in ("rankings", "server"):
        one, two = (json.loads((tmp_path / f"{count}-{name}.json").read_text()) for count in ("one", "two"))
        assert one == two
    asked = sum(len(made.scores) for made in predictions("VQAAccuracy") if made.broken is None)
    assert len({line["question_id"] for line in two}) == len(two) == asked, "each question once"
