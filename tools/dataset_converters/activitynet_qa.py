#!/usr/bin/env python
"""Convert ActivityNet-QA as published to JSON lines: python tools/dataset_converters/activitynet_qa.py FOLDER OUT.

FOLDER is the folder dataset of https://github.com/MILVLG/activitynet-qa (Yu et al., ActivityNet-QA, 2019): lists of
questions, {train,val,test}_q.json with ``{"video_name", "question", "question_id"}``, and of answers, {train,val,test}_a.json
with ``{"answer", "type", "question_id"}``. They become OUT/annotations/qa_{train,val,test}.jsonl and qa_answers.json, the
most common answers of training.

The types 0 to 8 become motion, spatial, temporal, yes/no, color, object, location, number and other; the publisher reports
the last six together too, as "free". A video is named ``v_<video_name>.mp4``, as ActivityNet's files are, so that the folder
of the videos may be that of ActivityNet Captions; ``--videos FOLDER`` finds the ending of each.
"""

import argparse
from pathlib import Path

from conversion import (
    expect,
    expect_once,
    read_entries,
    text_in,
    whole_number_in,
)
from writing import Records, add_out, file_options, find_videos, write_open_ended

from clipbert_mm.command_options import at_least
from clipbert_mm.engine.run_tool import run_tool

QUESTIONS = {"train": 32_000, "val": 18_000, "test": 8_000}
TYPES = ("motion", "spatial", "temporal", "yes/no", "color", "object", "location", "number", "other")
"""Names of the publisher's types, in the order of their numbers."""
NUM_ANSWERS = 1000
"""Answers of the publisher's baselines."""


def read_answers(path: str) -> dict[str, tuple[str, str]]:
    """Read the answers of a split: the answer and its type, by the id of the question."""
    answers: dict[str, tuple[str, str]] = {}
    seen: set[str] = set()
    for where, entry in read_entries(path):
        question_id = text_in(entry, "question_id", where)
        expect_once(question_id, seen, where, "question_id")
        kind = whole_number_in(entry, "type", where)
        expect(0 <= kind < len(TYPES), where, f"a type from 0 to {len(TYPES) - 1}", kind)
        answers[question_id] = (text_in(entry, "answer", where), TYPES[kind])
    return answers


def read_questions(folder: str, split: str, suffix: str, files: dict[str, str]) -> Records:
    """Read the questions and answers of a split into our records."""
    path, answer_path = (str(Path(folder) / f"{split}_{kind}.json") for kind in ("q", "a"))
    answers = read_answers(answer_path)
    records = []
    seen: set[str] = set()
    for where, entry in read_entries(path):
        question_id, video = text_in(entry, "question_id", where), f"v_{text_in(entry, 'video_name', where)}"
        expect_once(question_id, seen, where, "question_id")
        expect(question_id in answers, where, f"a question_id that {answer_path} answers", question_id)
        answer, kind = answers[question_id]
        records.append(
            {
                "video": files.get(video, video + suffix),
                "question": text_in(entry, "question", where),
                "answer": answer,
                "answer_type": kind,
                "question_id": question_id,
            }
        )
    missing = next((question_id for question_id in answers if question_id not in seen), None)
    expect(missing is None, answer_path, f"answers to the questions of {path}", f"one to {missing}")
    return records


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    parser = argparse.ArgumentParser(
        description="Convert ActivityNet-QA as published to JSON lines", parents=[file_options(".mp4")]
    )
    parser.add_argument("folder", help="folder with {train,val,test}_q.json and {train,val,test}_a.json")
    parser.add_argument("--videos", help="folder of the videos, to find the ending of each")
    parser.add_argument(
        "--num-answers", type=at_least(1), default=NUM_ANSWERS, help="size of the vocabulary (default: 1000)"
    )
    add_out(parser)
    args = parser.parse_args(argv)
    files = find_videos(args.videos) if args.videos else {}
    questions = {split: read_questions(args.folder, split, args.suffix, files) for split in QUESTIONS}
    write_open_ended(args, questions, QUESTIONS, NUM_ANSWERS)


if __name__ == "__main__":
    run_tool(main)
