"""Reading MSRVTT-QA and MSVD-QA, which one group made in one layout (Xu et al., Gradually Refined Attention, 2017).

Lists of ``{"id": 1, "video_id": 7010, "question": "who cooks?", "answer": "man"}`` at
https://data.mendeley.com/datasets/bvxhs33bw6 (MSRVTT-QA) and https://data.mendeley.com/datasets/h5j7cpwnvn (MSVD-QA).
"""

import re
from collections.abc import Callable
from typing import Any

from conversion import expect, expect_once, read_entries, text_in, whole_number_in

ANSWER_TYPES = ("what", "who", "how", "where", "when")


def read_questions(
    path: str, prefix: str, numbers: range, expected: str, file_of: Callable[[int], str]
) -> list[dict[str, Any]]:
    """Read the questions of a split into our records.

    Args:
        path: The file.
        prefix: What the id of a video has in front of its number: "video" or "vid".
        numbers: The numbers of the videos of the split.
        expected: What videos of the split are, for errors.
        file_of: Returns the file of a video by its number.

    Raises:
        AnnotationError: If the file is something else or of another split or data set.
    """
    records = []
    seen: set[int] = set()
    for where, entry in read_entries(path):
        question = text_in(entry, "question", where)
        first = re.match("[a-z]*", question.lower())
        kind = first.group() if first else ""
        question_id = whole_number_in(entry, "id", where)
        expect_once(question_id, seen, where, "id")
        video = entry.get("video_id", f"the keys {', '.join(entry)}")
        name = f"{prefix}{video}" if type(video) is int else str(video)
        is_id = re.fullmatch(f"{prefix}[0-9]{{1,9}}", name) is not None
        expect(is_id, where, f"a video_id such as {numbers[0]} or {prefix}{numbers[0]}", video)
        number = int(name.removeprefix(prefix))
        expect(number in numbers, where, expected, name)
        records.append(
            {
                "video": file_of(number),
                "question": question,
                "answer": text_in(entry, "answer", where),
                "answer_type": kind if kind in ANSWER_TYPES else "other",
                "question_id": question_id,
            }
        )
    return records
