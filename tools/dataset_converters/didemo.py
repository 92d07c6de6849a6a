#!/usr/bin/env python
"""Convert DiDeMo as published to JSON lines: python tools/dataset_converters/didemo.py --train train_data.json ... OUT.

The files are train_data.json, val_data.json and test_data.json of the publisher, lists of sentences; give those that you have
to ``--train``, ``--val`` and ``--test``. Each becomes OUT/annotations/{train,val,test}.jsonl with a paragraph a video: all its
sentences, in the order in which they stand in the file, with a space between them. That is the order of annotation; what a
sentence describes may come earlier in the video than what the one before it describes.

Some of Flickr's videos stand in a file under two names that differ in their ending, .mov and .mp4; they are one video, under
the name that comes first. Videos keep the publisher's file names, unless ``--suffix`` replaces their endings, as where all were
converted to .mp4.
"""

import argparse
import os
from dataclasses import dataclass, field
from pathlib import Path

from conversion import (
    check_suffix,
    compare_counts,
    expect,
    expect_once,
    read_entries,
    text_in,
    warn_of_shared,
    whole_number_in,
)

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.errors import quoted
from clipbert_mm.json_text import write_records

# The sentences add up to the 41,206 of the publisher's paper, the videos to its 10,464.
SENTENCES = {"train": 33_005, "val": 4_180, "test": 4_021}
VIDEOS = {"train": 8_395, "val": 1_065, "test": 1_004}


@dataclass
class Video:
    """A video of Flickr: its names, the first of the file first, and its sentences, in the order of the file."""

    names: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)


def stem_of(name: str) -> str:
    """Return a file name without its ending."""
    return os.path.splitext(name)[0]


def read_videos(path: str) -> dict[str, Video]:
    """Read a file of the publisher: the videos by their names without endings."""
    videos: dict[str, Video] = {}
    seen: set[int] = set()
    for where, entry in read_entries(path):
        expect_once(whole_number_in(entry, "annotation_id", where), seen, where, "annotation_id")
        name = text_in(entry, "video", where)
        video = videos.setdefault(stem_of(name), Video())
        if name not in video.names:
            video.names.append(name)
        video.sentences.append(text_in(entry, "description", where, may_be_blank=True))
    for video in videos.values():
        where = f"{path}, {quoted(video.names[0])}"
        expect(any(video.sentences), where, "at least one sentence with text", video.sentences)
    return videos


def say_several_names(split: str, videos: dict[str, Video]) -> list[str]:
    """Say how many videos stand in a file under several names."""
    several = [video.names for video in videos.values() if len(video.names) > 1]
    if not several:
        return []
    example = " and ".join(map(quoted, several[0]))
    return [
        f"{split}.jsonl: {len(several):,} videos have several names in the file, such as {example}: the first counts"
    ]


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
    found = {split: read_videos(getattr(args, split)) for split in SENTENCES if getattr(args, split)}
    counts = []
    for split, videos in found.items():
        counts.append((f"{split}.jsonl: {split} videos", len(videos), VIDEOS[split]))
        sentences = sum(len(video.sentences) for video in videos.values())
        counts.append((f"{split}.jsonl: sentences", sentences, SENTENCES[split]))
    report = compare_counts(counts, args.strict) + warn_of_shared(found)
    for split, videos in found.items():
        report += say_several_names(split, videos)
    folder = Path(args.out) / "annotations"
    for split, videos in found.items():
        records = []
        for stem, video in videos.items():
            name = video.names[0] if args.suffix is None else stem + args.suffix
            records.append({"video": name, "caption": " ".join(filter(None, video.sentences))})
        write_records(records, folder / f"{split}.jsonl")
    print(*report, f"written to {folder}", sep="\n")


if __name__ == "__main__":
    run_tool(main)
