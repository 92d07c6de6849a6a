#!/usr/bin/env python
"""Convert MSRVTT as published to JSON lines: python tools/dataset_converters/msrvtt.py {retrieval,qa,multiple-choice} ... OUT.

- ``retrieval --annotations FILE [FILE ...] --test-csv FILE [--train {7k,9k}] OUT`` takes the publisher's captions
  (train_val_videodatainfo.json with test_videodatainfo.json, or all in one: videodatainfo_2017.json, MSRVTT_data.json) and
  the 1,000 test pairs of JSFusion ("1K-A", MSRVTT_JSFusion_test.csv, with ``,`` or ``;`` between its columns). Captions in
  two other layouts are taken too: like COCO's, ``{"annotations": [{"image_id": "video0", "caption": "..."}]}`` (MSR_VTT.json),
  and lists of ``{"video": "video0.mp4", "caption": ["...", "..."]}`` (msrvtt_train_9k.json with msrvtt_test_1k.json).
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
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from conversion import (
    compare_counts,
    draw,
    expect,
    expect_once,
    format_drawn,
    number_entries,
    read_json,
    read_json_lines,
    read_names,
    read_table,
    read_text,
    text_in,
    whole_number_in,
)
from writing import add_out, file_options, write_open_ended
from xu_qa import read_questions

from clipbert_mm.command_options import at_least
from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import seed_number
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
    """Read files of captions in any of the layouts: the captions of each video. Captions without text are left out."""
    captions: dict[str, list[str]] = {}
    for path in paths:
        content = read_json(path)
        if isinstance(content, list):
            found = read_caption_lists(content, path)
        elif isinstance(content, dict) and "annotations" in content:
            found = read_like_coco(content, path)
        else:
            found = read_published(content, path)
        for where, name, texts in found:
            expect(name not in captions, where, "each video in one of the files after --annotations", name)
            captions[name] = [text for text in texts if text]
    return captions


Captions = Iterator[tuple[str, str, list[str]]]
"""Where each video stands, its id, and its captions."""


def read_published(content: Any, path: str) -> Captions:
    """Read the captions of a file of the publisher."""
    keys = sorted(content) if isinstance(content, dict) else content
    whole = isinstance(content, dict) and {"videos", "sentences"} <= set(content)
    expect(whole, path, 'a JSON object with "videos" and "sentences"', keys)
    captions: dict[str, tuple[str, list[str]]] = {}
    seen: set[str] = set()
    for where, video in number_entries(content["videos"], f"{path}, videos"):
        name = text_in(video, "video_id", where)
        check_video(name, where)
        expect_once(name, seen, where, "video_id")
        captions[name] = (where, [])
    numbers: set[tuple[str, int]] = set()
    for where, sentence in number_entries(content["sentences"], f"{path}, sentences"):
        name = text_in(sentence, "video_id", where)
        expect(name in captions, where, 'a video_id that "videos" has', name)
        caption = text_in(sentence, "caption", where, may_be_blank=True)
        expect_once((name, whole_number_in(sentence, "sen_id", where)), numbers, where, "sen_id of a video")
        captions[name][1].append(caption)
    yield from ((where, name, texts) for name, (where, texts) in captions.items())


def read_like_coco(content: dict[str, Any], path: str) -> Captions:
    """Read the captions of a file in COCO's layout, MSR_VTT.json: a list of annotations, each a caption of a video."""
    captions: dict[str, tuple[str, list[str]]] = {}
    for where, entry in number_entries(content["annotations"], f"{path}, annotations"):
        name = text_in(entry, "image_id", where)
        check_video(name, where)
        captions.setdefault(name, (where, []))[1].append(text_in(entry, "caption", where, may_be_blank=True))
    yield from ((where, name, texts) for name, (where, texts) in captions.items())


def read_caption_lists(content: list[Any], path: str) -> Captions:
    """Read the captions of a list of videos, msrvtt_train_9k.json: each with one caption, or a list of them."""
    captions: dict[str, tuple[str, list[str]]] = {}
    for where, entry in number_entries(content, path):
        name = text_in(entry, "video_id" if "video_id" in entry else "video", where).partition(".")[0]
        check_video(name, where)
        texts = entry.get("caption")
        if not isinstance(texts, list):
            texts = [text_in(entry, "caption", where, may_be_blank=True)]
        expect(all(isinstance(text, str) for text in texts), where, 'captions of text under the key "caption"', texts)
        captions.setdefault(name, (where, []))[1].extend(text.strip() for text in texts)
    yield from ((where, name, texts) for name, (where, texts) in captions.items())


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
    """Read a list of training videos: a table with the column video_id, or one id per line without a header."""
    first = next((line.strip() for line in read_text(path) if line.strip()), "")
    if VIDEO_ID.fullmatch(first):
        rows = read_names(path)
    else:
        rows = ((f"{path}, line {line}", row["video_id"]) for line, row in read_table(path, ("video_id",), ",;"))
    videos: list[str] = []
    seen: set[str] = set()
    for where, video in rows:
        expect(video in captions, where, "a video of the files after --annotations", video)
        expect(video not in tested, where, "a video that the test pairs do not have", video)
        expect_once(video, seen, where, "video_id")
        videos.append(video)
    return videos


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
            ("retrieval_test-1ka.jsonl: JSFusion 1K-A test pairs", len(test), TEST_PAIRS),
        ],
        args.strict,
    )
    report.append(format_drawn("retrieval_val-local.jsonl: local validation pairs", len(validation), TEST_PAIRS))
    shared = len({video for video, _ in validation} & set(videos))
    if shared:
        report.append(f"warning: {name} has {shared:,} of the local validation videos: choose no checkpoint by them")
    folder = Path(args.out) / "annotations"
    for file, pairs in ((name, train), ("retrieval_val-local.jsonl", validation), ("retrieval_test-1ka.jsonl", test)):
        write_records(({"video": video + args.suffix, "caption": caption} for video, caption in pairs), folder / file)
    print(*report, f"written to {folder}", sep="\n")


def convert_questions(args: argparse.Namespace) -> None:
    """Write the questions of all splits, and the answers to choose from."""
    records = {}
    for split, numbers in SPLITS.items():
        expected = (
            f"a video of MSRVTT's split {split}, video{numbers[0]} to video{numbers[-1]} (MSVD-QA's files look alike, but "
            "number other videos: msvd.py qa takes them)"
        )
        file_of = f"video{{}}{args.suffix}".format
        records[split] = read_questions(getattr(args, split), "video", numbers, expected, file_of)
    write_open_ended(args, records, QUESTIONS, NUM_ANSWERS)


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
    shared = file_options(".mp4")
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
    task.add_argument("--train-list", help="the training videos: MSRVTT_train.9k.csv, or one id per line")
    task.add_argument("--seed", type=seed_number, default=42, help="says the local validation split (default: 42)")

    task = tasks.add_parser("qa", parents=[shared], help="MSRVTT-QA")
    task.set_defaults(convert=convert_questions)
    for split in QUESTIONS:
        task.add_argument(f"--{split}", required=True, help=f"{split}_qa.json")
    task.add_argument(
        "--num-answers", type=at_least(1), default=NUM_ANSWERS, help="size of the vocabulary (default: 1500)"
    )

    task = tasks.add_parser("multiple-choice", parents=[shared], help="JSFusion's multiple-choice test")
    task.set_defaults(convert=convert_multiple_choice)
    task.add_argument("file", help="MSR_MC_test.csv, or the JSON lines of the paper's release")

    for task in tasks.choices.values():
        add_out(task)
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    args.convert(args)


if __name__ == "__main__":
    run_tool(main)
