"""Weights that do not fit are refused, with both sides in numbers; what is new or left over is reported."""

import dataclasses
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from clipbert_mm import compat
from clipbert_mm.checkpoint import CheckpointError, LoadedCheckpoint, check_fit
from clipbert_mm.models import JointEncoder, MatchingHead, OpenEndedHead
from clipbert_mm.models.backbones import build_backbone
from clipbert_mm.registry import MODELS

ENCODER = dict(vocab_size=30, hidden_size=8, num_layers=2, num_heads=2, intermediate_size=8, max_text_length=12)


def source_of(
    weights: nn.Module | dict[str, Tensor], *parts: str, path: str = "a.pth", title: str = "ours"
) -> LoadedCheckpoint:
    """A checkpoint that was read."""
    tensors = weights.state_dict() if isinstance(weights, nn.Module) else weights
    return LoadedCheckpoint(path, title, parts, None, dict(tensors))


@pytest.fixture
def model() -> nn.ModuleDict:
    """A backbone of ten tensors and a head of two."""
    return nn.ModuleDict(dict(backbone=nn.Sequential(*[nn.Linear(3, 3) for _ in range(5)]), head=nn.Linear(3, 2)))


def test_the_report_says_where_every_tensor_went(model: nn.Module):
    first = model.backbone.state_dict(prefix="backbone.")
    first |= {"fc.weight": torch.zeros(1), "backbone.4.more.bias": torch.zeros(1)}
    del first["backbone.2.bias"]
    report = check_fit(model, [source_of(first, "backbone", title="theirs")], whole=False, min_share=0.9)
    assert report.loaded == tuple(
        f"backbone.{i}.{part}" for i in range(5) for part in ("weight", "bias") if (i, part) != (2, "bias")
    )
    assert report.missing == ("backbone.2.bias", "head.weight", "head.bias")
    assert report.unexpected == ("fc.weight", "backbone.4.more.bias")
    assert report.wrong_shape == ()
    assert str(report) == (
        "weights from a.pth (theirs)\n"
        "  loaded: 9 of the model's 12 tensors: backbone.0, backbone.1, backbone.2.weight, backbone.3, backbone.4\n"
        "  missing (new): 3: backbone.2.bias, head\n"
        "  unexpected (not used): 2: fc, backbone.4.more\n"
        "  wrong shape: 0"
    )


def test_the_report_says_what_stays_random(model: nn.Module):
    first = source_of(model.backbone.state_dict(prefix="backbone."), "backbone")
    assert "frozen" not in str(check_fit(model, [first], whole=False))
    model.head.requires_grad_(False)
    report = check_fit(model, [first], whole=False)
    assert report.frozen_uninitialized == ("head.weight", "head.bias")
    assert str(report).endswith("\n  wrong shape: 0\n  frozen but not initialized: 2: head")
    with pytest.warns(FutureWarning, match=r"LoadReport\.stuck is deprecated .* Use frozen_uninitialized\."):
        assert report.stuck == report.frozen_uninitialized


def test_long_lists_are_cut(model: nn.Module):
    more = {f"other{i}.weight": torch.zeros(1) for i in range(11)}
    report = check_fit(model, [source_of(model.state_dict() | more)], whole=False)
    listed = ", ".join(f"other{i}" for i in range(8))
    assert f"unexpected (not used): 11: {listed} and 3 more\n" in str(report)


def test_how_many_batches_a_norm_saw_does_not_matter():
    norm = nn.ModuleDict(dict(backbone=nn.BatchNorm2d(3)))
    tensors = {name: value for name, value in norm.state_dict().items() if not name.endswith("batches_tracked")}
    assert check_fit(norm, [source_of(tensors, "backbone")], whole=True, min_share=1).missing == ()
    assert len(check_fit(norm, [source_of(norm, "backbone")], whole=True).loaded) == 4


def test_of_several_the_last_counts(model: nn.Module):
    good = source_of(model, path="good.pth")
    wrong = source_of({"head.weight": torch.zeros(9, 3)}, path="wrong.pth", title="theirs")
    report = check_fit(model, [wrong, good], whole=True)
    assert report.sources == ("wrong.pth (theirs)", "good.pth (ours)")
    assert len(report.loaded) == 12
    with pytest.raises(CheckpointError, match=r"head\.weight: checkpoint \(9, 3\), model \(2, 3\)"):
        check_fit(model, [good, wrong], whole=False)


def test_each_source_fills_its_own_part(model: nn.Module):
    parts = [source_of(model[part].state_dict(prefix=f"{part}."), part) for part in ("head", "backbone")]
    assert len(check_fit(model, parts, whole=True, min_share=1).loaded) == 12


@pytest.fixture
def resnet() -> Callable[[int], nn.Module]:
    """Build a narrow ResNet of a depth."""
    compat.import_mmpretrain()

    def build(depth: int, **options: Any) -> nn.Module:
        sizes = dict(type="mmpretrain.ResNet", stem_channels=4, base_channels=4) | options
        return nn.ModuleDict(dict(backbone=MODELS.build(dict(depth=depth, **sizes))))

    return build


def refusal(model: nn.Module, source: LoadedCheckpoint, **options: Any) -> str:
    """What is said of a checkpoint that does not fit; the report follows in the next lines."""
    with pytest.raises(CheckpointError) as caught:
        check_fit(model, [source], **(dict(whole=False) | options))
    first, report = str(caught.value).split("\n", 1)
    assert report.startswith(f"weights from {source.path} ({source.title})\n  loaded: ")
    return first


USE_IT = "Use the config that the checkpoint was trained with, with the environment variables that it read then"
USE_ITS_CONFIG = f"{USE_IT}, or change the model's."


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("theirs", "ours"), [(50, 101), (101, 50), (152, 101)])
def test_another_depth_of_the_backbone(resnet: Callable, theirs: int, ours: int, whole: bool):
    blocks = {50: "(3, 4, 6, 3)", 101: "(3, 4, 23, 3)", 152: "(3, 8, 36, 3)"}
    assert refusal(resnet(ours), source_of(resnet(theirs), "backbone"), whole=whole) == (
        "The checkpoint does not fit the model. blocks of the backbone's stages: checkpoint "
        f"{blocks[theirs]}, model {blocks[ours]}. {USE_ITS_CONFIG}"
    )


STAGED = {
    "ConvNeXt": lambda blocks: dict(
        type="mmpretrain.ConvNeXt", arch=dict(depths=[1, 1, blocks, 1], channels=[4] * 4), gap_before_final_norm=False
    ),
    "Swin": lambda blocks: dict(
        type="mmpretrain.SwinTransformer",
        arch=dict(embed_dims=4, depths=[1, 1, blocks, 1], num_heads=[1] * 4),
        pad_small_map=True,
    ),
    "timm": lambda blocks: dict(
        type="mmpretrain.TIMMBackbone", model_name="convnext_atto", features_only=True, depths=(1, 1, blocks, 1)
    ),
}


@pytest.mark.parametrize(("theirs", "ours"), [(3, 2), (2, 3)])
@pytest.mark.parametrize("kind", STAGED)
def test_another_depth_of_other_backbones(kind: str, theirs: int, ours: int):
    # A deeper network has all the tensors that the model asks for.
    model, other = (nn.ModuleDict(dict(backbone=build_backbone(STAGED[kind](blocks)))) for blocks in (ours, theirs))
    assert refusal(model, source_of(other, "backbone")) == (
        f"The checkpoint does not fit the model. blocks of the backbone's stages: checkpoint (1, 1, {theirs}, 1), model "
        f"(1, 1, {ours}, 1). {USE_ITS_CONFIG}"
    )
    assert len(check_fit(model, [source_of(model, "backbone")], whole=True).missing) == 0


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            "SEResNet",
            "329 tensors of backbone, and the model has 265 of them but not backbone.layer1.0.se_layer.conv1.",
        ),
        ("ResNetV1c", "275 tensors of backbone, and the model has 260 of them but not backbone.stem.0.conv.weight;"),
    ],
)
def test_a_larger_network_that_has_all_of_the_model_s_is_refused(resnet: Callable, other: str, said: str):
    message = refusal(resnet(50), source_of(resnet(50, type=f"mmpretrain.{other}"), "backbone", title="theirs"))
    assert message.startswith(f"a.pth (theirs) has {said}")
    assert message.endswith(
        "CheckpointCompatibilityHook requires a share of 0.95. Use the model that it was made for, or lower min_share."
    )


def test_another_width_of_the_backbone(resnet: Callable):
    message = refusal(resnet(50), source_of(resnet(50, stem_channels=8), "backbone"))
    assert (
        "channels of the backbone's stem: checkpoint 8, model 4; backbone.conv1.weight: checkpoint (8, 3, 7" in message
    )


def encoder(**options: Any) -> nn.ModuleDict:
    return nn.ModuleDict(dict(encoder=JointEncoder(**(ENCODER | dict(grid_size=5) | options))))


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize(("theirs", "ours"), [(12, 24), (24, 12)])
def test_another_depth_of_the_encoder(theirs: int, ours: int, whole: bool):
    model, other = encoder(num_layers=ours), encoder(num_layers=theirs)
    assert refusal(model, source_of(other, "encoder.bert"), whole=whole) == (
        f"The checkpoint does not fit the model. layers of the encoder: checkpoint {theirs}, model {ours}. {USE_ITS_CONFIG}"
    )


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (
            dict(vocab_size=31),
            "vocabulary: checkpoint 31, model 30; encoder.bert.embeddings.word_embeddings.weight: check",
        ),
        (dict(hidden_size=6), "hidden size of the encoder: checkpoint 6, model 8; "),
        (dict(max_text_length=16), "position embeddings: checkpoint 16, model 12; "),
        (dict(grid_size=7), "rows of the grid: checkpoint 7, model 5; "),
        (
            dict(intermediate_size=4),
            "encoder.bert.encoder.layer.0.intermediate.dense.weight: checkpoint (4, 8), model (8, 8).",
        ),
        (
            dict(vocab_size=40, num_layers=1),
            "layers of the encoder: checkpoint 1, model 2; vocabulary: checkpoint 40, model 30; ",
        ),
    ],
)
def test_other_sizes_of_the_encoder(options: dict, said: str):
    message = refusal(encoder(), source_of(encoder(**options), "encoder.bert"))
    assert message.startswith(f"The checkpoint does not fit the model. {said}")
    assert message.endswith(USE_ITS_CONFIG)


def with_answers(answers: int, vocab_size: int = 30, hidden_channels: int | None = 6) -> nn.ModuleDict:
    """An encoder with a head for so many answers."""
    model = encoder(vocab_size=vocab_size)
    model["head"] = OpenEndedHead(in_channels=8, num_answers=answers, hidden_channels=hidden_channels)
    return model


def test_another_number_of_answers():
    reinit = (
        "Set reinit=['head'] of CheckpointCompatibilityHook to train a new head: --cfg-options "
        "\"default_hooks.checkpoint_fit.reinit=['head']\"."
    )
    said = "The checkpoint does not fit the model. answers of the head: checkpoint 7, model 5; head.classifier."
    for hidden, name in (
        (6, "2.weight: checkpoint (7, 6), model (5, 6)"),
        (None, "weight: checkpoint (7, 8), model (5, 8)"),
    ):
        model, other = with_answers(5, hidden_channels=hidden), source_of(with_answers(7, hidden_channels=hidden))
        assert refusal(model, other) == f"{said}{name}. {reinit}"
        # Testing and resuming take no new head, nor does one help where more differs.
        assert refusal(model, other, whole=True) == f"{said}{name}. {USE_ITS_CONFIG}"
    assert USE_ITS_CONFIG in refusal(with_answers(5), source_of(with_answers(7, vocab_size=31)))


def test_a_fresh_head_takes_nothing():
    model, other = with_answers(5), with_answers(7)
    report = check_fit(model, [source_of(other, "encoder.bert", "head")], whole=False, min_share=1, reinit=["head"])
    heads = {name for name in model.state_dict() if name.startswith("head.")}
    assert set(report.missing) == heads
    assert set(report.loaded) == model.state_dict().keys() - heads
    assert report.unexpected == report.wrong_shape == ()


def test_a_fresh_module_is_not_one_whose_name_begins_alike():
    model = nn.ModuleDict(dict(head=nn.Linear(2, 2), head2=nn.Linear(2, 2)))
    assert check_fit(model, [source_of(model)], whole=False, reinit=["head"]).loaded == ("head2.weight", "head2.bias")


def test_the_share_that_a_part_needs(model: nn.Module):
    some = {name: value for name, value in model.state_dict().items() if name not in ("backbone.1.weight", "head.bias")}
    assert len(check_fit(model, [source_of(some, "backbone")], whole=False, min_share=0.9).loaded) == 10
    assert refusal(model, source_of(some, "backbone", title="theirs"), min_share=0.901) == (
        "a.pth (theirs) has 9 of the 10 tensors of the model's backbone; "
        "CheckpointCompatibilityHook requires a share of 0.901. Use the model that it was made for, or lower min_share."
    )
    # Each part for itself, and what one file has is not counted for another.
    assert "has 1 of the 2 tensors of the model's head" in refusal(
        model, source_of(some, "backbone", "head"), min_share=0.9
    )
    alone = [source_of(model), source_of({}, "head", path="b.pth")]
    with pytest.raises(CheckpointError, match=r"b\.pth \(ours\) has 0 of the 2"):
        check_fit(model, alone, whole=False)


def test_testing_needs_all_and_no_more_of_any_part(model: nn.Module):
    weights = model.state_dict()
    assert check_fit(model, [source_of(weights | {"mlm_head.bias": torch.zeros(1)})], whole=True).unexpected
    short = {name: value for name, value in weights.items() if name != "head.bias"}
    use = f"{USE_IT}."
    said = "The checkpoint does not fit the model:"
    assert refusal(model, source_of(short), whole=True) == f"{said} it lacks head.bias. {use}"
    longer = weights | {"head.2.weight": torch.zeros(1)}
    assert (
        refusal(model, source_of(longer), whole=True)
        == f"{said} the model does not have its tensor head.2.weight. {use}"
    )
    assert check_fit(model, [source_of(longer)], whole=False).unexpected == ("head.2.weight",)


def test_another_kind_of_head_is_refused_for_testing():
    model = encoder()
    other = encoder()
    model["head"] = MatchingHead(in_channels=8, hidden_channels=None)
    other["head"] = OpenEndedHead(in_channels=8, num_answers=2, hidden_channels=None)
    assert check_fit(model, [source_of(other)], whole=True).wrong_shape == ()  # two logits either way: it fits
    other["head"] = OpenEndedHead(in_channels=8, num_answers=2, hidden_channels=6)
    assert "it lacks head.classifier.weight" in refusal(model, source_of(other), whole=True)


def test_nothing_that_fits(model: nn.Module):
    message = "Nothing in the checkpoint fits the model."
    assert refusal(model, source_of({"encoder.weight": torch.zeros(1)})) == message
    assert refusal(model, source_of(model), reinit=["backbone", "head"]) == message


@pytest.mark.parametrize("whole", [True, False])
def test_another_number_of_attention_heads_is_refused_though_every_tensor_fits(whole: bool):
    model, other = encoder(num_heads=2), encoder(num_heads=4)
    source = dataclasses.replace(source_of(other, "encoder.bert"), rest={"attention_heads": 4})
    assert refusal(model, source, whole=whole) == (
        f"The checkpoint does not fit the model. attention heads of the encoder: checkpoint 4, model 2. {USE_ITS_CONFIG}"
    )
    assert check_fit(other, [source], whole=whole).missing == ()
