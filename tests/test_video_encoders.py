"""The configs of video encoders: they take the clips of their pipelines, and start from one another."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from sister_libraries import import_mmaction

from clipbert_mm import compat
from clipbert_mm.engine.config import load_config
from clipbert_mm.registry import MODELS

import_mmaction()

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
TWIN = CONFIGS / "video_encoders" / "clipbert_tiny_1xb16-2x4-4e_shapes-retrieval.py"
VIDEO = sorted(set((CONFIGS / "video_encoders").glob("clipbert_*.py")) - {TWIN})
(OBJECTS,) = (CONFIGS / "video_encoders").glob("*-objects.py")


@pytest.mark.parametrize("path", VIDEO, ids=lambda path: path.stem)
def test_a_config_s_encoder_takes_the_clips_of_its_pipelines(path: Path):
    config = load_config(str(path))
    encoder, projection = MODELS.build(config.model.backbone), config.model.projection
    for split in ("train", "val", "test"):
        steps = {step["type"]: step for step in config[f"{split}_dataloader"].dataset.pipeline}
        size, images = steps["ResizePad"]["size"], "LoadImage" in steps
        assert encoder.clip_shape == (1 if images else steps["SampleClips"]["num_frames"], 3, size, size)
    _, channels, height, width = encoder.map_shape
    assert channels == projection.in_channels
    assert height == width == (7 if path.stem.endswith("msrvtt") else 8)
    assert projection.get("pool", True) == (height == 8)


def test_the_backbone_that_names_objects_in_images_is_that_of_the_shapes_twins(without_gradient: Callable):
    pretraining, retrieval = (load_config(str(path)) for path in sorted(VIDEO, reverse=True) if "_shapes-" in path.stem)
    objects = load_config(str(OBJECTS))
    assert objects.model.backbone.backbone == pretraining.model.backbone.backbone
    assert pretraining.model.backbone.backbone | dict(norm_eval=True) == retrieval.model.backbone.backbone
    assert pretraining.load_from == f"work_dirs/{OBJECTS.stem}/epoch_{objects.train_cfg.max_epochs}.pth"
    assert retrieval.load_from == "work_dirs/clipbert_tiny-slowonly_1xb32-4e_shapes-pretrain/epoch_4.pth"
    compat.import_mmpretrain()
    model = MODELS.build(objects.model)
    images = torch.randn(2, 3, 64, 64)
    (maps,) = model.backbone(images)  # (N, C, h, w)
    torch.testing.assert_close(maps, model.backbone(images[:, None])[:, 0])
    model.head.fc(model.neck((maps,))[0]).sum().backward()
    assert without_gradient(model) == []
    assert [name for name in model.state_dict() if name.startswith("backbone.")] == [
        f"backbone.{name}" for name in MODELS.build(retrieval.model.backbone).state_dict()
    ]


def test_the_twins_on_shapes_differ_in_the_backbone_and_where_they_start():
    two, three = (
        load_config(str(path)).to_dict() for path in (TWIN, TWIN.with_stem(TWIN.stem.replace("tiny", "tiny-slowonly")))
    )
    assert "/clipbert_tiny_1xb32-4e_shapes-pretrain/" in two["load_from"]
    for config in (two, three):
        for name in ("load_from", "slowonly"):
            config.pop(name, None)
        config["model"].pop("backbone")
        config["model"].pop("projection")
    assert two == three
