"""Configs of the paper's model made small enough to step through on a CPU."""

import copy
import functools
import json
from typing import Any

import torch
from mmengine.config import Config
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
