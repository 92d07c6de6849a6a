"""Reading answer vocabularies, by which datasets number answers and metrics name them."""

import os

from clipbert_mm.errors import AnnotationError
from clipbert_mm.json_text import BOM, decode, parse_json, reject_unpaired_surrogates

EXPECTED = 'a JSON object such as {"yes": 0, "no": 1}'


def read_answers(path: str) -> dict[str, int]:
    """Read an answer vocabulary: a JSON object from each answer to its index, 0 to the number of answers - 1.

    Raises:
        AnnotationError: If the file is missing, is not such an object, skips an index, or has no answer or a duplicate one.
    """
    if not os.path.isfile(path):
        raise AnnotationError(f"There is no answer vocabulary {os.path.abspath(path)}. Set answer_file of the dataset.")
    with open(path, "rb") as file:
        text = decode(file.read().removeprefix(BOM), path)
    answers = parse_json(text, path, EXPECTED)
    indices = list(answers.values()) if isinstance(answers, dict) else []
    if not indices or not all(type(i) is int for i in indices) or sorted(indices) != list(range(len(indices))):
        raise AnnotationError(
            f"{path}: expected {EXPECTED} whose numbers are 0 to the number of answers - 1, each once."
        )
    reject_unpaired_surrogates(answers, text, path)
    return answers
