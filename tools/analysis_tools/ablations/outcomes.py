"""What became of each query of a test: kept in one small file, from what the metrics write."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ablations.checks import naming
from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import precision_figures, read_rankings
from clipbert_mm.evaluation.retrieval_metric import query_figures
from clipbert_mm.fileio import atomic_write
from clipbert_mm.registry import type_name

OUTCOMES = "outcomes.json"
NO_OUTCOMES = "The test has no RetrievalMetric and no AnswerAccuracy, which give outcomes by query."
SINGLE_METRICS = ("R@1", "R@5", "R@10", "MdR", "MnR")
MULTI_POSITIVE_METRICS = ("mAP", "R-precision")
"""Those that a RetrievalMetric with ``multi_positive`` also gives."""


def reported_metrics(evaluator: Any) -> list[str]:
    """Return the metrics that can be computed from the outcomes of a test, see :func:`collect_outcomes`.

    Args:
        evaluator: ``test_evaluator`` of the test's config.

    >>> reported_metrics([dict(type="AnswerAccuracy"), dict(type="Accuracy")])
    ['accuracy']
    """
    known: list[str] = []
    for metric in [evaluator] if isinstance(evaluator, Mapping) else evaluator or ():
        name = type_name(metric).rpartition(".")[2]
        if name == "RetrievalMetric":
            own = SINGLE_METRICS + (MULTI_POSITIVE_METRICS if metric.get("multi_positive") else ())
            known += [f"{way}/{each}" for way in ("t2v", "v2t") for each in own]
        if name == "AnswerAccuracy":
            known.append("accuracy")
    return known


def collect_outcomes(folder: Path) -> None:
    """Write outcomes.json from the files that the metrics of a test left, and remove those.

    Raises:
        OptionError: If no metric of the test wrote any.
    """
    outcomes: dict[str, list[float]] = {}
    rankings, answers = folder / "rankings.json", folder / "answers.json"
    if rankings.is_file():
        read = read_rankings(rankings)
        several = any(isinstance(video, list) for video in read["text_video"])
        for way, scores, relevant in (
            ("t2v", read["scores"], read["relevant"]),
            ("v2t", read["scores"].T, read["relevant"].T),
        ):
            figures = query_figures(scores, relevant) | (precision_figures(scores, relevant) if several else {})
            outcomes |= {f"{way}/{name}": values.tolist() for name, values in figures.items()}
    if answers.is_file():
        outcomes["accuracy"] = json.loads(answers.read_text(encoding="utf-8"))["correct"]
    if not outcomes:
        raise OptionError(f"{folder}: {NO_OUTCOMES}")
    with atomic_write(folder / OUTCOMES) as file:
        json.dump({name: [round(value, 6) for value in values] for name, values in outcomes.items()}, file)
    for path in (rankings, rankings.with_suffix(".npy"), answers):
        path.unlink(missing_ok=True)


def read_outcomes(folder: Path) -> dict[str, np.ndarray]:
    """Return the outcomes of each query by metric, (Q,) each.

    Raises:
        OptionError: If the file is damaged.
    """
    with naming(folder / OUTCOMES, f"Remove the folder {folder}, and the test is run again."):
        kept: dict[str, Any] = json.loads((folder / OUTCOMES).read_text(encoding="utf-8"))
        return {name: np.array([float(value) for value in values]) for name, values in kept.items()}
