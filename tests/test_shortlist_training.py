"""Vectors are distilled by one training: it starts from a model, leaves it as it is, stops and resumes, and is searched by."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from cut_runs import cut_and_resume, train
from faulty_runs import assert_same_training
from hook_runs import load
from mmengine.config import Config

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.engine.launch import build_runner


@pytest.fixture
def distillation(runner_config: Config, write_checkpoint: Callable, tmp_path: Path) -> Config:
    """A config that distils the vectors of a model that has none."""
    runner_config.load_from = str(write_checkpoint())
    runner_config.work_dir = str(tmp_path / "distilled")
    runner_config.experiment_name = "distilled"
    runner_config.model.encoder.vector_size = 8
    runner_config.model.distillation = dict(type="VectorDistillation")
    runner_config.train_dataloader.dataset.num_negatives = 0
    runner_config.default_hooks.logger = dict(type="MainProcessLoggerHook", interval=1)
    return runner_config


def end_of(config: Config, name: str, steps: int) -> dict:
    config = config.copy()
    config.work_dir += name
    return load(config, f"iter_{steps}")


def test_a_training_of_vectors_is_resumed_to_the_bit_and_keeps_the_model(distillation: Config):
    whole = train(distillation, "-whole", interval=2)
    steps = len(whole.items)
    assert steps >= 4
    assert cut_and_resume(distillation, "-cut", steps - 1) == whole.items
    first, second = (end_of(distillation, name, steps) for name in ("-cut", "-whole"))
    assert_same_training(first, second)
    before = torch.load(distillation.load_from, weights_only=False)["state_dict"]
    after = second["state_dict"]
    assert {name for name in after if name not in before} == {
        name for name in after if name.startswith(("encoder.vectors.", "distillation."))
    }
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_a_checkpoint_of_it_opens_alone_and_is_tested_with_a_shortlist(distillation: Config, tmp_path: Path):
    train(distillation, "", interval=2)
    checkpoint = max(Path(distillation.work_dir).glob("iter_*.pth"), key=lambda path: path.stat().st_mtime)
    teacher, model = (Predictor(path).model for path in (distillation.load_from, checkpoint))
    assert (teacher.encoder.has_vectors, model.encoder.has_vectors, model.encoder.vector_size) == (False, True, 8)
    figures = []
    for shortlist in (None, 3):
        config = distillation.copy()
        config.load_from, config.work_dir = str(checkpoint), str(tmp_path / f"test-{shortlist}")
        config.experiment_name = f"test-{shortlist}"
        config.test_cfg = dict(type="RetrievalTestLoop", shortlist=shortlist)
        figures.append(build_runner(config).test())
    assert "t2v/shortlist_recall" not in figures[0]
    assert 0 <= figures[1]["t2v/shortlist_recall"] <= 100
