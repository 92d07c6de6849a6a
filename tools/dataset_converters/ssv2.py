#!/usr/bin/env python
"""Convert Something-Something v2 for retrieval to JSON lines: python tools/dataset_converters/ssv2.py FOLDER OUT.

FOLDER has the publisher's something-something-v2-train.json and something-something-v2-validation.json (Goyal et al., The
"something something" Video Database, 2017; https://arxiv.org/abs/1706.04261), lists of ``{"id": "78687", "label": "holding
potato next to vicks vaporub bottle", "template": "Holding [something] next to [something]", ...}``; some releases call them
train.json and validation.json. They become two retrieval tasks (Lei et al., Revealing Single Frame Bias for
Video-and-Language Learning, 2023; https://arxiv.org/abs/2206.03428):

- OUT/annotations/label_{train,val,test}.jsonl: a caption is the label
- OUT/annotations/template_{train,val,test}.jsonl: a caption is one of the 174 templates, without the square brackets

Both train on all training videos and are tested on 2,088 videos of validation, 12 of each template. Which these are, the
paper's files say: ``--test-list ssv2_ret_template_val_small.json``, a list of ``{"caption": ..., "video": ["152.webm",
...]}``, or ids, one per line. Without it they are drawn by ``--seed``, the same on every machine, and scores are not to be
compared with the paper's. To choose checkpoints by, three others of each template are drawn; the paper has no such split.

A video is named ``<id>.webm``.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conversion import (
    compare_counts,
    draw,
    expect,
    expect_once,
    format_drawn,
    read_entries,
    read_names,
    read_text,
    text_in,
)
from writing import add_out, file_options, write_files

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.engine.tool_flags import seed_number

FILES = {"train": "train.json", "validation": "validation.json"}
PREFIX = "something-something-v2-"
VIDEOS = {"train": 168_913, "validation": 24_777}
TEMPLATES = 174
VIDEOS_A_TEMPLATE = {"val": 3, "test": 12}


class Video(NamedTuple):
    """What a video shows."""

    label: str
    template: str


def read_videos(folder: str, split: str) -> dict[str, Video]:
    """Read a file of the publisher: the videos by their ids."""
    path = Path(folder) / f"{PREFIX}{FILES[split]}"
    if not path.is_file() and (Path(folder) / FILES[split]).is_file():
        path = Path(folder) / FILES[split]
    videos: dict[str, Video] = {}
    seen: set[str] = set()
    for where, entry in read_entries(path):
        video = text_in(entry, "id", where)
        expect_once(video, seen, where, "id")
        template = text_in(entry, "template", where).replace("[", "").replace("]", "")
        videos[video] = Video(text_in(entry, "label", where), template)
    return videos


def read_test_list(path: str) -> Iterator[tuple[str, str]]:
    """Read which videos to test on; yields where each stands, and its id."""
    if not "".join(read_text(path)).lstrip().startswith("["):
        yield from read_names(path)
        return
    for where, entry in read_entries(path):
        videos = entry.get("video", f"the keys {', '.join(entry)}")
        for video in videos if isinstance(videos, list) else [videos]:
            expect(isinstance(video, str), where, 'file names under the key "video"', video)
            yield where, Path(video).stem


def draw_each(videos: dict[str, Video], size: int, seed: int) -> set[str]:
    """Draw so many videos of each template."""
    by_template: dict[str, list[str]] = {}
    for video, shown in videos.items():
        by_template.setdefault(shown.template, []).append(video)
    return {video for own in by_template.values() for video in draw(own, size, seed)}


def choose_test(args: argparse.Namespace, videos: dict[str, Video]) -> set[str]:
    """Return the ids of the videos to test on."""
    if not args.test_list:
        return draw_each(videos, VIDEOS_A_TEMPLATE["test"], args.seed)
    chosen: set[str] = set()
    for where, video in read_test_list(args.test_list):
        expect(video in videos, where, "a video of the publisher's validation file", video)
        expect_once(video, chosen, where, "video")
    return chosen


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    parser = argparse.ArgumentParser(
        description="Convert Something-Something v2 for retrieval to JSON lines", parents=[file_options(".webm")]
    )
    parser.add_argument("folder", help=f"folder with {', '.join(PREFIX + name for name in FILES.values())}")
    parser.add_argument("--test-list", help="ssv2_ret_template_val_small.json, or ids of the test videos, one per line")
    parser.add_argument(
        "--seed",
        type=seed_number,
        default=42,
        help="says which videos validate and, without --test-list, test (default: 42)",
    )
    add_out(parser)
    args = parser.parse_args(argv)
    found = {split: read_videos(args.folder, split) for split in FILES}
    counts = [(f"{split} videos", len(own), VIDEOS[split]) for split, own in found.items()]
    validation = found["validation"]
    tested = choose_test(args, validation)
    others = {video: shown for video, shown in validation.items() if video not in tested}
    chosen = {"val": draw_each(others, VIDEOS_A_TEMPLATE["val"], args.seed), "test": tested}
    splits, published, drawn = {"train": found["train"]}, dict(found), []
    for split, own in chosen.items():
        splits[split] = {video: shown for video, shown in validation.items() if video in own}
        size = (f"{split} videos", len(own), TEMPLATES * VIDEOS_A_TEMPLATE[split])
        if split == "test" and args.test_list:
            counts.append(size)
            published[split] = splits[split]
        else:
            drawn.append(format_drawn(*size))
    counts += [
        (f"templates of {split}", len({video.template for video in own.values()}), TEMPLATES)
        for split, own in published.items()
    ]
    report = compare_counts(counts, args.strict) + drawn
    if not args.test_list:
        report.append(f"the test videos are drawn with seed {args.seed}: not those of the paper, see --test-list")
    files = {
        f"{task}_{split}.jsonl": [
            {"video": name + args.suffix, "caption": getattr(video, task)} for name, video in own.items()
        ]
        for task in Video._fields
        for split, own in splits.items()
    }
    write_files(args.out, files, report)


if __name__ == "__main__":
    run_tool(main)
