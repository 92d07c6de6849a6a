"""What became of each query of a test: kept in one small file, from what the metrics write."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import precision_figures, read_rankings
from clipbert_mm.evaluation.retrieval_metric import query_figures
from clipbert_mm.fileio import atomic_write

OUTCOMES = "outcomes.json"


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
        raise OptionError(
            f"The test in {folder} has no RetrievalMetric and no AnswerAccuracy, which give outcomes by query."
        )
    with atomic_write(folder / OUTCOMES) as file:
        json.dump({name: [round(value, 6) for value in values] for name, values in outcomes.items()}, file)
    for path in (rankings, rankings.with_suffix(".npy"), answers):
        path.unlink(missing_ok=True)


def read_outcomes(folder: Path) -> dict[str, np.ndarray]:
    """Return the outcomes of each query by metric, (Q,) each."""
    kept: dict[str, Any] = json.loads((folder / OUTCOMES).read_text(encoding="utf-8"))
    return {name: np.array(values) for name, values in kept.items()}
