"""Answer vocabularies, which datasets label by and metrics read back."""

import json
import os

from clipbert_mm.errors import AnnotationError


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
