"""What validation costs in each config: passes of clips through the model, counted for the datasets as published."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clipbert_mm.engine.config import load_config

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TRAINED = sorted(path for path in CONFIGS.rglob("*.py") if re.search(r"_\d+xb\d+", path.stem))
BACKWARD = 3
"""Passes that a pass of training counts for: it also computes the gradients, which takes about twice as long."""


class Size(NamedTuple):
    """The items of an epoch, with the texts of each, and the videos or images to validate on, with the texts of each."""

    items: int
    texts: int
    val_items: int
    val_texts: float = 1


# A tenth of the questions of TGIF-QA for validation, of three questions a video or fewer.
SIZES = {
    "msrvtt": Size(7_000 * 20, 2, 1_000),
    "msrvtt-retrieval": Size(7_000 * 20, 2, 1_000),
    "msrvtt-shortlist": Size(7_000 * 20, 32, 1_000),  # each clip with all texts of the batch
    "didemo": Size(8_395, 2, 1_065),
    "activitynet": Size(10_009, 2, 4_917),
    "msrvtt-qa": Size(158_581, 1, 497, 12_278 / 497),
    "tgif-action": Size(18_428, 5, 2_047, 5),
    "tgif-transition": Size(47_434, 5, 5_270, 5),
    "tgif-frameqa": Size(35_453, 1, 3_939),
    "tgif-count": Size(24_159, 1, 2_684),
    "vqa2": Size(443_757, 1, 40_504, 214_354 / 40_504),
    "coco-vg": Size(113_287 * 3, 2, 5_000, 5),  # of COCO alone
    "msvd": Size(48_774, 2, 100, 43),
    "lsmdc": Size(101_079, 2, 7_408),
    "vatex": Size(259_910, 2, 1_500, 10),
    "ssv2-label": Size(168_913, 2, 522),
    "ssv2-template": Size(168_913, 2, 522, 174 / 522),
    "msvd-qa": Size(30_933, 1, 100, 6_415 / 100),
    "activitynet-qa": Size(32_000, 1, 1_800, 10),
    "nextqa-mc": Size(34_132, 5, 570, 5 * 4_996 / 570),
    "nextqa-oe": Size(37_523, 1, 570, 5_343 / 570),
    "coco": Size(566_747, 2, 5_000, 5),
    "flickr30k": Size(145_000, 2, 1_014, 5),
    "shapes-retrieval": Size(400 * 3, 3, 100),
    "shapes-shortlist": Size(400 * 3, 3 * 16, 100),
    "shapes-paragraph": Size(400, 2, 100),
    "shapes-choice": Size(400 * 2, 5, 100, 2 * 5),
    "shapes-order": Size(390 * 2, 5, 97, 2 * 5),
    "shapes-qa": Size(1_500, 1, 100, 4),
    "shapes-count": Size(400, 1, 100),
    "shapes-image-qa": Size(7_200, 1, 200, 4),
    "shapes-pretrain": Size(4_000, 2, 200, 2),
    "shapes-objects": Size(4_000, 0, 200, 0),
}


def clips_of(loader: dict[str, Any]) -> int:
    """The clips of an item, 1 for an image."""
    dataset = loader["dataset"].get("datasets", [loader["dataset"]])[0]
    return next((step["num_clips"] for step in dataset["pipeline"] if step["type"] == "SampleClips"), 1)


def cost_of(path: Path) -> float:
    """Passes of validation over those of training, on average over the epochs; each clip passes the visual encoder once and the
    joint encoder once with each text."""
    config = load_config(str(path))
    name = path.stem.rpartition("_")[2]
    size = SIZES[re.sub(r"-ntest\d+$", "", name)]
    training = size.items * clips_of(config.train_dataloader) * (1 + size.texts) * BACKWARD
    items = min(size.val_items, config.val_dataloader.dataset.get("indices") or size.val_items)
    texts = size.val_texts * (items if config.val_cfg.type == "RetrievalValLoop" else 1)  # each with each video
    return items * clips_of(config.val_dataloader) * (1 + texts) / training / config.train_cfg.get("val_interval", 1)


def test_the_cost_by_hand():
    # 300 videos by a frame, each with 300 texts, against 140,000 frames, each with two texts.
    path = next(CONFIGS.glob("ablations/table1_l448_*-retrieval.py"))
    assert cost_of(path) == pytest.approx((300 + 300 * 300) / (140_000 * 3 * 3))


@pytest.mark.parametrize("path", TRAINED, ids=lambda path: path.stem)
def test_validation_costs_less_than_a_tenth_of_an_epoch(path: Path):
    assert 0 < cost_of(path) < 0.1
