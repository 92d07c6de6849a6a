#!/usr/bin/env python
"""Convert MSVD and MSVD-QA as published to JSON lines: python tools/dataset_converters/msvd.py {retrieval,qa} ... OUT.

- ``retrieval CAPTIONS (--mapping FILE | --lists TRAIN VAL TEST) OUT`` takes the captions of Microsoft's corpus (Chen and Dolan,
  Collecting Highly Parallel Data for Paraphrase Evaluation, 2011; https://www.microsoft.com/en-us/download/details.aspx?id=52422),
  a table with the columns VideoID, Start, End, Language and Description, of which the English ones count; or raw-captions.pkl,
  the tokenized captions that later work shares. They become msvd_train.jsonl, msvd_val.jsonl and msvd_test.jsonl.
- ``qa FOLDER [--mapping FILE] OUT`` takes MSVD-QA's train_qa.json, val_qa.json and test_qa.json (Xu et al., 2017), which number
  the videos from 1. They become msvd-qa_train.jsonl, msvd-qa_val.jsonl, msvd-qa_test.jsonl and msvd-qa_answers.json.

The files are in OUT/annotations. A video is named by its YouTube id, start and end, ``mv89psg6zh4_33_46.avi``, as in the
publisher's YouTubeClips. ``--mapping youtube_mapping.txt`` has its number, ``mv89psg6zh4_33_46 vid1``, by which the split goes:
1 to 1200 train, to 1300 validate, to 1970 test (Venugopalan et al., Sequence to Sequence - Video to Text, 2015). ``--lists``
has a list of names for each split instead: train_list.txt, val_list.txt, test_list.txt. Without ``--mapping`` the videos of
MSVD-QA are named by their number, ``vid1.avi``.
"""

import argparse
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from conversion import compare_counts, expect, read_names, read_table, warn_of_shared
from writing import add_out, file_options, write_files, write_open_ended
from xu_qa import read_questions

from clipbert_mm.command_options import at_least
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.errors import AnnotationError, quoted

SPLITS = {"train": range(1, 1201), "val": range(1201, 1301), "test": range(1301, 1971)}
"""Numbers of the videos."""
CAPTIONS = {"train": 48_774, "val": 4_290, "test": 27_763}
"""Of raw-captions.pkl, as CLIP4Clip and later work count them; of the corpus no such number is published."""
QUESTIONS = {"train": 30_933, "val": 6_415, "test": 13_157}
NUM_ANSWERS = 1000
"""Answers of the publisher's vocabulary."""


class PlainUnpickler(pickle.Unpickler):
    """Read pickles of dicts, lists and texts, and nothing that runs code."""

    def find_class(self, module_name: str, global_name: str) -> Any:
        """Refuse all classes and functions."""
        raise pickle.UnpicklingError(f"it has {module_name}.{global_name}")


def read_pickle(path: str) -> Iterator[tuple[str, str, str]]:
    """Read raw-captions.pkl, from names of videos to lists of captions, which are lists of tokens.

    Yields:
        Where each caption stands, its video, and its text.
    """
    expected = "a pickle of names of videos with lists of captions, each a list of words"
    try:
        with open(path, "rb") as file:
            content = PlainUnpickler(file, encoding="utf-8").load()
    except (pickle.UnpicklingError, EOFError, ValueError, AttributeError, ImportError, IndexError, KeyError) as error:
        raise AnnotationError(f"{path}: expected {expected}, got {error}.") from None
    expect(isinstance(content, dict) and bool(content), path, expected, content)
    for video, captions in content.items():
        where = f"{path}, {quoted(video)}"
        expect(isinstance(video, str) and isinstance(captions, list), where, expected, captions)
        for words in captions:
            expect(isinstance(words, list) and all(isinstance(word, str) for word in words), where, expected, words)
            yield where, video, " ".join(words)


def read_corpus(path: str) -> Iterator[tuple[str, str, str]]:
    """Read the English captions of Microsoft's table; yields what :func:`read_pickle` does."""
    for line, row in read_table(path, ("VideoID", "Start", "End", "Language", "Description")):
        if row["Language"] == "English":
            yield f"{path}, line {line}", f"{row['VideoID']}_{row['Start']}_{row['End']}", row["Description"]


def read_mapping(path: str) -> dict[int, str]:
    """Read youtube_mapping.txt: the name of each video by its number."""
    names: dict[int, str] = {}
    for where, line in read_names(path):
        name, _, number = line.rpartition(" vid")
        expect(bool(name) and number.isdecimal(), where, "a line such as mv89psg6zh4_33_46 vid1", line)
        expect(int(number) not in names, where, "each number once", line)
        names[int(number)] = name.strip()
    return names


def read_splits(args: argparse.Namespace) -> dict[str, list[str]]:
    """Read which videos belong to which split."""
    if args.lists:
        return {split: [name for _, name in read_names(path)] for split, path in zip(SPLITS, args.lists, strict=True)}
    names = read_mapping(args.mapping)
    return {split: [names[number] for number in numbers if number in names] for split, numbers in SPLITS.items()}


def convert_retrieval(args: argparse.Namespace) -> None:
    """Write the captions of each split."""
    splits = read_splits(args)
    captions: dict[str, list[str]] = {}
    for where, video, text in (read_pickle if args.captions.endswith(".pkl") else read_corpus)(args.captions):
        expect(bool(video.strip("_ ")), where, "the name of a video", video)
        if text.strip():
            captions.setdefault(video, []).append(" ".join(text.split()))
    shown = {split: [video for video in videos if video in captions] for split, videos in splits.items()}
    counts = [(f"msvd_{split}.jsonl: {split} videos", len(own), len(SPLITS[split])) for split, own in shown.items()]
    for split, videos in shown.items():
        expect(bool(videos), args.captions, f"captions of videos of the split {split}", "none")
        number = sum(len(captions[video]) for video in videos)
        published = CAPTIONS[split] if args.captions.endswith(".pkl") else None
        counts.append((f"msvd_{split}.jsonl: captions", number, published))
    report = compare_counts(counts, args.strict) + warn_of_shared(shown)
    files = {
        f"msvd_{split}.jsonl": [
            {"video": video + args.suffix, "caption": caption} for video in videos for caption in captions[video]
        ]
        for split, videos in shown.items()
    }
    write_files(args.out, files, report)


def convert_questions(args: argparse.Namespace) -> None:
    """Write the questions of all splits, and the answers to choose from."""
    names = (
        read_mapping(args.mapping)
        if args.mapping
        else {number: f"vid{number}" for own in SPLITS.values() for number in own}
    )

    def file_of(number: int) -> str:
        expect(number in names, args.mapping, f"a line for vid{number}", "none")
        return names[number] + args.suffix

    questions = {}
    for split, numbers in SPLITS.items():
        expected = (
            f"a video of MSVD's split {split}, vid{numbers[0]} to vid{numbers[-1]} (MSRVTT-QA's files look alike, but number "
            "other videos: msrvtt.py qa takes them)"
        )
        path = str(Path(args.folder) / f"{split}_qa.json")
        questions[split] = read_questions(path, "vid", numbers, expected, file_of)
    write_open_ended(args, questions, QUESTIONS, NUM_ANSWERS, "msvd-qa")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Convert MSVD and MSVD-QA as published to JSON lines")
    tasks = parser.add_subparsers(required=True, metavar="{retrieval,qa}")
    shared = file_options(".avi")

    task = tasks.add_parser("retrieval", parents=[shared], help="captions")
    task.set_defaults(convert=convert_retrieval)
    task.add_argument("captions", help="Microsoft's table of captions (.csv), or raw-captions.pkl")
    splits = task.add_mutually_exclusive_group(required=True)
    splits.add_argument("--mapping", help="youtube_mapping.txt")
    splits.add_argument("--lists", nargs=3, metavar=("TRAIN", "VAL", "TEST"), help="lists of the videos of each split")
    add_out(task)

    task = tasks.add_parser("qa", parents=[shared], help="MSVD-QA")
    task.set_defaults(convert=convert_questions)
    task.add_argument("folder", help="folder with train_qa.json, val_qa.json and test_qa.json")
    task.add_argument("--mapping", help="youtube_mapping.txt")
    task.add_argument(
        "--num-answers", type=at_least(1), default=NUM_ANSWERS, help="size of the vocabulary (default: 1000)"
    )
    add_out(task)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    args.convert(args)


if __name__ == "__main__":
    run_tool(main)
