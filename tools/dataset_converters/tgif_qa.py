#!/usr/bin/env python
"""Convert TGIF-QA as published to JSON lines: python tools/dataset_converters/tgif_qa.py FOLDER OUT.

FOLDER has the publisher's tables, tab-separated: {Train,Test}_{action,transition,frameqa,count}_question.csv. ``--tasks`` takes
some of them. In OUT/annotations each becomes {action,transition,frameqa,count}_{train,test}.jsonl:

- action, transition: ``{"video", "question", "options": [5], "answer": 0 to 4, "question_id"}``
- frameqa: ``{"video", "question", "answer", "answer_type": object | number | color | location, "question_id"}``; the types are
  the publisher's 0 to 3
- count: ``{"video", "question", "count", "question_id"}``; 10 stands for 10 or more; answers of 0 are lifted to 1, as in the
  publisher's code and HCRN's: models and metric count from 1 to 10

A video is named ``<gif_name>.gif``; where all were converted, ``--suffix .mp4`` names them so. Questions keep the publisher's
ids (ACTION4).

frameqa_answers.json is the vocabulary of frameQA: all answers of the training questions, or with ``--min-count`` those that
come so often. The paper takes a softmax over the training answers; its size, which the head needs as num_answers, is printed
with the share of the test questions that it can answer.

TGIF-QA publishes no validation split. ``--val-share 0.1`` takes about a tenth of the videos of the training questions, with all
their questions, out of the training files into {task}_val.jsonl; which, ``--seed`` says: the same on every machine and in all
tasks. The vocabulary is then of what is left to train on.
"""

import argparse
import hashlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

from conversion import (
    Count,
    Published,
    check_suffix,
    compare_counts,
    expect,
    expect_once,
    most_common_answers,
    read_table,
)
from writing import write_answers

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import seed_number
from clipbert_mm.json_text import write_records

QUESTIONS: dict[str, dict[str, Published]] = {
    "action": {"train": (20_475, 20_471), "test": 2_274},
    "transition": {"train": 52_704, "test": 6_232},
    "frameqa": {"train": 39_392, "test": 13_691},
    "count": {"train": (26_843, 26_839), "test": 3_554},
}
"""Of the files of 2017 and, where there are two, of those of today."""
FEWEST = 1
"""Smallest count; the publisher's code lifts answers of 0 to it."""
ID_PREFIXES = {"action": "ACTION", "transition": "TRANS", "frameqa": "FRAMEQA", "count": "COUNT"}
OPTION_COLUMNS = ("a1", "a2", "a3", "a4", "a5")
COLUMNS = {"action": OPTION_COLUMNS, "transition": OPTION_COLUMNS, "frameqa": ("type",), "count": ()}
"""Columns in addition to those that all tables have: gif_name, question, answer, vid_id."""
ANSWER_TYPES = ("object", "number", "color", "location")

Records = list[dict[str, Any]]


def whole_number(row: dict[str, str], column: str, below: int | None, where: str) -> int:
    """Return the whole number in a cell, from 0 to below ``below`` (None: to anything)."""
    cell = row[column]
    right = re.fullmatch("[0-9]{1,9}", cell) is not None and (below is None or int(cell) < below)
    limit = "0 or more" if below is None else f"0 to {below - 1}"
    expect(right, where, f"a whole number in the column {column}, {limit}", cell)
    return int(cell)


def answer_of(task: str, row: dict[str, str], where: str) -> dict[str, Any]:
    """Return the fields of a record of this task other than its video, question and id."""
    if task == "count":
        return {"count": whole_number(row, "answer", None, where)}
    if task == "frameqa":
        kind = ANSWER_TYPES[whole_number(row, "type", len(ANSWER_TYPES), where)]
        return {"answer": row["answer"], "answer_type": kind}
    options = [row[column] for column in OPTION_COLUMNS]
    expect(all(options), where, f"text in each of the columns {', '.join(OPTION_COLUMNS)}", options)
    return {"options": options, "answer": whole_number(row, "answer", len(options), where)}


def read_questions(path: str, task: str, suffix: str) -> Records:
    """Read a table of the publisher into our records."""
    records: Records = []
    seen: set[str] = set()
    for line, row in read_table(path, ("gif_name", "question", *COLUMNS[task], "answer", "vid_id"), "\t"):
        where = f"{path}, line {line}"
        for column in ("gif_name", "question", "answer"):
            expect(bool(row[column]), where, f"text in the column {column}", row[column])
        question_id = row["vid_id"]
        right = re.fullmatch(rf"{ID_PREFIXES[task]}\d+", question_id) is not None
        expect(right, where, f"a vid_id of the task {task}, such as {ID_PREFIXES[task]}7", question_id)
        expect_once(question_id, seen, where, "vid_id")
        record = {"video": row["gif_name"] + suffix, "question": row["question"]}
        records.append(record | answer_of(task, row, where) | {"question_id": question_id})
    expect(bool(records), path, "a row for each question", "the header alone")
    return records


def lift_counts(records: Records) -> int:
    """Lift counts below ``FEWEST`` to it; returns how many."""
    low = [record for record in records if record["count"] < FEWEST]
    for record in low:
        record["count"] = FEWEST
    return len(low)


def is_validation(video: str, share: float, seed: int) -> bool:
    """Draw whether a training video goes to validation, in a way that no version of Python or NumPy changes."""
    digest = hashlib.sha256(f"{seed} {Path(video).stem}".encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def split_questions(train: Records, share: float, seed: int) -> tuple[Records, Records]:
    """Take the questions of some videos out of the training questions; returns what is left, and them."""
    chosen = [is_validation(record["video"], share, seed) for record in train]
    left = [record for record, taken in zip(train, chosen, strict=True) if not taken]
    return left, [record for record, taken in zip(train, chosen, strict=True) if taken]


def make_vocabulary(train: Records, min_count: int) -> dict[str, int]:
    """Return the answers that come at least so often in training, the most common first."""
    counts = Counter(record["answer"] for record in train)
    answers = most_common_answers(counts.elements(), sum(count >= min_count for count in counts.values()))
    expect(bool(answers), "--min-count", "a number that at least one answer reaches", min_count)
    return answers


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Convert TGIF-QA as published to JSON lines")
    parser.add_argument("folder", help="folder with the publisher's {Train,Test}_{task}_question.csv")
    parser.add_argument("out", help="folder of the data set; the files go to its folder annotations")
    parser.add_argument("--tasks", nargs="+", choices=QUESTIONS, default=list(QUESTIONS), help="default: all four")
    parser.add_argument("--suffix", default=".gif", help="ending of the videos' files (default: .gif)")
    parser.add_argument("--min-count", type=int, default=1, help="how often an answer of frameQA comes (default: 1)")
    parser.add_argument("--val-share", type=float, default=0.0, help="share of the training videos (default: 0, none)")
    parser.add_argument("--seed", type=seed_number, default=42, help="says which videos validate (default: 42)")
    parser.add_argument("--strict", action="store_true", help="refuse counts that are not the published ones")
    args = parser.parse_args(argv)
    check_suffix(args.suffix)
    expect(0 <= args.val_share < 1, "--val-share", "a share from 0 to below 1", args.val_share)
    return args


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    counts: list[Count] = []
    report, files = [], {}
    for task in args.tasks:
        for split in ("train", "test"):
            path = str(Path(args.folder) / f"{split.capitalize()}_{task}_question.csv")
            records = read_questions(path, task, args.suffix)
            files[f"{task}_{split}.jsonl"] = records
            counts.append((f"{split} questions of {task}", len(records), QUESTIONS[task][split]))
            if task == "count" and (lifted := lift_counts(records)):
                report.append(
                    f"{split} questions of count: {lifted:,} answers of 0 are lifted to 1, as in the publisher's code"
                )
        if args.val_share:
            train, val = split_questions(files[f"{task}_train.jsonl"], args.val_share, args.seed)
            expect(
                bool(train and val),
                "--val-share",
                f"a share that leaves training and validation of {task}",
                args.val_share,
            )
            files |= {f"{task}_train.jsonl": train, f"{task}_val.jsonl": val}
    answers = {}
    if "frameqa" in args.tasks:
        answers = make_vocabulary(files["frameqa_train.jsonl"], args.min_count)
        report.append(f"frameqa_answers.json: {len(answers):,} answers; set num_answers of the head to {len(answers)}")
        test = files["frameqa_test.jsonl"]
        share = sum(record["answer"] in answers for record in test) / len(test)
        report.append(f"test: {share:.2%} of frameQA has an answer in the vocabulary: no accuracy can be higher")
    report = compare_counts(counts, args.strict) + report
    folder = Path(args.out) / "annotations"
    for name, records in files.items():
        videos = len({record["video"] for record in records})
        report.append(f"{name}: {write_records(records, folder / name):,} questions on {videos:,} videos")
    if answers:
        write_answers(answers, folder / "frameqa_answers.json")
    print(*report, f"written to {folder}", sep="\n")


if __name__ == "__main__":
    run_tool(main)
