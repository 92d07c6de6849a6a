#!/usr/bin/env python
"""Convert COCO's and Visual Genome's captions for pre-training: python tools/dataset_converters/image_captions.py OUT ...

- ``--coco FOLDER`` has captions_train2014.json and captions_val2014.json; they become OUT/annotations/pretrain_coco.jsonl
- ``--genome FOLDER`` has region_descriptions.json and image_data.json; they become OUT/annotations/pretrain_vg.jsonl
- ``--karpathy dataset_coco.json`` says which of COCO's images to train on: those of its splits "train" and "restval", 113,287.
  Those of "val", 5,000, become OUT/annotations/pretrain_coco-val.jsonl, to test pre-training on.
  ``--coco-ids FILE`` says what to train on instead: a line an image, with its COCO id at the end

A line is ``{"image", "caption"}``. Images are named as in the publishers' folders, ``VG_100K/1.jpg`` and
``train2014/COCO_train2014_000000000009.jpg``. Captions without text are left out.

What later tasks test on is not trained on. Left out are all of COCO's captioned images that are not named for training (with
``--karpathy`` the 5,000 of val and the 5,000 of test), and all images of Visual Genome whose coco_id is not named for training,
be it of the images left out or of COCO's test. Images of Visual Genome that are not in COCO stay. So does UNITER's in-domain
split. It also excludes two sets of images, which are given by files:

- ``--leave-out FILE ...`` has COCO ids, a line an image, with the id at the end: UNITER's are of val and test of RefCOCO,
  RefCOCO+ and RefCOCOg
- ``--leave-out-flickr FILE ...`` has Flickr's ids in the same way: UNITER's are Flickr30K's

The paper says 5.6M pairs on 151K images, rounded; without the two sets there are more. Both publishers' files together take
about 5 GB of memory.
"""

import argparse
import gc
import re
from dataclasses import dataclass, field
from pathlib import Path

from conversion import (
    Count,
    compare_counts,
    expect,
    expect_once,
    number_entries,
    read_entries,
    read_json,
    read_text,
    text_in,
    whole_number_in,
)
from image_files import KARPATHY_SPLITS, genome_image_id, karpathy_images, read_genome_images

from clipbert_mm.engine.run_tool import run_tool
from clipbert_mm.json_text import write_records

COCO = {"train2014": (82_783, 414_113), "val2014": (40_504, 202_654)}
"""Images and captions of the publisher's files."""
KARPATHY_IMAGES, KARPATHY_PAIRS = 113_287, 566_747
KARPATHY_VAL_IMAGES = 5_000
GENOME_IMAGES = 108_077
PAIRS, IMAGES = (5_600_000, "5.6M"), (151_000, "151K")
"""What the paper says of both together, and how."""


@dataclass
class Image:
    """An image of COCO or of Visual Genome, and its captions."""

    name: str
    coco_id: int | None
    flickr_id: str | None
    captions: list[str] = field(default_factory=list)


def read_ids(path: str) -> set[int]:
    """Read a list of ids: a line an image, with the id at the end."""
    ids = set()
    for number, line in enumerate(read_text(path), start=1):
        if line.strip():
            last = line.split()[-1]
            expect(
                re.fullmatch("[0-9]{1,18}", last) is not None,
                f"{path}, line {number}",
                "a line with an id at its end",
                line,
            )
            ids.add(int(last))
    expect(bool(ids), path, "a line for each id", "none")
    return ids


def read_karpathy(path: str) -> dict[str, set[int]]:
    """Read Karpathy's split: the COCO ids of the images to train on, under "train", and of the others."""
    ids: dict[str, set[int]] = {split: set() for split in KARPATHY_SPLITS.values()}
    seen: set[int] = set()
    for where, entry, split in karpathy_images(path, "coco"):
        coco_id = whole_number_in(entry, "cocoid", where)
        expect_once(coco_id, seen, where, "cocoid")
        ids[split].add(coco_id)
    return ids


def read_coco(path: str, split: str) -> dict[int, Image]:
    """Read a file of COCO's captions: its images, by id."""
    content = read_json(path)
    keys = sorted(content) if isinstance(content, dict) else content
    whole = isinstance(content, dict) and {"images", "annotations"} <= set(content)
    expect(whole, path, 'a JSON object with "images" and "annotations"', keys)
    images: dict[int, Image] = {}
    seen: set[int] = set()
    for where, entry in number_entries(content["images"], f"{path}, images"):
        image_id, name = whole_number_in(entry, "id", where), text_in(entry, "file_name", where)
        expect_once(image_id, seen, where, "id")
        expect(name.startswith(f"COCO_{split}_"), where, f"a file_name that begins with COCO_{split}_", name)
        flickr = entry.get("flickr_url")
        flickr_id = flickr.split("/")[-1].split("_")[0] if isinstance(flickr, str) else None
        images[image_id] = Image(f"{split}/{name}", image_id, flickr_id)
    seen = set()
    for where, entry in number_entries(content["annotations"], f"{path}, annotations"):
        expect_once(whole_number_in(entry, "id", where), seen, where, "id")
        image_id = whole_number_in(entry, "image_id", where)
        expect(image_id in images, where, 'the id of an image in "images"', image_id)
        images[image_id].captions.append(text_in(entry, "caption", where, may_be_blank=True))
    return images


def read_genome(folder: str) -> list[Image]:
    """Read Visual Genome's images with the descriptions of their regions."""
    images = read_genome_images(Path(folder) / "image_data.json")
    found: list[Image] = []
    seen: set[int] = set()
    for place, entry in read_entries(Path(folder) / "region_descriptions.json"):
        image_id = genome_image_id(entry, place)
        expect(image_id in images, place, "the id of an image in image_data.json", image_id)
        expect_once(image_id, seen, place, "image")
        name, about = images[image_id]
        flickr_id = about.get("flickr_id")
        image = Image(name, about["coco_id"], None if flickr_id is None else str(flickr_id))
        regions = entry.get("regions")
        expect(isinstance(regions, list), place, 'a list under the key "regions"', regions)
        for where, region in number_entries(regions, f"{place}, regions") if regions else ():
            image.captions.append(text_in(region, "phrase", where, may_be_blank=True))
        found.append(image)
    return found


def write_captions(images: list[Image], path: Path) -> int:
    """Write the captions that have text; returns how many."""
    return write_records(
        (
            {"image": image.name, "caption": " ".join(caption.split())}
            for image in images
            for caption in image.captions
            if caption
        ),
        path,
    )


def say_rounded(what: str, found: int, published: tuple[int, str]) -> str:
    """Return a count next to a number that was published rounded, as text.

    >>> say_rounded("pairs", 5_650_000, (5_600_000, "5.6M"))
    'pairs: 5,650,000 (published: 5.6M, so as published within 1 %)'
    """
    number, rounded = published
    gap = found / number - 1
    if abs(gap) <= 0.01:
        return f"{what}: {found:,} (published: {rounded}, so as published within 1 %)"
    return (
        f"warning: {what}: {found:,} (published: {rounded}, so {abs(gap):.1%} {'too many' if gap > 0 else 'missing'})"
    )


def read_coco_folder(folder: str, counts: list[Count]) -> dict[int, Image]:
    """Read captions_train2014.json and captions_val2014.json; ``counts`` gets what is counted."""
    images: dict[int, Image] = {}
    for split, (num_images, num_captions) in COCO.items():
        path = str(Path(folder) / f"captions_{split}.json")
        own = read_coco(path, split)
        counts.append((f"COCO {split}: images", len(own), num_images))
        counts.append((f"COCO {split}: captions", sum(len(image.captions) for image in own.values()), num_captions))
        images |= own
    return images


def choose_coco(folder: str, images: dict[int, Image], named: set[int], flickr: set[int]) -> list[Image]:
    """Return those of COCO's images that are named.

    Args:
        folder: Where they are from.
        images: All images, by id.
        named: Ids to take.
        flickr: Flickr ids not to take.
    """
    unknown = sorted(named - set(images))
    got = f"{len(unknown)} images without, first {unknown[:1]}"
    expect(not unknown, folder, "captions of every image that is named", got)
    chosen = [image for coco_id, image in images.items() if coco_id in named]
    if flickr:
        unnamed = next((image.name for image in chosen if image.flickr_id is None), None)
        expect(unnamed is None, folder, "a flickr_url of every image, for --leave-out-flickr", f"none of {unnamed}")
    return [image for image in chosen if not is_of(image.flickr_id, flickr)]


def choose_genome(folder: str, named: set[int], flickr: set[int], counts: list[Count]) -> list[Image]:
    """Read Visual Genome's captions and keep those of images that later tasks do not test on.

    Args:
        folder: Where region_descriptions.json and image_data.json are.
        named: COCO ids to train on.
        flickr: Flickr ids not to train on.
        counts: Gets what is counted.
    """
    images = read_genome(folder)
    chosen = [
        image
        for image in images
        if (image.coco_id is None or image.coco_id in named) and not is_of(image.flickr_id, flickr)
    ]
    counts.append(("Visual Genome: images", len(images), GENOME_IMAGES))
    counts.append(("Visual Genome: images that later tasks do not test on", len(chosen), None))
    counts.append(("pretrain_vg.jsonl: pairs", count_pairs(chosen), None))
    return chosen


def is_of(flickr_id: str | None, flickr: set[int]) -> bool:
    """Whether a Flickr id, as text, is one of these."""
    return flickr_id is not None and re.fullmatch("[0-9]{1,18}", flickr_id) is not None and int(flickr_id) in flickr


def count_pairs(images: list[Image]) -> int:
    """Count the captions with text."""
    return sum(bool(caption) for image in images for caption in image.captions)


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Convert captions of COCO and Visual Genome as published to JSON lines"
    )
    parser.add_argument("out", help="folder of the data set; the files go to its folder annotations")
    parser.add_argument("--coco", help="folder with captions_train2014.json and captions_val2014.json")
    parser.add_argument("--genome", help="folder with region_descriptions.json and image_data.json")
    named = parser.add_mutually_exclusive_group(required=True)
    named.add_argument("--karpathy", help="dataset_coco.json, the split of COCO that says what to train on")
    named.add_argument("--coco-ids", help="list of the COCO ids to train on instead")
    parser.add_argument("--leave-out", nargs="+", default=[], help="lists of COCO ids not to train on")
    parser.add_argument("--leave-out-flickr", nargs="+", default=[], help="lists of Flickr ids not to train on")
    parser.add_argument("--strict", action="store_true", help="refuse counts that are not the published ones")
    args = parser.parse_args(argv)
    if not (args.coco or args.genome):
        parser.error("name a folder: --coco, --genome")
    return args


def main(argv: list[str] | None = None) -> None:
    """Convert: everything is read and checked before anything is written."""
    args = parse_args(argv)
    splits = read_karpathy(args.karpathy) if args.karpathy else {"train": read_ids(args.coco_ids), "val": set()}
    named = splits["train"]
    counts: list[Count] = [("COCO images named for training", len(named), KARPATHY_IMAGES if args.karpathy else None)]
    whole = not (args.leave_out or args.leave_out_flickr)
    named = named.difference(*map(read_ids, args.leave_out))
    flickr: set[int] = set().union(*map(read_ids, args.leave_out_flickr))
    chosen: dict[str, list[Image]] = {}
    if args.coco:
        images = read_coco_folder(args.coco, counts)
        chosen["coco"] = choose_coco(args.coco, images, named, flickr)
        named = {image.coco_id for image in chosen["coco"] if image.coco_id is not None}
        published = KARPATHY_PAIRS if args.karpathy and whole else None
        counts.append(("pretrain_coco.jsonl: pairs", count_pairs(chosen["coco"]), published))
    if args.genome:
        chosen["vg"] = choose_genome(args.genome, named, flickr, counts)
    for name, own in chosen.items():
        expect(count_pairs(own) > 0, f"--{'coco' if name == 'coco' else 'genome'}", "captions to train on", "none")
    both = [image for own in chosen.values() for image in own if any(image.captions)]
    rounded = []
    if len(chosen) == 2:
        rounded.append(say_rounded("pairs of both", count_pairs(both), PAIRS))
        rounded.append(say_rounded("images of both", len({image.coco_id or image.name for image in both}), IMAGES))
    if args.coco and splits["val"]:
        chosen["coco-val"] = choose_coco(args.coco, images, splits["val"], set())
        counts.append(("pretrain_coco-val.jsonl: images", len(chosen["coco-val"]), KARPATHY_VAL_IMAGES))
    report = compare_counts(counts, args.strict) + rounded
    folder = Path(args.out) / "annotations"
    for name, own in chosen.items():
        write_captions(own, folder / f"pretrain_{name}.jsonl")
    print(*report, f"written to {folder}", sep="\n")


if __name__ == "__main__":
    gc.disable()  # no cycles among millions of objects: searching for them takes long
    run_tool(main)
