"""What the converters of images share: reading Karpathy's splits and Visual Genome's list of images."""

import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from conversion import expect, expect_once, number_entries, read_entries, read_json, text_in, whole_number_in

KARPATHY_SPLITS = {"train": "train", "restval": "train", "val": "val", "test": "test"}
"""What becomes of Karpathy's splits."""


def karpathy_images(path: str | os.PathLike, *datasets: str) -> Iterator[tuple[str, dict[str, Any], str]]:
    """Read a file of Karpathy's splits, dataset_coco.json or dataset_flickr30k.json (Deep Visual-Semantic Alignments, 2015).

    Args:
        path: The file.
        datasets: What it may be of: "coco", "flickr30k".

    Yields:
        Where each image stands, its entry, and its split: train, val or test. COCO's "restval" belongs to train.

    Raises:
        AnnotationError: If there is no such file, it is something else or of something else, or an image has no known split.
    """
    content = read_json(path)
    keys = sorted(content) if isinstance(content, dict) else content
    named = isinstance(content, dict) and content.get("dataset") in datasets
    expect(named, str(path), f'an object whose "dataset" is {" or ".join(map(json.dumps, datasets))}', keys)
    for where, entry in number_entries(content.get("images"), f"{path}, images"):
        split = text_in(entry, "split", where)
        expect(split in KARPATHY_SPLITS, where, f"a split of {', '.join(KARPATHY_SPLITS)}", split)
        yield where, entry, KARPATHY_SPLITS[split]


def genome_image_id(entry: Mapping[str, Any], where: str) -> int:
    """Return the id of Visual Genome's image that an entry is of; some of its files and versions call it "id"."""
    return whole_number_in(entry, "image_id" if "image_id" in entry else "id", where)


def read_genome_images(path: str | os.PathLike) -> dict[int, tuple[str, dict[str, Any]]]:
    """Read Visual Genome's image_data.json.

    Returns:
        The name of each image in the publisher's folders, ``VG_100K/1.jpg`` or ``VG_100K_2/1.jpg``, and its entry, by id. The
        entry has a ``coco_id``, which is None for images that are not in COCO.

    Raises:
        AnnotationError: If there is no such file, it is something else, or an image stands in it twice.
    """
    images: dict[int, tuple[str, dict[str, Any]]] = {}
    seen: set[int] = set()
    for where, entry in read_entries(path):
        image_id = genome_image_id(entry, where)
        expect_once(image_id, seen, where, "image_id")
        name = "/".join(text_in(entry, "url", where).split("/")[-2:])
        expect(name.startswith("VG_100K"), where, "a url that ends as in VG_100K/1.jpg", entry["url"])
        expect("coco_id" in entry, where, 'the key "coco_id"', sorted(entry))
        if entry["coco_id"] is not None:
            whole_number_in(entry, "coco_id", where)
        images[image_id] = (name, entry)
    return images
