#!/usr/bin/env python
"""Convert LSMDC as published to JSON lines: python tools/dataset_converters/lsmdc.py FOLDER OUT.

FOLDER has the publisher's files of 2016 (Rohrbach et al., Movie Description, 2017;
https://sites.google.com/site/describingmovies), tables between tabs without a header: LSMDC16_annos_training.csv and
LSMDC16_annos_val.csv, and the 1,000 clips that retrieval is tested on, LSMDC16_challenge_1000_publictect.csv. A row has the
clip's id, its start and end as aligned and as extracted, and the sentence. They become OUT/annotations/train.jsonl, val.jsonl
and test.jsonl, ``{"video", "caption"}`` per line. Names of persons are "SOMEONE" in the publisher's files.

The publisher has the clips of each movie in a folder,
``0001_American_Beauty/0001_American_Beauty_00.00.51.926-00.00.54.129.avi``; with ``--flat`` they are expected in one folder.
A clip may have several sentences, but not in the test.
"""

import argparse
import re
from pathlib import Path

from conversion import compare_counts, expect, expect_once, read_rows, warn_of_shared
from writing import Records, add_out, file_options, write_files

from clipbert_mm.engine.run_tool import run_tool

FILES = {
    "train": ("LSMDC16_annos_training.csv", 101_079),
    "val": ("LSMDC16_annos_val.csv", 7_408),
    "test": ("LSMDC16_challenge_1000_publictect.csv", 1_000),
}
"""The publisher's files, and how many sentences each has."""
COLUMNS = ("clip id", "start aligned", "end aligned", "start extracted", "end extracted", "sentence")
CLIP_ID = re.compile(r"(?P<movie>.+)_\d\d\.\d\d\.\d\d\.\d+-\d\d\.\d\d\.\d\d\.\d+")


def read_sentences(path: str, suffix: str, flat: bool) -> Records:
    """Read a table of the publisher into our records."""
    records = []
    for line, row in read_rows(path, COLUMNS):
        where, clip = f"{path}, line {line}", row["clip id"]
        match = CLIP_ID.fullmatch(clip)
        expect(
            match is not None,
            where,
            "the id of a clip, a movie and its times such as ..._00.00.51.926-00.00.54.129",
            clip,
        )
        expect(bool(row["sentence"]), where, "a sentence", "")
        folder = "" if flat or match is None else f"{match['movie']}/"
        records.append({"video": f"{folder}{clip}{suffix}", "caption": row["sentence"]})
    return records


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    parser = argparse.ArgumentParser(
        description="Convert LSMDC as published to JSON lines", parents=[file_options(".avi")]
    )
    parser.add_argument("folder", help=f"folder with {', '.join(name for name, _ in FILES.values())}")
    parser.add_argument("--flat", action="store_true", help="expect all clips in one folder, not in one per movie")
    add_out(parser)
    args = parser.parse_args(argv)
    found = {
        split: read_sentences(str(Path(args.folder) / name), args.suffix, args.flat)
        for split, (name, _) in FILES.items()
    }
    seen: set[str] = set()
    for record in found["test"]:
        expect_once(record["video"], seen, str(Path(args.folder) / FILES["test"][0]), "clip of the test")
    counts = [(f"{split}.jsonl: sentences", len(own), FILES[split][1]) for split, own in found.items()]
    report = compare_counts(counts, args.strict)
    report += warn_of_shared({split: {record["video"] for record in own} for split, own in found.items()})
    write_files(args.out, {f"{split}.jsonl": own for split, own in found.items()}, report)


if __name__ == "__main__":
    run_tool(main)
