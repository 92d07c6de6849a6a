#!/usr/bin/env python
"""Convert ActivityNet Captions as published to JSON lines: python tools/dataset_converters/activitynet_captions.py ... OUT.

``--train train.json --val val_1.json`` are the publisher's files, from the id of each video to its duration, timestamps and
sentences; give those that you have. They become OUT/annotations/train.jsonl and val1.jsonl with a paragraph a video: its
sentences, by the beginning and then the end of the time they describe, with a space between them.

The files of the videos end in ``--suffix``. Where they end in this and that, ``--videos FOLDER`` finds each one's ending;
videos that are not there get ``--suffix`` too, and their number is reported.
"""

import argparse
from pathlib import Path
from typing import Any

from conversion import (
    check_suffix,
    compare_counts,
    expect,
    read_json_by_id,
    warn_of_shared,
)
from writing import find_videos

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.errors import quoted
from clipbert_mm.json_text import write_records

VIDEOS = {"train": 10_009, "val1": 4_917}


def read_paragraphs(path: str) -> dict[str, str]:
    """Read a file of the publisher: the paragraph of each video."""
    return {video: paragraph_of(entry, f"{path}, {quoted(video)}") for video, entry in read_json_by_id(path).items()}


def paragraph_of(entry: dict[str, Any], where: str) -> str:
    """Join the sentences of a video in the order of time; those of one time stay in their order."""
    for key in ("timestamps", "sentences"):
        got = entry.get(key, f"the keys {', '.join(entry)}")
        expect(isinstance(entry.get(key), list), where, f'a list under the key "{key}"', got)
    times, sentences = entry["timestamps"], entry["sentences"]
    expect(len(times) == len(sentences), where, f"a timestamp for each of {len(sentences)} sentences", len(times))
    for time, sentence in zip(times, sentences, strict=True):
        is_span = isinstance(time, list) and len(time) == 2 and all(map(is_time, time))
        expect(is_span, where, "timestamps of two numbers, in seconds", time)
        expect(isinstance(sentence, str), where, "sentences of text", sentence)
    order = sorted(range(len(times)), key=lambda place: times[place])
    paragraph = " ".join(filter(None, (sentences[place].strip() for place in order)))
    expect(bool(paragraph), where, "at least one sentence with text", sentences)
    return paragraph


def is_time(value: object) -> bool:
    """Whether a value of JSON is a number of seconds; NaN is none."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < float("inf")


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Convert ActivityNet Captions to JSON lines, a paragraph a video")
    parser.add_argument("--train", help="train.json")
    parser.add_argument("--val", dest="val1", help="val_1.json")
    parser.add_argument("out", help="folder of the data set; the files go to its folder annotations")
    parser.add_argument("--suffix", default=".mp4", help="ending of the videos' files (default: .mp4)")
    parser.add_argument("--videos", help="folder of the videos, to find the ending of each")
    parser.add_argument("--strict", action="store_true", help="refuse counts that are not the published ones")
    args = parser.parse_args(argv)
    if not (args.train or args.val1):
        parser.error("name a file: --train, --val")
    return args


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    check_suffix(args.suffix)
    paragraphs = {split: read_paragraphs(getattr(args, split)) for split in VIDEOS if getattr(args, split)}
    files = find_videos(args.videos) if args.videos else {}
    counts = [(f"{split}.jsonl: {split} videos", len(own), VIDEOS[split]) for split, own in paragraphs.items()]
    report = compare_counts(counts, args.strict) + warn_of_shared(paragraphs)
    folder = Path(args.out) / "annotations"
    for split, own in paragraphs.items():
        missing = sum(video not in files for video in own)
        if args.videos and missing:
            report.append(f"warning: {split}.jsonl: {missing:,} of {len(own):,} videos are not in {args.videos}")
        records = ({"video": files.get(video, video + args.suffix), "caption": text} for video, text in own.items())
        write_records(records, folder / f"{split}.jsonl")
    print(*report, f"written to {folder}", sep="\n")


if __name__ == "__main__":
    run_tool(main)
