#!/usr/bin/env python
"""Convert VATEX's English captions as published to JSON lines: python tools/dataset_converters/vatex.py --train FILE ... OUT.

``--train vatex_training_v1.0.json --val vatex_validation_v1.0.json --test vatex_public_test_english_v1.1.json`` are the
publisher's files (Wang et al., VATEX, 2019; https://eric-xw.github.io/vatex-website), lists of ``{"videoID": ..., "enCap":
[10 captions], "chCap": [...]}``; give those that you have. They become OUT/annotations/train.jsonl, val.jsonl and test.jsonl
with one line per English caption.

Papers test retrieval on half of the validation videos, 1,500, and validate on the other half, as HGR does (Chen et al.,
Fine-grained Video-Text Retrieval with Hierarchical Graph Reasoning, 2020). Its lists of videos are not the publisher's:
``--val-list FILE --test-list FILE`` have the videoIDs of each half, one per line, and ``--val`` has their captions.

A video is named ``<videoID>.mp4``, its YouTube id with start and end in seconds.
"""

import argparse

from conversion import (
    compare_counts,
    expect,
    expect_once,
    read_entries,
    read_names,
    text_in,
    warn_of_shared,
)
from writing import add_out, file_options, write_files

from clipbert_mm.engine.run_tool import run_tool

VIDEOS = {"train": 25_991, "val": 3_000, "test": 6_000}
HALF = 1_500
"""Videos of validation and of the test in HGR's split."""
CAPTIONS_A_VIDEO = 10

Captions = dict[str, list[str]]
"""The captions of each video."""


def read_captions(path: str) -> Captions:
    """Read a file of the publisher."""
    captions: Captions = {}
    seen: set[str] = set()
    for where, entry in read_entries(path):
        video = text_in(entry, "videoID", where)
        expect_once(video, seen, where, "videoID")
        texts = entry.get("enCap", f"the keys {', '.join(entry)}")
        right = isinstance(texts, list) and all(isinstance(text, str) and text.strip() for text in texts) and texts
        expect(
            bool(right),
            where,
            'a list of captions under the key "enCap" (the files of the private test have none)',
            texts,
        )
        captions[video] = [text.strip() for text in texts]
    return captions


def take(path: str, captions: Captions) -> Captions:
    """Return the captions of the videos of a list."""
    chosen = {}
    for where, video in read_names(path):
        expect(video in captions, where, "a videoID of the file after --val", video)
        chosen[video] = captions[video]
    return chosen


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Convert VATEX's English captions to JSON lines", parents=[file_options(".mp4")]
    )
    parser.add_argument("--train", help="vatex_training_v1.0.json")
    parser.add_argument("--val", help="vatex_validation_v1.0.json")
    parser.add_argument("--test", help="vatex_public_test_english_v1.1.json")
    parser.add_argument("--val-list", help="videoIDs of --val to validate on, one per line")
    parser.add_argument("--test-list", help="videoIDs of --val to test on, one per line")
    add_out(parser)
    args = parser.parse_args(argv)
    if not any(getattr(args, split) for split in VIDEOS):
        parser.error("name a file: --train, --val, --test")
    if bool(args.val_list) != bool(args.test_list) or (args.val_list and (args.test or not args.val)):
        parser.error("--val-list and --test-list divide the file after --val, without --test")
    return args


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    found = {split: read_captions(getattr(args, split)) for split in VIDEOS if getattr(args, split)}
    published = dict(VIDEOS)
    if args.val_list:
        halves = {"val": take(args.val_list, found["val"]), "test": take(args.test_list, found["val"])}
        found, published = found | halves, published | dict.fromkeys(halves, HALF)
    counts = []
    for split, own in found.items():
        counts.append((f"{split}.jsonl: {split} videos", len(own), published[split]))
        captions = sum(map(len, own.values()))
        counts.append((f"{split}.jsonl: captions", captions, published[split] * CAPTIONS_A_VIDEO))
    report = compare_counts(counts, args.strict) + warn_of_shared(found)
    files = {
        f"{split}.jsonl": (
            {"video": video + args.suffix, "caption": text} for video, texts in own.items() for text in texts
        )
        for split, own in found.items()
    }
    write_files(args.out, files, report)


if __name__ == "__main__":
    run_tool(main)
