#!/usr/bin/env python
"""Convert COCO or Flickr30k for image retrieval to JSON lines: python tools/dataset_converters/image_retrieval.py FILE OUT.

FILE is dataset_coco.json or dataset_flickr30k.json of Karpathy's splits (Karpathy and Fei-Fei, Deep Visual-Semantic
Alignments for Generating Image Descriptions, 2015; https://cs.stanford.edu/people/karpathy/deepimagesent), which has the
captions too. It becomes OUT/annotations/retrieval_{train,val,test}.jsonl with one line per caption, ``{"image", "caption"}``.
COCO's split "restval" is trained on, as is usual.

Images are named as in the publishers' folders: ``val2014/COCO_val2014_000000391895.jpg`` and ``1000092795.jpg``.
"""

import argparse

from conversion import Count, compare_counts, expect, expect_once, number_entries, text_in
from image_files import karpathy_images
from writing import Records, add_out, write_files

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.errors import quoted

PUBLISHED = {
    "coco": {"train": (113_287, 566_747), "val": (5_000, 25_010), "test": (5_000, 25_010)},
    "flickr30k": {"train": (29_000, 145_000), "val": (1_014, 5_070), "test": (1_000, 5_000)},
}
"""Images and captions of each split."""


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    parser = argparse.ArgumentParser(description="Convert COCO or Flickr30k for image retrieval to JSON lines")
    parser.add_argument("file", help="dataset_coco.json or dataset_flickr30k.json")
    parser.add_argument("--strict", action="store_true", help="refuse counts that are not the published ones")
    add_out(parser)
    args = parser.parse_args(argv)
    found: dict[str, Records] = {"train": [], "val": [], "test": []}
    images = dict.fromkeys(found, 0)
    seen: set[str] = set()
    for where, entry, split in karpathy_images(args.file, *PUBLISHED):
        name = text_in(entry, "filename", where)
        if "filepath" in entry:
            name = f"{text_in(entry, 'filepath', where)}/{name}"
        expect_once(name, seen, where, "image")
        captions = [
            " ".join(text_in(sentence, "raw", place, may_be_blank=True).split())
            for place, sentence in number_entries(entry.get("sentences"), f"{where}, sentences")
        ]
        expect(any(captions), where, "a caption with text", captions)
        found[split] += [{"image": name, "caption": caption} for caption in captions if caption]
        images[split] += 1
    data_set = "coco" if "/" in next(iter(seen)) else "flickr30k"
    counts: list[Count] = []
    for split, records in found.items():
        expect(bool(records), args.file, f"images of the split {quoted(split)}", "none")
        published = PUBLISHED[data_set][split]
        counts.append((f"retrieval_{split}.jsonl: images", images[split], published[0]))
        counts.append((f"retrieval_{split}.jsonl: captions", len(records), published[1]))
    report = compare_counts(counts, args.strict)
    write_files(args.out, {f"retrieval_{split}.jsonl": records for split, records in found.items()}, report)


if __name__ == "__main__":
    run_tool(main)
