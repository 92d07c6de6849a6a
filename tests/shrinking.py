"""Configs of the paper's model made small enough to step through on a CPU."""

import copy
import functools
import json
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import Evaluator
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.runner import Runner
from torch import nn

from clipbert_mm.models.backbones.folding import FoldedNorm
from clipbert_mm.registry import MODELS

SIZES = {224: 64, 448: 64, 768: 96, 1000: 128}
"""Longer sides in the paper, and here."""


def shrink_model(model: dict[str, Any], vocab_size: int = 200) -> dict[str, Any]:
    """The same model with fewer channels, layers and words."""
    model["data_preprocessor"].update(vocab_size=vocab_size)
    model["backbone"].update(stem_channels=8, base_channels=8)
    model["projection"].update(in_channels=256, out_channels=32)
    model["temporal_fusion"].update(dict(channels=32) if "channels" in model["temporal_fusion"] else {})
    model["encoder"].update(
        vocab_size=vocab_size, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, initializer_range=0.2
    )
    if "mlm_head" in model:
        model["mlm_head"].update(in_channels=32, vocab_size=vocab_size)
        model["encoder"].update(pixel_sampling=3)
    model["head"].update(in_channels=32)
    model["head"].update(dict(hidden_channels=64) if model["head"]["hidden_channels"] else {})
    return model


def shrink_loader(loader: dict[str, Any]) -> dict[str, Any]:
    """The same loader in this process, with small batches of small frames."""
    loader.update(batch_size=2, num_workers=0, persistent_workers=False)
    for dataset in loader["dataset"].get("datasets", [loader["dataset"]]):
        for step in dataset["pipeline"]:
            if step["type"] == "ResizePad":
                step["size"] = SIZES[step["size"]]
    return loader


def build(config: Config) -> nn.Module:
    """Build a model with weights that let a gradient through, from the random state that a test begins with."""
    model = copy.deepcopy(_build(json.dumps(config.to_dict())))
    torch.manual_seed(0)  # the same state goes on, whether or not this one was built before
    return model


@functools.lru_cache(maxsize=16)  # most rows of a table have one model
def _build(config: str) -> nn.Module:
    torch.manual_seed(0)
    model = MODELS.build(json.loads(config))
    model.init_weights()
    for module in model.backbone.modules():
        if isinstance(module, (nn.BatchNorm2d, FoldedNorm)):  # mmpretrain lets each block begin as the identity
            nn.init.constant_(module.weight, 0.5)
    return model.train()


def train_a_step(config: Config) -> tuple[nn.Module, OptimWrapper, set[str]]:
    """Train the shrunken model of a config for a step; returns it, the optimizer, and the names of what has changed."""
    model = build(shrink_model(config.model))
    wrapper = build_optim_wrapper(model, config.optim_wrapper)
    loader = Runner.build_dataloader(shrink_loader(config.train_dataloader), seed=0)
    before = {name: value.detach().clone() for name, value in model.named_parameters()}
    wrapper.initialize_count_status(model, 0, 100)
    for data in list(loader)[: config.optim_wrapper.get("accumulative_counts", 1)]:
        losses = model(**model.data_preprocessor(data, True), mode="loss")
        loss, _ = model.parse_losses(losses)
        assert loss.isfinite()
        wrapper.update_params(loss)
    return model, wrapper, {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}


def take_a_step(model: nn.Module, dataloader: dict[str, Any], metric: dict[str, Any]) -> None:
    """Let a model predict a batch, and check the metric."""
    loader = Runner.build_dataloader(shrink_loader(dataloader), seed=0)
    with torch.no_grad():
        samples = model.test_step(next(iter(loader)))
    assert all(sample.scores.isfinite().all() for sample in samples)
    if metric.type == "RetrievalMetric":  # its loop has tests of its own
        assert [len(sample.scores) for sample in samples] == [len(sample.texts) for sample in samples]
        return
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = loader.dataset.metainfo
    evaluator.process(samples)
    metrics = evaluator.evaluate(len(samples))
    assert metrics["coverage"] == 100
    if metric.type == "AnswerAccuracy":
        labels = np.concatenate([sample.answer_labels for sample in samples])
        scores = np.concatenate([sample.scores.numpy().reshape(len(sample.answer_labels), -1) for sample in samples])
        assert metrics["accuracy"] == pytest.approx((scores.argmax(axis=1) == labels).mean() * 100)
