"""Backbones by config: mmpretrain's with its library, any other without; and batch norms that convolutions do."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbert_mm import compat
from clipbert_mm.errors import ClipBertError
from clipbert_mm.models.backbones import build_backbone
from clipbert_mm.registry import MODELS

FROZEN_NORMS = dict(norm_cfg=dict(type="BN", requires_grad=False), norm_eval=True)
RESNETS = [
    dict(depth=18),
    dict(depth=50, style="pytorch"),
    dict(depth=50, style="caffe", frozen_stages=1),
    dict(type="mmpretrain.ResNetV1d", depth=18),
]


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


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            dict(type="mmpretrain.ResNeet"),
            r"mmpretrain has no ResNeet in its model registry\. Did you mean mmpretrain\.ResNet or",
        ),
        (
            dict(type="mmdet.ResNet"),
            r"'mmdet\.ResNet' is of a library mmdet, which is not imported or has no model registry",
        ),
        (
            dict(type="mmpretrain.ResNet", depth=17),
            r"mmpretrain\.ResNet cannot be built with {'depth': 17}: KeyError: 'inv",
        ),
        (
            dict(type="mmpretrain.ResNet", depth=18, foo=2),
            r"TypeError: .*'foo'\. Give the settings that its class in mmpret",
        ),
        (dict(type="mmpretrain.TIMMBackbone", model_name="nix"), r"RuntimeError: Unknown model \(nix\)"),
        ("mmpretrain.ResNet", "A backbone is a config with a type, such as"),
        (None, r"A backbone is a config with a type, .*, got None\."),
        (dict(type=3), r"A backbone is a config with a type, .*, got {'type': 3}\."),
    ],
    ids=str,
)
def test_a_backbone_that_cannot_be_built_is_one_sentence(config: Any, message: str):
    with pytest.raises(ClipBertError, match=message):
        build_backbone(config)


def test_an_error_of_a_backbone_of_ones_own_stays_what_it_is():
    with pytest.raises(TypeError, match="channel"):
        build_backbone(dict(type="TinyBackbone", channel=3))


def resnet_config(**options) -> dict[str, Any]:
    """Config of a narrow ResNet."""
    return dict(type="mmpretrain.ResNet", stem_channels=8, base_channels=8, out_indices=(0, 1, 2, 3)) | options


@pytest.fixture
def build_twins() -> Callable[..., tuple[nn.Module, nn.Module]]:
    """Build a ResNet in training mode as the package does and as mmpretrain does, with batch norms that matter."""

    def build(**options) -> tuple[nn.Module, nn.Module]:
        config = resnet_config(**(FROZEN_NORMS | options))
        ours = build_backbone(config).double()
        twin = MODELS.build(config).double()
        weights = twin.state_dict()
        kept = [name for name in weights if not name.endswith("num_batches_tracked")]
        assert [name for name in ours.state_dict() if not name.endswith("num_batches_tracked")] == kept, (
            "checkpoints fit either"
        )
        for name, value in weights.items():
            if name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "downsample.1.weight")):
                value *= 0.5 + torch.rand_like(value)
            elif name.endswith(("running_mean", "bias")):
                value += 0.2 * torch.randn_like(value)
        for model in (ours, twin):
            model.load_state_dict(weights)
            model.train()  # mmpretrain's returns None
        return ours, twin

    return build


@pytest.fixture
def norm_calls(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The maps that pass through a batch norm."""
    calls = []
    normalize = F.batch_norm
    monkeypatch.setattr(
        F, "batch_norm", lambda maps, *rest, **options: calls.append(maps) or normalize(maps, *rest, **options)
    )
    return calls


def maps_and_gradients(backbone: nn.Module, frames: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Return the maps of all stages and the gradients of what is trainable and of the frames, of a weighted sum."""
    backbone.zero_grad()
    frames = frames.clone().requires_grad_()
    maps = backbone(frames)
    sum((m * torch.linspace(-1, 2, m.numel()).view_as(m)).sum() for m in maps).backward()
    gradients = {name: value.grad for name, value in backbone.named_parameters() if value.grad is not None}
    return list(maps), gradients | {"frames": frames.grad}


@pytest.mark.parametrize("options", RESNETS, ids=str)
def test_folded_norms_change_neither_maps_nor_gradients(build_twins: Callable, options: dict):
    ours, twin = build_twins(**options)
    frames = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    maps, gradients = maps_and_gradients(ours, frames)
    wanted_maps, wanted_gradients = maps_and_gradients(twin, frames)
    assert all(gradient.any() for gradient in wanted_gradients.values())
    torch.testing.assert_close(maps, wanted_maps)
    torch.testing.assert_close(gradients, wanted_gradients)
    ours.eval()
    twin.eval()
    torch.testing.assert_close(ours(frames), twin(frames))


@pytest.mark.parametrize("options", RESNETS[:3], ids=str)
def test_no_map_passes_through_a_frozen_norm(build_twins: Callable, norm_calls: list, options: dict):
    ours, twin = build_twins(**options)
    frames = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    ours(frames)
    assert not norm_calls
    twin(frames)
    assert len(norm_calls) == {18: 20, 50: 53}[options["depth"]]


@pytest.mark.parametrize(
    ("options", "left"),
    [
        (dict(norm_cfg=dict(type="BN", requires_grad=True)), 20),  # scales and shifts learn
        (dict(norm_eval=False), 20),  # statistics follow the batch
        (dict(norm_cfg=dict(type="BN", requires_grad=True), frozen_stages=1), 15),  # but for the stem and a stage
    ],
)
def test_norms_that_learn_or_follow_the_batch_are_left_alone(
    build_twins: Callable, norm_calls: list, options: dict, left: int
):
    ours, twin = build_twins(depth=18, **options)
    frames = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    maps, gradients = maps_and_gradients(ours, frames)
    assert len(norm_calls) == left
    wanted_maps, wanted_gradients = maps_and_gradients(twin, frames)
    torch.testing.assert_close(maps, wanted_maps)
    torch.testing.assert_close(gradients, wanted_gradients)
    statistics = dict(twin.named_buffers())
    torch.testing.assert_close(
        dict(ours.named_buffers()), {name: statistics[name] for name in dict(ours.named_buffers())}
    )


def test_folded_resnets_start_from_the_same_weights():
    ours, twin = (make(resnet_config(depth=18, **FROZEN_NORMS)) for make in (build_backbone, MODELS.build))
    for model in (ours, twin):
        torch.manual_seed(3)
        model.init_weights()
    first = {name: value for name, value in twin.state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.testing.assert_close(dict(ours.state_dict()), first, rtol=0, atol=0)


def test_folded_norms_stay_in_eval_mode(build_twins: Callable):
    for backbone in build_twins(depth=50):
        norms = [module for name, module in backbone.named_modules() if "bn" in name.rpartition(".")[2]]
        assert len(norms) == 49
        assert not any(norm.training for norm in norms)


def test_a_copy_of_a_folded_resnet_has_norms_of_its_own(build_twins: Callable):
    ours, _ = build_twins(depth=18)
    frames = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    before = ours(frames)[-1].detach()
    twin = copy.deepcopy(ours)
    for name, value in ours.state_dict().items():
        if "bn" in name:
            value += 1
    torch.testing.assert_close(twin(frames)[-1], before)
    assert (ours(frames)[-1] - before).abs().max() > 0.1
    twin.load_state_dict(ours.state_dict())
    torch.testing.assert_close(twin(frames)[-1], ours(frames)[-1])


def test_folded_norms_run_in_mixed_precision(build_twins: Callable):
    ours, twin = (model.float() for model in build_twins(depth=18))
    frames = torch.randn(2, 3, 64, 64)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        maps, gradients = maps_and_gradients(ours, frames)
    wanted_maps, wanted_gradients = maps_and_gradients(twin, frames)
    assert maps[-1].dtype == torch.bfloat16
    for found, wanted in ((maps[-1], wanted_maps[-1]), (gradients["conv1.weight"], wanted_gradients["conv1.weight"])):
        assert (found - wanted).norm() < 0.05 * wanted.norm()


DEPTHS = dict(depths=[1, 1, 1, 1])
OTHERS = {
    "resnet": (
        dict(type="mmpretrain.ResNet", depth=18, stem_channels=8, base_channels=8, zero_init_residual=False),
        64,
        "layer4",
    ),
    "convnext": (
        dict(
            type="mmpretrain.ConvNeXt",
            arch=DEPTHS | dict(channels=[8, 16, 24, 32]),
            gap_before_final_norm=False,
        ),
        32,
        "stages.3",
    ),
    "swin": (
        dict(
            type="mmpretrain.SwinTransformer",
            arch=DEPTHS | dict(embed_dims=8, num_heads=[1, 2, 4, 8]),
            pad_small_map=True,
        ),
        64,
        "stages.3",
    ),
    "timm's Swin, whose maps have their channels last": (
        dict(
            type="mmpretrain.TIMMBackbone",
            model_name="swin_tiny_patch4_window7_224",
            features_only=True,
            img_size=224,
            strict_img_size=False,
            embed_dim=24,
            depths=(1, 1, 1, 1),
        ),
        192,
        "timm_model.layers_3",
    ),
    "timm": (
        dict(type="mmpretrain.TIMMBackbone", model_name="convnext_atto", features_only=True),
        320,
        "timm_model.stages_3",
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_backbones_train_by_the_same_recipe(
    name: str, model_config: dict, make_batch: Callable, without_gradient: Callable
):
    backbone, channels, last_stage = OTHERS[name]
    model_config["backbone"] = backbone
    model_config["projection"]["in_channels"] = channels
    model = MODELS.build(model_config)
    model.init_weights()
    model.train()
    maps = model.backbone(torch.randn(1, 3, 64, 96))
    assert maps[-1].shape == (1, channels, 2, 3), "one cell for 32 x 32 pixels"
    data = model.data_preprocessor(make_batch(size=64), training=True)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    assert loss.isfinite()
    assert without_gradient(model.backbone.get_submodule(last_stage)) == []


def test_weights_without_counted_batches_load_strictly(build_twins: Callable):
    ours, twin = build_twins(depth=18)
    weights = twin.state_dict()
    counted = [name for name in weights if name.endswith("num_batches_tracked")]
    ours.load_state_dict(weights)
    ours.load_state_dict({name: value for name, value in weights.items() if name not in counted})
    assert len(counted) == 20
