#!/usr/bin/env python
"""Convert DiDeMo as published to JSON lines: python tools/dataset_converters/didemo.py --train train_data.json ... OUT.

The files are train_data.json, val_data.json and test_data.json of the publisher, lists of sentences; give those that you have
to ``--train``, ``--val`` and ``--test``. Each becomes OUT/annotations/{train,val,test}.jsonl with a paragraph a video: all its
sentences, in the order in which they stand in the file, with a space between them. That is the order of annotation; what a
sentence describes may come earlier in the video than what the one before it describes.

Each also becomes OUT/annotations/{train,val,test}_sentences.jsonl with one line per sentence and the times that it describes,
in seconds. Four annotators or more chose them, each a first and a last segment of 5 s; a video has six at most. A segment
counts if three annotators chose it, since the publisher's evaluation takes the three that agree best with a prediction
(Hendricks et al., Localizing Moments in Video with Natural Language, 2017; utils/eval.py of its release). A sentence without
such a segment has no times.

Some of Flickr's videos stand in a file under two names that differ in their ending, .mov and .mp4; they are one video, under
the name that comes first. Videos keep the publisher's file names, unless ``--suffix`` replaces their endings, as where all were
converted to .mp4.
"""

import argparse
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

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


SEGMENTS, SEGMENT_SECONDS = 6, 5
"""Segments of a video, at most, and their length."""
AGREEING = 3
"""Annotators who chose a segment that counts."""


@dataclass
class Video:
    """A video of Flickr: its names, the first of the file first, and its sentences and their times in the order of the file."""

    names: list[str] = field(default_factory=list)
    sentences: list[str] = field(default_factory=list)
    spans: list[list[list[int]]] = field(default_factory=list)


def stem_of(name: str) -> str:
    """Return a file name without its ending."""
    return os.path.splitext(name)[0]


def agreed_spans(entry: Mapping[str, Any], where: str) -> list[list[int]]:
    """Return the times that a sentence describes, by three annotators: start and end in seconds of each span.

    Raises:
        AnnotationError: If the times of an annotator are not a first and a last segment.

    >>> agreed_spans({"times": [[0, 1], [1, 1], [1, 2], [5, 5]]}, "entry 1")
    [[5, 10]]
    """
    times = entry.get("times")
    expected = f'segments under the key "times", [first, last] from 0 to {SEGMENTS - 1}, of one annotator or more'
    expect(isinstance(times, list) and bool(times), where, expected, times)
    for time in times:
        whole = isinstance(time, list) and len(time) == 2 and all(type(segment) is int for segment in time)
        expect(whole and 0 <= time[0] <= time[1] < SEGMENTS, where, expected, time)
    spans: list[list[int]] = []
    for segment in range(SEGMENTS):
        if sum(first <= segment <= last for first, last in times) < AGREEING:
            continue
        start, end = segment * SEGMENT_SECONDS, (segment + 1) * SEGMENT_SECONDS
        if spans and spans[-1][1] == start:
            spans[-1][1] = end
        else:
            spans.append([start, end])
    return spans


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
        video.spans.append(agreed_spans(entry, where))
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


def sentences_of(name: str, video: Video) -> list[dict[str, Any]]:
    """Return a record for each sentence with text; without spans where no segment counts."""
    return [
        {"video": name, "caption": sentence} | ({"spans": spans} if spans else {})
        for sentence, spans in zip(video.sentences, video.spans, strict=True)
        if sentence
    ]


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Convert DiDeMo as published to JSON lines, a paragraph a video and a sentence a line"
    )
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
        paragraphs, sentences = [], []
        for stem, video in videos.items():
            name = video.names[0] if args.suffix is None else stem + args.suffix
            paragraphs.append({"video": name, "caption": " ".join(filter(None, video.sentences))})
            sentences += sentences_of(name, video)
        write_records(paragraphs, folder / f"{split}.jsonl")
        write_records(sentences, folder / f"{split}_sentences.jsonl")
        without = sum("spans" not in record for record in sentences)
        report.append(
            f"{split}_sentences.jsonl: {len(sentences):,} sentences, {without:,} of them without times, since no three "
            "annotators chose a segment in common"
        )
    print(*report, f"written to {folder}", sep="\n")


if __name__ == "__main__":
    run_tool(main)
