"""Retrieval of images by captions: the loops take images as videos of one frame."""

import json
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from clipbert_mm.engine.launch import build_runner
from clipbert_mm.evaluation import read_rankings, retrieval_metrics


@pytest.fixture
def image_config(runner_config: Config, own_world: Path, tokenizer: str) -> Config:
    """Retrieval of images with several captions each."""
    for split, name in (("train", "pretrain"), ("test", "pretrain_test")):
        lines = [json.loads(line) for line in (own_world / f"{name}.jsonl").read_text().splitlines()]
        assert len({line["image"] for line in lines}) < len(lines)
        pipeline = [
            dict(type="LoadImage"),
            dict(type="ResizePad", size=32),
            dict(type="Tokenize", tokenizer=tokenizer, max_length=40),
            dict(type="PackInputs"),
        ]
        dataset = runner_config[f"{split}_dataloader"].dataset
        dataset.update(data_root=str(own_world), ann_file=f"{name}.jsonl", media_folder="images", pipeline=pipeline)
    return runner_config


def test_images_are_ranked_as_videos_are(image_config: Config, own_world: Path, tmp_path: Path):
    image_config.test_evaluator.rankings_file = str(tmp_path / "rankings.json")
    metrics = build_runner(image_config).test()
    rankings = read_rankings(tmp_path / "rankings.json")
    assert rankings["scores"].shape == (len(rankings["texts"]), 6)
    counts = np.bincount(rankings["text_video"])
    assert len(counts) == 6
    assert min(counts) > 1, "each caption is a query, and each image asks for any of its captions"
    expected = retrieval_metrics(rankings["scores"], np.array(rankings["text_video"]))
    assert {name: metrics[name] for name in expected} == expected
