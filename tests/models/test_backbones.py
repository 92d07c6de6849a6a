"""Backbones by config: mmpretrain's with its library, any other without."""

import pytest
import torch

from clipbert_mm import compat
from clipbert_mm.models.backbones import build_backbone


def test_a_registered_module_needs_no_mmpretrain(monkeypatch: pytest.MonkeyPatch):
    def refuse() -> None:
        raise AssertionError("mmpretrain is imported, which takes seconds")

    monkeypatch.setattr(compat, "import_mmpretrain", refuse)
    backbone = build_backbone(dict(type="TinyBackbone", channels=5))
    assert backbone(torch.zeros(1, 3, 32, 32))[-1].shape == (1, 5, 8, 8)


def test_mmpretrain_s_resnet_is_torch_s_own_layers():
    # A twin of the first layers, from torch's functions.
    backbone = build_backbone(dict(type="mmpretrain.ResNet", depth=18, stem_channels=4, base_channels=4))
    backbone.eval()
    frames = torch.randn(2, 3, 64, 64)
    stem = torch.nn.functional.conv2d(frames, backbone.conv1.weight, stride=2, padding=3).relu()
    pooled = torch.nn.functional.max_pool2d(stem / (1 + 1e-5) ** 0.5, 3, stride=2, padding=1)  # fresh batch norms
    seen = []
    backbone.layer1.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    assert backbone(frames)[-1].shape == (2, 32, 2, 2)
    torch.testing.assert_close(seen[0], pooled)


def test_an_unknown_backbone_is_answered_with_names():
    with pytest.raises(KeyError, match=r"'TinyBakbone' is not in the model registry\. Did you mean TinyBackbone"):
        build_backbone(dict(type="TinyBakbone"))


def test_an_unknown_backbone_of_mmpretrain_is_an_error():
    with pytest.raises(KeyError, match="ResNeet"):
        build_backbone(dict(type="mmpretrain.ResNeet"))
