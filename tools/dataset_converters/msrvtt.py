#!/usr/bin/env python
"""Convert MSRVTT as published to JSON lines: python tools/dataset_converters/msrvtt.py {retrieval,qa,multiple-choice} ... OUT.

- ``retrieval --annotations FILE [FILE ...] --test-csv FILE [--train {7k,9k}] OUT`` takes the publisher's captions
  (train_val_videodatainfo.json with test_videodatainfo.json, or all in one: videodatainfo_2017.json, MSRVTT_data.json) and
  the 1,000 test pairs of JSFusion ("1K-A", MSRVTT_JSFusion_test.csv, with ``,`` or ``;`` between its columns).
- ``qa --train FILE --val FILE --test FILE OUT`` takes MSRVTT-QA's train_qa.json, val_qa.json and test_qa.json, which name a
  video by its number, 7010; video7010 will do too.
- ``multiple-choice FILE OUT`` takes JSFusion's test as MSR_MC_test.csv, a table with the columns vid_key (msr7010) or video_id
  (video7010), a1 to a5 and answer, between tabs, ``,`` or ``;``; or as the JSON lines of the paper's release, with qid,
  clip_name, options and answer. The answer is the place of the right option, 0 to 4.

The files are in OUT/annotations. The publisher's split goes by number: video0 to video6512 train, to video7009 validate, to
video9999 test. 7k trains on train and validate, 9k on all but the 1,000 test videos.

The paper chooses its checkpoints by a local validation split: 1,000 pairs of test videos that the 1,000 test pairs do not use,
one caption a video. Which, the authors did not publish; here ``--seed`` says it, the same on every machine. 9k trains on these
videos, so they validate 7k only.
"""

import argparse
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from conversion import (
    check_suffix,
    compare_counts,
    expect,
    expect_once,
    most_common_answers,
    number_entries,
    read_entries,
    read_json,
    read_json_lines,
    read_table,
    read_text,
    text_in,
    whole_number_in,
)

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.fileio import atomic_write
from clipbert_mm.json_text import write_records

SPLITS = {"train": range(6513), "val": range(6513, 7010), "test": range(7010, 10_000)}
"""Numbers of the publisher's videos."""
FIRST_TEST_VIDEO = SPLITS["test"][0]
TEST_PAIRS = 1000
CAPTIONS_A_VIDEO = 20
TRAINING_VIDEOS = {"7k": 7010, "9k": 9000}
QUESTIONS = {"train": 158_581, "val": 12_278, "test": 72_821}
CHOICE_QUESTIONS = 2990
NUM_ANSWERS = 1500
ANSWER_TYPES = ("what", "who", "how", "where", "when")
OPTION_COLUMNS = ("a1", "a2", "a3", "a4", "a5")

VIDEO_ID = re.compile("video[0-9]{1,9}")

Pair = tuple[str, str]
"""The id of a video and a caption."""


def check_video(video: str, where: str) -> None:
    """See that a text is the id of a video."""
    expect(VIDEO_ID.fullmatch(video) is not None, where, "the id of a video, such as video7010", video)


def number_of(video: str) -> int:
    """Return the number in the id of a video."""
    return int(video.removeprefix("video"))


def is_test(video: str) -> bool:
    """Whether a video is in the publisher's test split."""
    return number_of(video) >= FIRST_TEST_VIDEO


def read_captions(paths: Sequence[str]) -> dict[str, list[str]]:
    """Read the publisher's files: the captions of each video. Captions without text are left out."""
    captions: dict[str, list[str]] = {}
    for path in paths:
        content = read_json(path)
        keys = sorted(content) if isinstance(content, dict) else content
        whole = isinstance(content, dict) and {"videos", "sentences"} <= set(content)
        expect(whole, path, 'a JSON object with "videos" and "sentences"', keys)
        seen = set(captions)
        for where, video in number_entries(content["videos"], f"{path}, videos"):
            name = text_in(video, "video_id", where)
            check_video(name, where)
            expect_once(name, seen, where, "video_id")
            captions[name] = []
        numbers: set[tuple[str, int]] = set()
        for where, sentence in number_entries(content["sentences"], f"{path}, sentences"):
            name = text_in(sentence, "video_id", where)
            expect(name in captions, where, 'a video_id that "videos" has', name)
            caption = text_in(sentence, "caption", where, may_be_blank=True)
            expect_once((name, whole_number_in(sentence, "sen_id", where)), numbers, where, "sen_id of a video")
            if caption:
                captions[name].append(caption)
    return captions


def read_test_pairs(path: str, captions: dict[str, list[str]]) -> list[Pair]:
    """Read JSFusion's test pairs."""
    pairs: list[Pair] = []
    seen: set[str] = set()
    for line, row in read_table(path, ("video_id", "sentence"), ",;"):
        where, video = f"{path}, line {line}", row["video_id"]
        expect(video in captions, where, "a video of the files after --annotations", video)
        expect(is_test(video), where, f"a video of the publisher's test split (video{FIRST_TEST_VIDEO} on)", video)
        expect_once(video, seen, where, "video_id")
        expect(bool(row["sentence"]), where, "a sentence", "")
        pairs.append((video, row["sentence"]))
    expect(bool(pairs), path, "a row for each test pair", "the header alone")
    return pairs


def read_video_list(path: str, captions: dict[str, list[str]], tested: set[str]) -> list[str]:
    """Read a list of training videos, a table with the column video_id such as MSRVTT_train.9k.csv."""
    videos: list[str] = []
    seen: set[str] = set()
    for line, row in read_table(path, ("video_id",), ",;"):
        where, video = f"{path}, line {line}", row["video_id"]
        expect(video in captions, where, "a video of the files after --annotations", video)
        expect(video not in tested, where, "a video that the test pairs do not have", video)
        expect_once(video, seen, where, "video_id")
        videos.append(video)
    return videos


def draw(items: Sequence[str], size: int, seed: int) -> list[str]:
    """Draw without replacement, in a way that no version of Python or NumPy changes: those of the smallest digests."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed} {item}".encode()).digest())[:size]


def draw_validation(captions: dict[str, list[str]], tested: set[str], seed: int) -> list[Pair]:
    """Draw the local validation split, in the order of the videos' numbers."""
    candidates = [video for video, own in captions.items() if is_test(video) and video not in tested and own]
    drawn = sorted(draw(candidates, TEST_PAIRS, seed), key=number_of)
    return [(video, draw(captions[video], 1, seed)[0]) for video in drawn]


def convert_retrieval(args: argparse.Namespace) -> None:
    """Write the training, validation and test pairs."""
    captions = read_captions(args.annotations)
    test = read_test_pairs(args.test_csv, captions)
    tested = {video for video, _ in test}
    if args.train_list:
        videos = read_video_list(args.train_list, captions, tested)
    elif args.train == "7k":
        videos = [video for video in captions if not is_test(video)]
    else:
        videos = [video for video in captions if video not in tested]
    train = [(video, caption) for video in videos for caption in captions[video]]
    expect(bool(train), ", ".join(args.annotations), f"captions of training videos ({args.train})", "none")
    validation = draw_validation(captions, tested, args.seed)
    published = TRAINING_VIDEOS[args.train]
    name = f"retrieval_train-{args.train}.jsonl"
    report = compare_counts(
        [
            (f"{name}: training videos", len(videos), published),
            (f"{name}: captions", len(train), published * CAPTIONS_A_VIDEO),
            ("retrieval_val-local.jsonl: local validation pairs", len(validation), TEST_PAIRS),
            ("retrieval_test-1ka.jsonl: JSFusion 1K-A test pairs", len(test), TEST_PAIRS),
        ],
        args.strict,
    )
    shared = len({video for video, _ in validation} & set(videos))
    if shared:
        report.append(f"warning: {name} has {shared:,} of the local validation videos: choose no checkpoint by them")
    folder = Path(args.out) / "annotations"
    for file, pairs in ((name, train), ("retrieval_val-local.jsonl", validation), ("retrieval_test-1ka.jsonl", test)):
        write_records(({"video": video + args.suffix, "caption": caption} for video, caption in pairs), folder / file)
    print(*report, f"written to {folder}", sep="\n")


def read_questions(path: str, split: str, suffix: str) -> list[dict[str, Any]]:
    """Read a file of MSRVTT-QA, which has to be of this split, into our records."""
    records = []
    seen: set[int] = set()
    for where, entry in read_entries(path):
        question = text_in(entry, "question", where)
        first = re.match("[a-z]*", question.lower()).group()
        question_id = whole_number_in(entry, "id", where)
        expect_once(question_id, seen, where, "id")
        video = entry.get("video_id", f"the keys {', '.join(entry)}")
        name = f"video{video}" if type(video) is int else str(video)
        expect(VIDEO_ID.fullmatch(name) is not None, where, "a video_id such as 7010 or video7010", video)
        numbers = SPLITS[split]
        expect(
            number_of(name) in numbers,
            where,
            f"a video of MSRVTT's split {split}, video{numbers[0]} to video{numbers[-1]} (MSVD-QA's files look alike, but "
            "number other videos, and are not taken here)",
            name,
        )
        records.append(
            {
                "video": name + suffix,
                "question": question,
                "answer": text_in(entry, "answer", where),
                "answer_type": first if first in ANSWER_TYPES else "other",
                "question_id": question_id,
            }
        )
    return records


def convert_questions(args: argparse.Namespace) -> None:
    """Write the questions of all splits, and the answers to choose from."""
    expect(args.num_answers > 0, "--num-answers", "1 or more", args.num_answers)
    paths = {split: getattr(args, split) for split in QUESTIONS}
    records = {split: read_questions(path, split, args.suffix) for split, path in paths.items()}
    answers = most_common_answers((record["answer"] for record in records["train"]), args.num_answers)
    counts = [(f"qa_{split}.jsonl: {split} questions", len(own), QUESTIONS[split]) for split, own in records.items()]
    counts.append(("qa_answers.json: answers", len(answers), NUM_ANSWERS if args.num_answers == NUM_ANSWERS else None))
    report = compare_counts(counts, args.strict)
    for split, own in records.items():
        share = sum(record["answer"] in answers for record in own) / len(own)
        limit = "" if split == "train" else ": no accuracy can be higher"
        report.append(f"{split}: {share:.2%} of the questions have an answer in the vocabulary{limit}")
    folder = Path(args.out) / "annotations"
    for split, own in records.items():
        write_records(own, folder / f"qa_{split}.jsonl")
    with atomic_write(folder / "qa_answers.json") as file:
        json.dump(answers, file, ensure_ascii=False, indent=0)
    print(*report, f"written to {folder}", sep="\n")


def read_choice_lines(path: str) -> Iterator[tuple[str, str, str, object, object]]:
    """Read multiple choice as the paper's release has it; yields where it stands, its id, video, options and answer."""
    for where, entry in read_json_lines(path):
        expect("qid" in entry, where, 'the key "qid"', sorted(entry))
        yield where, str(entry["qid"]), text_in(entry, "clip_name", where), entry.get("options"), entry.get("answer")


def read_choice_table(path: str, header: str) -> Iterator[tuple[str, str, str, object, object]]:
    """Read multiple choice as a table; yields what :func:`read_choice_lines` does, with ``key`` for an id if it is there."""
    column = "video_id" if "video_id" in header else "vid_key"
    for line, row in read_table(path, (column, *OPTION_COLUMNS, "answer"), "\t,;"):
        options = [row[name] for name in OPTION_COLUMNS]
        answer = int(row["answer"]) if re.fullmatch("[0-9]{1,9}", row["answer"]) else row["answer"]
        yield f"{path}, line {line}", row.get("key", f"{row[column]}: {options}"), row[column], options, answer


def convert_multiple_choice(args: argparse.Namespace) -> None:
    """Write the multiple-choice test."""
    header = next((line for line in read_text(args.file) if line.strip()), "")
    as_lines = header.lstrip().startswith("{")
    records = []
    seen: set[str] = set()
    for where, key, name, options, answer in (
        read_choice_lines(args.file) if as_lines else read_choice_table(args.file, header)
    ):
        expect_once(key, seen, where, "id of a question")
        video = re.sub(r"^msr(?=\d)", "video", name)
        check_video(video, where)
        right = isinstance(options, list) and len(options) == len(OPTION_COLUMNS)
        right = right and all(isinstance(option, str) and option.strip() for option in options)
        expect(right, where, f"{len(OPTION_COLUMNS)} options, each with text", options)
        in_range = type(answer) is int and 0 <= answer < len(OPTION_COLUMNS)
        expect(in_range, where, f"an answer from 0 to {len(OPTION_COLUMNS) - 1}", answer)
        records.append({"video": video + args.suffix, "options": options, "answer": answer})
    name = "mc_test.jsonl"
    report = compare_counts([(f"{name}: test questions", len(records), CHOICE_QUESTIONS)], args.strict)
    path = Path(args.out) / "annotations" / name
    write_records(records, path)
    print(*report, f"written to {path}", sep="\n")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--suffix", default=".mp4", help="ending of the videos' files (default: .mp4)")
    shared.add_argument("--strict", action="store_true", help="refuse counts that are not the published ones")
    parser = argparse.ArgumentParser(description="Convert MSRVTT as published to JSON lines")
    tasks = parser.add_subparsers(required=True, metavar="{retrieval,qa,multiple-choice}")

    task = tasks.add_parser("retrieval", parents=[shared], help="captions, JSFusion 1K-A test, local validation")
    task.set_defaults(convert=convert_retrieval)
    task.add_argument(
        "--annotations",
        nargs="+",
        action="extend",
        required=True,
        help="the publisher's JSON files; not just before OUT",
    )
    task.add_argument("--test-csv", required=True, help="MSRVTT_JSFusion_test.csv")
    task.add_argument("--train", choices=TRAINING_VIDEOS, default="7k", help="training split (default: 7k)")
    task.add_argument("--train-list", help="table with the training videos' video_id, such as MSRVTT_train.9k.csv")
    task.add_argument("--seed", type=int, default=42, help="says the local validation split (default: 42)")

    task = tasks.add_parser("qa", parents=[shared], help="MSRVTT-QA")
    task.set_defaults(convert=convert_questions)
    for split in QUESTIONS:
        task.add_argument(f"--{split}", required=True, help=f"{split}_qa.json")
    task.add_argument("--num-answers", type=int, default=NUM_ANSWERS, help="size of the vocabulary (default: 1500)")

    task = tasks.add_parser("multiple-choice", parents=[shared], help="JSFusion's multiple-choice test")
    task.set_defaults(convert=convert_multiple_choice)
    task.add_argument("file", help="MSR_MC_test.csv, or the JSON lines of the paper's release")

    for task in tasks.choices.values():
        task.add_argument("out", help="folder of the data set; the files go to its folder annotations")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    check_suffix(args.suffix)
    args.convert(args)


if __name__ == "__main__":
    run_tool(main)
