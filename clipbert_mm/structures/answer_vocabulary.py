"""Reading answer vocabularies, by which datasets number answers and metrics name them."""

import os
from collections.abc import Sequence
from typing import Any

from clipbert_mm.errors import AnnotationError, quoted
from clipbert_mm.json_text import BOM, decode, is_blank, is_valid_unicode, parse_json, reject_unpaired_surrogates

EXPECTED = 'a JSON object such as {"yes": 0, "no": 1}'

CANDIDATES = "candidate answers"
"""The task of questions whose candidate answers come with each question, or from a vocabulary that is no part of the model."""


def read_answers(answers: str | Sequence[str]) -> dict[str, int]:
    """Read an answer vocabulary: the index of each answer, 0 to the number of answers - 1.

    Args:
        answers: The answers in the order of their indices; or a file with a JSON object from each answer to its index, with a
            JSON list of them, with ``id2label`` as Hugging Face's config.json, or, if its name ends in .txt, with one per line,
            as MMAction2's ``label_map.txt``.

    Raises:
        AnnotationError: If the file is missing, is not such a file, skips an index, or has no answer or a duplicate one.

    >>> read_answers(["jumping", "running"])
    {'jumping': 0, 'running': 1}
    """
    if not isinstance(answers, str):
        return _numbered(answers, "The answers, number")
    path = answers
    if not os.path.isfile(path):
        raise AnnotationError(
            f"There is no answer vocabulary {os.path.abspath(path)}. Set answer_file of the dataset, or answers of "
            "ClipBertTransforms."
        )
    with open(path, "rb") as file:
        text = decode(file.read().removeprefix(BOM), path)
    if path.endswith(".txt") and not text.lstrip().startswith(("{", "[")):
        return _numbered([line.strip() for line in text.rstrip().split("\n")], f"{path}, line", first=1)
    parsed = parse_json(text, path, EXPECTED)
    reject_unpaired_surrogates(parsed, text, path)
    if isinstance(parsed, list):
        return _numbered(parsed, f"{path}, number")
    if isinstance(parsed, dict) and isinstance(labels := parsed.get("id2label"), dict):
        return _numbered([labels.get(str(i)) for i in range(len(labels))], f"{path}, id2label")
    indices = list(parsed.values()) if isinstance(parsed, dict) else []
    if not indices or not all(type(i) is int for i in indices) or sorted(indices) != list(range(len(indices))):
        raise AnnotationError(
            f"{path}: expected {EXPECTED} whose numbers are 0 to the number of answers - 1, each once."
        )
    return parsed


def _numbered(answers: Sequence[Any], where: str, first: int = 0) -> dict[str, int]:
    """Number answers from 0 on; errors count them from ``first`` on."""
    numbered: dict[str, int] = {}
    for index, answer in enumerate(answers):
        if not isinstance(answer, str) or is_blank(answer) or not is_valid_unicode(answer):
            raise AnnotationError(f"{where} {index + first}: expected the name of an answer, got {quoted(answer)}.")
        if answer in numbered:
            unit = where.rpartition(" ")[2]
            raise AnnotationError(
                f"{where} {index + first}: expected each answer once, and {quoted(answer)} is also {unit} "
                f"{numbered[answer] + first}. Give them different names."
            )
        numbered[answer] = index
    if not numbered:
        raise AnnotationError(f"{where} {first}: expected the name of an answer, got none.")
    return numbered
