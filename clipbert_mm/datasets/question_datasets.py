"""Videos or images with questions."""

import json
import logging
import os
from typing import Any

import numpy as np
from mmengine.logging import print_log

from clipbert_mm.datasets.annotations import AnnotationError, check_files, read_records
from clipbert_mm.datasets.media_dataset import MediaDataset
from clipbert_mm.registry import DATASETS
from clipbert_mm.structures import IGNORED


def read_answers(path: str) -> dict[str, int]:
    """Read an answer vocabulary: a JSON object from each answer to its place, 0 to the number of answers - 1.

    Raises:
        AnnotationError: If the file is missing, is no such object, or leaves a place out.
    """
    if not os.path.isfile(path):
        raise AnnotationError(f"There is no answer vocabulary {os.path.abspath(path)}. Set answer_file of the dataset.")
    with open(path, encoding="utf-8") as file:
        try:
            answers = json.load(file)
        except ValueError as error:
            raise AnnotationError(
                f'{path}: expected a JSON object such as {{"yes": 0, "no": 1}}, got {error}.'
            ) from None
    places = sorted(answers.values(), key=str) if isinstance(answers, dict) else None
    if places is None or not all(type(place) is int for place in places) or sorted(places) != list(range(len(places))):
        raise AnnotationError(
            f'{path}: expected a JSON object such as {{"yes": 0, "no": 1}} whose numbers are 0 to the number of answers - 1, '
            "each once."
        )
    return answers


@DATASETS.register_module()
class OpenEndedDataset(MediaDataset):
    """Videos with open-ended questions, whose answers are words of a vocabulary.

    The annotation file has one JSON object a line, ``{"video": "a.mp4", "question": "...", "answer": "..."}``. An answer
    outside the vocabulary cannot be learnt, so training leaves its question out; in testing its question counts as wrong.
    In testing the questions of a video share a visual pass.

    Args:
        answer_file: JSON file from each answer to its place in the vocabulary, relative to ``data_root``.
        **options: Those of :class:`~clipbert_mm.datasets.media_dataset.MediaDataset`.

    Raises:
        AnnotationError: If a file cannot be used, or files that it names are missing, or no answer is in the vocabulary.
    """

    def __init__(self, *, answer_file: str, data_root: str = "", **options: Any) -> None:  # noqa: ANN401
        self.answers = read_answers(os.path.join(data_root, answer_file))
        super().__init__(data_root=data_root, **options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file: one dict with ``path``, ``questions`` and ``labels`` an item."""
        records = read_records(self.ann_file, ("video", "question", "answer"))
        known = [record for record in records if record["answer"] in self.answers]
        if len(known) < len(records):
            fate = "count as wrong" if self.test_mode else "are left out"
            print_log(
                f"{self.ann_file}: the answers of {len(records) - len(known)} of {len(records)} questions are not in the "
                f"vocabulary of {len(self.answers)}; they {fate}.",
                logger="current",
                level=logging.WARNING,
            )
        if not known:
            raise AnnotationError(
                f"{self.ann_file}: no answer is in the vocabulary of {len(self.answers)}, the first is "
                f"{records[0]['answer']!r}. Set answer_file of the dataset to the vocabulary made with this file."
            )
        items: dict[object, dict[str, Any]] = {}
        for number, record in enumerate(records if self.test_mode else known):
            path = os.path.join(self.data_prefix["media"], record["video"])
            own = items.setdefault(path if self.test_mode else number, dict(path=path, questions=[], labels=[]))
            own["questions"].append(record["question"])
            own["labels"].append(self.answers.get(record["answer"], IGNORED))
        check_files(list(dict.fromkeys(item["path"] for item in items.values())), self.ann_file)
        return list(items.values())

    def prepare(self, idx: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the item's question and its answer."""
        return self.prepare_test(idx) | dict(rng=rng)

    def prepare_test(self, idx: int) -> dict[str, Any]:
        """Return an item of all questions of its video."""
        info = self.get_data_info(idx)
        return info | dict(texts=info.pop("questions"), answer_labels=np.array(info.pop("labels")))
