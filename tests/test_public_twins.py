"""The Shapes twins of ViLT and of BLIP: they train, stop and resume as all models do, with little data and few steps."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cut_runs import cut_and_resume, train
from faulty_runs import assert_same_training
from hook_runs import load
from mmengine.config import Config
from mmengine.runner import Runner

from clipbert_mm.datasets import train_vocabularies
from clipbert_mm.engine.config import load_config
from clipbert_mm.registry import MODELS

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "public"
TWINS = sorted(CONFIGS.glob("*_tiny_*_shapes-*.py"))
SMALL = dict(
    backbone=dict(hidden_size=16),
    encoder=dict(hidden_size=16, num_layers=2, num_heads=2, intermediate_size=24),
    head=dict(in_channels=16),
)
SMALL_BLIP = dict(backbone=SMALL["encoder"], encoder=SMALL["encoder"] | dict(visual_size=16, vector_size=8))


@pytest.fixture
def read(
    link_world: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[Path], Config]:
    """Read a config with its data in a small world, without the weights that it starts from."""

    def load_small(path: Path) -> Config:
        monkeypatch.setenv("SHAPES_ROOT", str(link_world(tmp_path / "world")))
        config = load_config(str(path))
        train_vocabularies(config)
        return config

    return load_small


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_one_step_reaches_every_parameter(path: Path, read: Callable, without_gradient: Callable) -> None:
    config = read(path)
    model = MODELS.build(config.model)
    model.init_weights()
    model.train()
    loader = Runner.build_dataloader(config.train_dataloader | dict(num_workers=0, batch_size=4), seed=0)
    loss, _ = model.parse_losses(model(**model.data_preprocessor(next(iter(loader)), True), mode="loss"))
    assert torch.isfinite(loss)
    loss.backward()
    # What a softmax does not see: a shift of all keys, or of the logits of all texts.
    unseen = r"key\.bias$" + (r"|^head\.classifier\.2\.bias$" if config.model.head.type == "SoftmaxRankingHead" else "")
    assert [name for name in without_gradient(model) if not re.search(unseen, name)] == []


@pytest.mark.parametrize("path", TWINS, ids=lambda path: path.stem)
def test_a_training_is_resumed_to_the_bit(path: Path, read: Callable, tmp_path: Path) -> None:
    config = read(path)
    config.merge_from_dict(
        dict(
            model=SMALL | (SMALL_BLIP if "blip" in path.stem else {}),
            load_from=None,
            work_dir=str(tmp_path / "work"),
            experiment_name=path.stem,
        )
    )
    if "mlm_head" in config.model:
        config.model.mlm_head.in_channels = 16
    config.default_hooks.checkpoint_fit.pop("reinit", None)
    config.default_hooks.logger.interval = 1
    config.train_cfg.max_epochs = 2
    config.train_dataloader.update(batch_size=4)
    config.train_dataloader.dataset.indices = 8
    for name in ("val_dataloader", "val_cfg", "val_evaluator"):
        config[name] = None
    whole = train(config, "-whole", interval=2)
    steps = len(whole.items)
    assert steps >= 4
    assert cut_and_resume(config, "-cut", steps - 1) == whole.items
    assert_same_training(*(end_of(config, name, steps) for name in ("-cut", "-whole")))


def end_of(config: Config, name: str, steps: int) -> dict:
    config = config.copy()
    config.work_dir += name
    return load(config, f"iter_{steps}")


@pytest.mark.parametrize("family", ["blip", "vilt"])
def test_what_is_fine_tuned_starts_from_the_pre_training(family: str) -> None:
    (first,) = CONFIGS.glob(f"{family}_tiny_*_shapes-pretrain.py")
    pretraining = load_config(str(first))
    start = f"work_dirs/{first.stem}/epoch_{pretraining.train_cfg.max_epochs}.pth"
    for path in CONFIGS.glob(f"{family}_tiny_*_shapes-*.py"):
        config = load_config(str(path))
        assert config.get("load_from") == (None if path == first else start)
        assert config.model.encoder == pretraining.model.encoder
        assert config.model.backbone == pretraining.model.backbone
