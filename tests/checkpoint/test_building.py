"""Models that are built for weights to be loaded are what they would be had they been initialized first."""

import copy

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from clipbert_mm.checkpoint import WithoutInitialization, build_model, load_weights
from clipbert_mm.registry import MODELS

TINY = dict(vocab_size=50, hidden_size=16, num_layers=2, num_heads=2, intermediate_size=32, max_text_length=20)
SWIN = dict(
    type="mmpretrain.SwinTransformer",
    arch=dict(embed_dims=8, depths=[1] * 4, num_heads=[1] * 4),
    img_size=64,
    window_size=2,
)
CONVNEXT = dict(type="mmpretrain.ConvNeXt", arch=dict(depths=[1] * 4, channels=[8] * 4), gap_before_final_norm=False)
RESNET = dict(type="mmpretrain.ResNet", depth=18, base_channels=8, stem_channels=8, norm_eval=True)


def build(config: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        return MODELS.build(copy.deepcopy(config))


def all_tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    """Return parameters and buffers, those too that no checkpoint holds."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


@pytest.mark.parametrize(
    ("backbone", "encoder"),
    [
        (RESNET, dict(architecture="bert")),
        (
            RESNET | dict(norm_eval=False, frozen_stages=1),
            dict(architecture="roberta"),
        ),  # numbered places, padding's is 1
        (SWIN, dict(architecture="electra")),  # windows' indices are buffers
        (CONVNEXT, dict(architecture="distilbert")),
    ],
    ids=["ResNet, BERT", "ResNet that trains, RoBERTa", "Swin, ELECTRA", "ConvNeXt, DistilBERT"],
)
def test_a_model_that_is_not_initialized_is_the_same_once_it_is_loaded(
    model_config: dict, backbone: dict, encoder: dict
):
    config = model_config
    config["backbone"] = backbone
    config["projection"]["in_channels"] = {"ResNet": 64, "SwinTransformer": 64, "ConvNeXt": 8}[
        backbone["type"].rpartition(".")[2]
    ]
    config["projection"]["out_channels"] = config["head"]["in_channels"] = TINY["hidden_size"]
    config["encoder"] = dict(type="JointEncoder", grid_size=8) | TINY | encoder
    torch.manual_seed(0)
    weights = build(config).state_dict()
    torch.manual_seed(1)
    expected = build(config)
    expected.load_state_dict(weights)

    before = torch.get_rng_state()
    loaded = build_model(copy.deepcopy(config), weights, "a.pth")
    assert torch.equal(torch.get_rng_state(), before)
    names = [name for name, value in loaded.named_parameters() if value.unique().numel() > 1]
    assert names == [], "what is initialized at random waits for its weights"
    load_weights(loaded, weights, "a.pth", strict=True)

    found, wanted = all_tensors(loaded), all_tensors(expected)
    assert found.keys() == wanted.keys()
    assert all(torch.equal(found[name], wanted[name]) for name in wanted)
    assert all(found[name].stride() == wanted[name].stride() for name in wanted)
    assert all(
        one.requires_grad == other.requires_grad
        for one, other in zip(loaded.parameters(), expected.parameters(), strict=True)
    )
    frames, ids = torch.randn(1, 1, 1, 3, 64, 64), torch.tensor([[2, 3, 4]])
    with torch.no_grad():
        first, second = (
            model.eval().score(model.encode_video(frames), ids, torch.ones_like(ids), torch.tensor([0]))
            for model in (loaded, expected)
        )
    assert torch.equal(first, second)
    assert first.isfinite().all()


def test_only_what_is_drawn_at_random_is_left_out():
    before = torch.get_rng_state()
    with WithoutInitialization():
        layer = nn.Linear(4, 4)
        norm = nn.BatchNorm2d(4)
        truncated = nn.init.trunc_normal_(torch.empty(4, 4))
        filled = nn.init.constant_(torch.empty(2), 0.5)
        drawn = torch.rand(3)
    assert not layer.weight.any()
    assert not layer.bias.any()
    assert not truncated.any()
    assert norm.weight.tolist() == [1] * 4
    assert filled.tolist() == [0.5] * 2
    torch.set_rng_state(before)
    assert torch.equal(drawn, torch.rand(3)), "a function that gives new numbers is not asked to fill a tensor"
    assert nn.Linear(4, 4).weight.any()
