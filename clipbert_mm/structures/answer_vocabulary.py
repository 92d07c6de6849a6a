"""Answer vocabularies, which datasets label by and metrics read back."""

import os

from clipbert_mm.errors import AnnotationError
from clipbert_mm.json_text import BOM, decode, parse_json, refuse_half_characters

EXPECTED = 'a JSON object such as {"yes": 0, "no": 1}'


def read_answers(path: str) -> dict[str, int]:
    """Read an answer vocabulary: a JSON object from each answer to its place, 0 to the number of answers - 1.

    Raises:
        AnnotationError: If the file is missing, is no such object, leaves a place out, or has no answer or one twice.
    """
    if not os.path.isfile(path):
        raise AnnotationError(f"There is no answer vocabulary {os.path.abspath(path)}. Set answer_file of the dataset.")
    with open(path, "rb") as file:
        text = decode(file.read().removeprefix(BOM), path)
    answers = parse_json(text, path, EXPECTED)
    places = list(answers.values()) if isinstance(answers, dict) else []
    if not places or not all(type(place) is int for place in places) or sorted(places) != list(range(len(places))):
        raise AnnotationError(
            f"{path}: expected {EXPECTED} whose numbers are 0 to the number of answers - 1, each once."
        )
    refuse_half_characters(answers, text, path)
    return answers
