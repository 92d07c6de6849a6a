"""A small checkpoint as a training writes it, to be damaged."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from clipbert_mm.checkpoint import (
    CheckpointMetadata,
)
from clipbert_mm.checkpoint.metadata import KEY
from clipbert_mm.registry import MODELS


@pytest.fixture(scope="module")
def model_settings() -> dict[str, Any]:
    """The config of a model of about 10,000 parameters."""
    return dict(
        type="ClipBert",
        data_preprocessor=dict(type="VideoTextPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, vocab_size=200),
        backbone=dict(type="TinyBackbone"),
        projection=dict(type="GridProjection", in_channels=8, out_channels=16),
        temporal_fusion=dict(type="MeanFusion"),
        encoder=dict(
            type="JointEncoder",
            vocab_size=200,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            intermediate_size=32,
            max_text_length=40,
            dropout=0.0,
            grid_size=8,
        ),
        head=dict(type="MatchingHead", in_channels=16, hidden_channels=32, dropout=0.0),
        aggregator=dict(type="LogSumExpAggregator"),
    )


@pytest.fixture
def small_checkpoint(model_settings: dict[str, Any], tokenizer: str) -> dict[str, Any]:
    """What a training of such a model writes, as far as a search reads it."""
    pipeline = [
        dict(type="OpenVideo"),
        dict(type="SampleClips", num_clips=3, num_frames=2, mode="uniform"),
        dict(type="DecodeClips"),
        dict(type="ResizePad", size=32),
        dict(type="Tokenize", tokenizer="gone", max_length=40),
        dict(type="PackInputs"),
    ]
    files = {path.name: path.read_text() for path in sorted(Path(tokenizer).iterdir())}
    contents = CheckpointMetadata("1", "retrieval", copy.deepcopy(model_settings), {"test": pipeline}, files, None)
    return {"state_dict": MODELS.build(copy.deepcopy(model_settings)).state_dict(), KEY: contents.to_dict()}


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., str]:
    """Write a checkpoint and return its path."""

    def write(content: Any, name: str = "a.pth") -> str:
        torch.save(content, tmp_path / name)
        return str(tmp_path / name)

    return write
