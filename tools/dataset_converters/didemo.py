#!/usr/bin/env python
"""Convert DiDeMo as published to JSON lines: python tools/dataset_converters/didemo.py --train train_data.json ... OUT.

The files are train_data.json, val_data.json and test_data.json of the publisher, lists of sentences; give those that you have
to ``--train``, ``--val`` and ``--test``. Each becomes OUT/annotations/{train,val,test}.jsonl with a paragraph a video: all its
sentences, in the order in which they stand in the file, with a space between them. That is the order of annotation; what a
sentence describes may come earlier in the video than what the one before it describes.

Videos keep the publisher's file names, unless ``--suffix`` replaces their endings, as where all were converted to .mp4.
"""

import argparse
import os
from pathlib import Path

from clipbert_mm.datasets.conversion import (
    check_suffix,
    compare_counts,
    expect,
    expect_once,
    read_entries,
    text_in,
    warn_of_shared,
    whole_number_in,
    write_records,
)
from clipbert_mm.engine.errors import run_tool

# The sentences add up to the 41,206 of the publisher's paper. Of training videos only a count is published that, as its
# companions for val and test (1,065 and 1,004), is not that of the file.
SENTENCES = {"train": 33_005, "val": 4_180, "test": 4_021}
VIDEOS = {"train": None, "val": 1_094, "test": 1_037}


def read_sentences(path: str) -> dict[str, list[str]]:
    """Read a file of the publisher: the sentences of each video, in the order of the file."""
    sentences: dict[str, list[str]] = {}
    seen: set[int] = set()
    for where, entry in read_entries(path):
        expect_once(whole_number_in(entry, "annotation_id", where), seen, where, "annotation_id")
        video = text_in(entry, "video", where)
        sentences.setdefault(video, []).append(text_in(entry, "description", where, may_be_blank=True))
    for video, own in sentences.items():
        expect(any(own), f"{path}, {video}", "at least one sentence with text", own)
    return sentences


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Convert DiDeMo as published to JSON lines, a paragraph a video")
    for split in SENTENCES:
        parser.add_argument(f"--{split}", help=f"{split}_data.json")
    parser.add_argument("out", help="folder of the data set; the files go to its folder annotations")
    parser.add_argument("--suffix", help="ending of the videos' files (default: the publisher's)")
    parser.add_argument("--strict", action="store_true", help="refuse counts that are not the published ones")
    args = parser.parse_args(argv)
    if not any(getattr(args, split) for split in SENTENCES):
        parser.error("name a file: --train, --val, --test")
    return args


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    check_suffix(args.suffix)
    found = {split: read_sentences(getattr(args, split)) for split in SENTENCES if getattr(args, split)}
    counts = []
    for split, videos in found.items():
        counts.append((f"{split}.jsonl: {split} videos", len(videos), VIDEOS[split]))
        counts.append((f"{split}.jsonl: sentences", sum(map(len, videos.values())), SENTENCES[split]))
    report = compare_counts(counts, args.strict) + warn_of_shared(found)
    folder = Path(args.out) / "annotations"
    for split, videos in found.items():
        records = []
        for video, own in videos.items():
            name = video if args.suffix is None else os.path.splitext(video)[0] + args.suffix
            records.append({"video": name, "caption": " ".join(filter(None, own))})
        write_records(records, folder / f"{split}.jsonl")
    print(*report, f"written to {folder}", sep="\n")


if __name__ == "__main__":
    run_tool(main)
