#!/usr/bin/env python
"""Make an answer vocabulary: python tools/dataset_converters/answer_vocabulary.py qa_train.jsonl --out answers.json.

Reads files of open-ended questions, ``{"video", "question", "answer"}`` a line, and writes a JSON file from their most frequent
answers to 0, 1, ...: the ``answer_file`` of OpenEndedDataset, whose size is the ``num_answers`` of the head. Prints which share
of the questions of these files, and of those after ``--check``, it can answer: no accuracy can be higher.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from conversion import expect, most_common_answers
from writing import write_answers

from clipbert_mm.command_options import at_least
from clipbert_mm.datasets import OpenEndedDataset
from clipbert_mm.datasets.annotations import read_records
from clipbert_mm.engine.run_tool import run_tool


def read_questions(path: str) -> list[dict[str, Any]]:
    """Read a file of open-ended questions."""
    return read_records(path, OpenEndedDataset.KEYS, OpenEndedDataset.EXAMPLE)


def describe_coverage(answers: Mapping[str, int], files: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return the size of a vocabulary and which share of the questions of each file it can answer, as text.

    >>> describe_coverage({"red": 0}, {"test": [{"answer": "red"}, {"answer": "blue"}], "val": []})
    ['1 answers', "test: 50.0 % of 2 questions have an answer of the vocabulary; not 'blue'"]
    """
    lines = [f"{len(answers):,} answers"]
    for name, questions in files.items():
        missing = Counter(question["answer"] for question in questions if question["answer"] not in answers)
        if questions:
            share = 1 - missing.total() / len(questions)
            others = ", ".join(repr(answer) for answer, _ in missing.most_common(5))
            more = f"; not {others}{' and others' if len(missing) > 5 else ''}" if missing else ""
            whole = f"{100 * share:.1f} % of {len(questions):,} questions"
            lines.append(f"{name}: {whole} have an answer of the vocabulary{more}")
    return lines


def main(argv: list[str] | None = None) -> None:
    """Write the vocabulary."""
    parser = argparse.ArgumentParser(description="Make the vocabulary of the most frequent answers")
    parser.add_argument("files", nargs="+", help="JSON-lines files of the questions to train on")
    parser.add_argument("--out", required=True, help="JSON file to write")
    parser.add_argument(
        "--num-answers", type=at_least(1), default=1500, help="size, at most (default: 1500, the paper's)"
    )
    parser.add_argument("--min-count", type=int, default=1, help="how often an answer comes, at least (default: 1)")
    parser.add_argument(
        "--check", nargs="+", default=[], metavar="FILE", help="files to say the coverage of, such as the test's"
    )
    args = parser.parse_args(argv)
    files = {path: read_questions(path) for path in [*args.files, *args.check]}
    counts = Counter(question["answer"] for path in args.files for question in files[path])
    often = [answer for answer in counts.elements() if counts[answer] >= args.min_count]
    answers = most_common_answers(often, args.num_answers)
    expect(
        bool(answers), "--num-answers, --min-count", "numbers that leave an answer", (args.num_answers, args.min_count)
    )
    write_answers(answers, args.out)
    print(*describe_coverage(answers, files), f"written to {args.out}", sep="\n")


if __name__ == "__main__":
    run_tool(main)
