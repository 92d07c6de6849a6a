"""Models that are built for weights to be loaded are what they would be had they been initialized first."""

import copy

import pytest
import torch
from mmengine.registry import DefaultScope
from torch import nn

from clipbert_mm.checkpoint import CheckpointError, WithoutInitialization, build_model, load_weights
from clipbert_mm.checkpoint.building import Bounded
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


def test_operations_are_counted_and_the_first_beyond_the_limit_fails():
    value = torch.zeros(())
    with Bounded(2**20, 3):
        for _ in range(3):
            value.add_(1)
        with pytest.raises(CheckpointError, match=r"takes more than 3 operations\)"):
            value.add_(1)
    assert value.item() == 3


def test_bytes_are_counted_before_they_are_taken():
    with Bounded(1000, 100):
        kept = torch.zeros(125, dtype=torch.float64)
        kept.view(5, 25).add_(1)  # neither takes memory
    for make in (
        lambda: torch.zeros(1001, dtype=torch.int8),
        lambda: [torch.zeros(600, dtype=torch.int8) for _ in range(2)],  # the first is freed
        lambda: kept + kept[:1] + 1,
        lambda: torch.empty(2**50),  # more than any machine has
        lambda: kept.new_zeros(2**50),
        lambda: torch.arange(2**50),
    ):
        with Bounded(1000, 100), pytest.raises(CheckpointError, match=r"takes more than 1,000 bytes\)"):
            make()


@MODELS.register_module(force=True)
class Costly(nn.Module):
    """A model of no weights that takes memory and operations to build."""

    def __init__(self, *, doublings: int = 0, operations: int = 0, sizes: tuple = (), more: dict | None = None) -> None:
        super().__init__()
        torch.empty(2**doublings, dtype=torch.uint8)
        value = torch.zeros(())
        for _ in range(operations):
            value.add_(1)


@pytest.mark.parametrize(
    ("fits", "too_much", "said"),
    [
        (dict(doublings=26), dict(doublings=28), r"more than \d+,\d+,\d+ bytes"),  # the weights take 2**22 bytes
        (dict(operations=1000), dict(operations=4000), "more than 1,520 operations"),
        (dict(sizes=[4096, -4096]), dict(sizes=[1, [2], -4097]), "a size of -4097"),
        (dict(more={"a": 4096.0}), dict(more={"a": {"b": 4097}}), "a size of 4097"),
    ],
)
def test_building_costs_no_more_than_the_weights_account_for(fits: dict, too_much: dict, said: str):
    weights = {"a": torch.zeros(1024, 1024)}
    build_model(dict(type="Costly", **fits), weights, "a.pth")
    with pytest.raises(CheckpointError, match=rf"^a\.pth: the model that it describes is larger than .*{said}"):
        build_model(dict(type="Costly", **too_much), weights, "a.pth")
    large = {"a": torch.zeros(2**13, 2**13, dtype=torch.uint8), **{str(i): torch.zeros(1) for i in range(200)}}
    build_model(dict(type="Costly", **too_much), large, "a.pth")


def test_weights_are_loaded_by_name_and_the_rest_is_left_unless_told():
    given = {"weight": torch.full((2, 3), 2.0), "other": torch.full((1,), float("nan"))}
    model = nn.Linear(3, 2)
    bias = model.bias.detach().clone()
    load_weights(model, given, "a.pth")
    assert torch.equal(model.weight, given["weight"])
    assert torch.equal(model.bias, bias)
    with pytest.raises(CheckpointError, match=r"^a\.pth does not fit the model: .*bias"):
        load_weights(model, given, "a.pth", strict=True)
    with pytest.raises(CheckpointError, match=r"^a\.pth is refused: 1 of the 2 tensors .* the first is 'bias'"):
        load_weights(model, given | {"bias": torch.tensor([1.0, float("inf")])}, "a.pth")


def test_sizes_of_results_are_known_by_shapes_and_types(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Bounded, "known", {})
    computed, compute = [], Bounded._result_bytes
    monkeypatch.setattr(Bounded, "_result_bytes", lambda *given: computed.append(given[0]) or compute(*given))
    bounded = Bounded(10_000, 100)

    def taken(size: int, value: float) -> int:
        before = bounded.bytes_left
        with bounded:
            torch.full((size,), value)
        return before - bounded.bytes_left

    asked = [(7, 1.0), (7, 1.0), (9, 1.0), (7, 1)]  # the last are integers of eight bytes, though 1 == 1.0
    assert [taken(*each) for each in asked] == [28, 28, 36, 56]
    assert len(computed) == 3
    monkeypatch.setattr("clipbert_mm.checkpoint.building.MAX_KNOWN_SIZES", 3)
    taken(8, 1.0)
    assert len(Bounded.known) == 1, "they are forgotten before they are too many"
