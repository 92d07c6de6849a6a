#!/usr/bin/env python
"""Convert NExT-QA as published to JSON lines: python tools/dataset_converters/nextqa.py TASK FOLDER OUT.

TASK is one of two, and FOLDER has the publisher's tables train.csv, val.csv and test.csv (Xiao et al., NExT-QA, 2021):

- ``multiple-choice``: those of https://github.com/doc-doc/NExT-QA, with the columns video, question, answer (0 to 4), qid,
  type and the options a0 to a4. They become OUT/annotations/mc_{train,val,test}.jsonl.
- ``open-ended``: those of https://github.com/doc-doc/NExT-OE, whose answer is a text. They become oe_{train,val,test}.jsonl
  and oe_answers.json, the most common answers of training. add_reference_answer_test.json, if FOLDER has it, has a second
  right answer to each question, which WUPS takes too (``"references"`` of a line); so it does for other splits.

The types are the publisher's: CW and CH ask for causes (why, how), TC and TN for what happens at a time and before or after
it, DC, DL, DO and DB describe (counts, places, others, yes or no). TP counts as TN, as in the publisher's evaluation. The id
of a question is <video>_<qid>.

A video is named ``<video>.mp4``; ``--map map_vid_vidorID.json`` names it as in VidOR, where the videos are from:
``1164/4882821564.mp4``.
"""

import argparse
import re
from pathlib import Path
from typing import Any

from conversion import (
    compare_counts,
    expect,
    expect_once,
    read_json,
    read_table,
    read_text,
    warn_of_shared,
)
from writing import Records, add_out, file_options, write_files, write_open_ended

from clipbert_mm.command_options import at_least
from clipbert_mm.engine.run_tool import run_tool

CHOICE = {"train": 34_132, "val": 4_996, "test": 8_564}
OPEN_ENDED = {"train": 37_523, "val": 5_343, "test": 9_178}
TYPES = {"CW": "CW", "CH": "CH", "TN": "TN", "TP": "TN", "TC": "TC", "DC": "DC", "DL": "DL", "DO": "DO", "DB": "DB"}
"""What becomes of the publisher's types."""
OPTIONS = ("a0", "a1", "a2", "a3", "a4")
NUM_ANSWERS = 1500


def read_map(path: str) -> dict[str, str]:
    """Read map_vid_vidorID.json: the name in VidOR of each video."""
    content = read_json(path)
    right = isinstance(content, dict) and all(isinstance(name, str) for name in content.values())
    expect(right, path, "a JSON object from videos to their names in VidOR", content)
    return content


def read_rows_of(
    args: argparse.Namespace, split: str, columns: tuple[str, ...]
) -> list[tuple[str, dict[str, str], dict[str, Any]]]:
    """Read the table of a split: where each row stands, the row, and our record of it without the answer."""
    path = str(Path(args.folder) / f"{split}.csv")
    names = read_map(args.map) if args.map else None
    rows = []
    seen: set[str] = set()
    for line, row in read_table(path, ("video", "question", "answer", "qid", "type", *columns)):
        where, video = f"{path}, line {line}", row["video"]
        question_id = f"{video}_{row['qid']}"
        expect_once(question_id, seen, where, "video and qid")
        for column in ("video", "question", "answer"):
            expect(bool(row[column]), where, f"text in the column {column}", row[column])
        expect(row["type"] in TYPES, where, f"a type of {', '.join(TYPES)}", row["type"])
        expect(names is None or video in names, where, f"a video of {args.map}", video)
        record = {
            "video": (video if names is None else names[video]) + args.suffix,
            "question": row["question"],
            "answer_type": TYPES[row["type"]],
            "question_id": question_id,
        }
        rows.append((where, row, record))
    expect(bool(rows), path, "a row for each question", "the header alone")
    return rows


def convert_choice(args: argparse.Namespace) -> None:
    """Write the multiple-choice questions."""
    found: dict[str, Records] = {}
    for split in CHOICE:
        found[split] = []
        for where, row, record in read_rows_of(args, split, OPTIONS):
            options = [row[column] for column in OPTIONS]
            expect(all(options), where, f"text in each of the columns {', '.join(OPTIONS)}", options)
            right = re.fullmatch("[0-4]", row["answer"]) is not None
            expect(right, where, f"an answer from 0 to {len(OPTIONS) - 1}", row["answer"])
            found[split].append(record | {"options": options, "answer": int(row["answer"])})
    counts = [(f"mc_{split}.jsonl: {split} questions", len(own), CHOICE[split]) for split, own in found.items()]
    report = compare_counts(counts, args.strict)
    report += warn_of_shared({split: {record["video"] for record in own} for split, own in found.items()})
    write_files(args.out, {f"mc_{split}.jsonl": own for split, own in found.items()}, report)


def read_references(path: Path) -> dict[str, dict[str, str]]:
    """Read the second answers of a split, by video and qid; none if there is no such file."""
    if not path.is_file():
        return {}
    content = read_json(path)
    right = isinstance(content, dict) and all(isinstance(own, dict) for own in content.values())
    right = right and all(isinstance(text, str) for own in content.values() for text in own.values())
    expect(right, str(path), "a JSON object from videos to objects from qid to answer", content)
    return content


def convert_open_ended(args: argparse.Namespace) -> None:
    """Write the open-ended questions, and the answers to choose from."""
    questions: dict[str, Records] = {}
    for split in OPEN_ENDED:
        path = Path(args.folder) / f"{split}.csv"
        header = next(iter(read_text(path)), "")
        columns = header.split(",")
        expect("a0" not in columns, f"{path}, line 1", "no options: the files of NExT-OE, not of NExT-QA", header)
        references = read_references(Path(args.folder) / f"add_reference_answer_{split}.json")
        questions[split] = []
        for _, row, record in read_rows_of(args, split, ()):
            record["answer"] = row["answer"]
            if second := references.get(row["video"], {}).get(row["qid"], "").strip():
                record["references"] = [second]
            questions[split].append(record)
    write_open_ended(args, questions, OPEN_ENDED, None, "oe")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Convert NExT-QA as published to JSON lines")
    tasks = parser.add_subparsers(required=True, metavar="{multiple-choice,open-ended}")
    shared = file_options(".mp4")
    for name, convert in (("multiple-choice", convert_choice), ("open-ended", convert_open_ended)):
        task = tasks.add_parser(name, parents=[shared], help=f"{name} questions")
        task.set_defaults(convert=convert)
        task.add_argument("folder", help="folder with train.csv, val.csv and test.csv")
        task.add_argument("--map", help="map_vid_vidorID.json, to name videos as in VidOR")
        add_out(task)
    task.add_argument(
        "--num-answers", type=at_least(1), default=NUM_ANSWERS, help="size of the vocabulary (default: 1500)"
    )
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    args.convert(args)


if __name__ == "__main__":
    run_tool(main)
