"""What the converters share on the way out: options, vocabularies and files."""

import argparse
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from conversion import Published, check_suffix, compare_counts, most_common_answers, warn_of_shared

from clipbert_mm.errors import AnnotationError
from clipbert_mm.fileio import atomic_write
from clipbert_mm.json_text import write_records

Records = list[dict[str, Any]]
ENDINGS = (".mp4", ".mkv", ".webm", ".avi", ".mov", ".flv", ".m4v", ".3gp")
"""Of videos, in the order of choice, should one be there twice."""


class StoreSuffix(argparse.Action):
    """Store the value of --suffix; raise an AnnotationError if it is no file ending."""

    def __call__(
        self, parser: object, namespace: argparse.Namespace, values: Any, option_string: object = None
    ) -> None:
        """Check and store."""
        check_suffix(values)
        namespace.suffix = values


def file_options(suffix: str) -> argparse.ArgumentParser:
    """Return the options that the converters of videos share, for ``parents`` of their parsers.

    Args:
        suffix: Ending of the videos' files unless the user names another one.
    """
    shared = argparse.ArgumentParser(add_help=False)
    text = f"ending of the videos' files (default: {suffix})"
    shared.add_argument("--suffix", action=StoreSuffix, default=suffix, help=text)
    shared.add_argument("--strict", action="store_true", help="refuse counts that are not the published ones")
    return shared


def add_out(parser: argparse.ArgumentParser) -> None:
    """Add the last argument, OUT."""
    parser.add_argument("out", help="folder of the data set; the files go to its folder annotations")


def find_videos(folder: str) -> dict[str, str]:
    """Return the file name of each video in a folder, by its id."""
    if not os.path.isdir(folder):
        raise AnnotationError(f"There is no folder {os.path.abspath(folder)}. --videos takes the folder of the videos.")
    found: dict[str, str] = {}
    for ending in reversed(ENDINGS):
        found |= {name.removesuffix(ending): name for name in os.listdir(folder) if name.endswith(ending)}
    return found


def describe_coverage(split: str, records: Sequence[Mapping[str, Any]], answers: Mapping[str, int]) -> str:
    """Return which share of the questions of a split a vocabulary can answer, as text.

    >>> describe_coverage("test", [{"answer": "red"}, {"answer": "blue"}], {"red": 0})
    'test: 50.00% of the questions have an answer in the vocabulary: no accuracy can be higher'
    """
    share = sum(record["answer"] in answers for record in records) / len(records)
    limit = "" if split == "train" else ": no accuracy can be higher"
    return f"{split}: {share:.2%} of the questions have an answer in the vocabulary{limit}"


def write_answers(answers: Mapping[str, int], path: str | os.PathLike) -> None:
    """Write a vocabulary."""
    with atomic_write(path) as file:
        json.dump(answers, file, ensure_ascii=False, indent=0)


def write_files(out: str, files: Mapping[str, Iterable[Mapping[str, Any]]], report: Iterable[str]) -> None:
    """Write annotation files to the folder of a data set, then print the report.

    Args:
        out: The folder; the files go to its folder annotations.
        files: The records of each file, by its name.
        report: Lines to print.
    """
    folder = Path(out) / "annotations"
    for name, records in files.items():
        write_records(records, folder / name)
    print(*report, f"written to {folder}", sep="\n")


def write_open_ended(
    args: argparse.Namespace,
    questions: Mapping[str, Records],
    published: Mapping[str, Published],
    num_answers: int | None,
    prefix: str = "qa",
) -> None:
    """Write open-ended questions as ``<prefix>_<split>.jsonl`` and ``<prefix>_answers.json``, the most common training answers.

    Args:
        args: ``num_answers``, ``out`` and ``strict`` of the command line.
        questions: The records of each split; train is one.
        published: How many questions of each split were published.
        num_answers: Size of the published vocabulary; None if none was published.
        prefix: What the file names begin with.
    """
    answers = most_common_answers((record["answer"] for record in questions["train"]), args.num_answers)
    counts = [
        (f"{prefix}_{split}.jsonl: {split} questions", len(own), published[split]) for split, own in questions.items()
    ]
    counts.append(
        (f"{prefix}_answers.json: answers", len(answers), num_answers if args.num_answers == num_answers else None)
    )
    report = compare_counts(counts, args.strict)
    report += warn_of_shared({split: {record["video"] for record in own} for split, own in questions.items()})
    report += [describe_coverage(split, own, answers) for split, own in questions.items()]
    write_answers(answers, Path(args.out) / "annotations" / f"{prefix}_answers.json")
    write_files(args.out, {f"{prefix}_{split}.jsonl": own for split, own in questions.items()}, report)
