"""Video backbones as clip encoders: each of mmaction2's, small; the layouts; what is refused; and 2D backbones as before."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from benchmarks.video_backbones import BACKBONES, encoder_config
from mmengine.config import Config
from sister_libraries import import_mmaction
from torch import Tensor, nn

from clipbert_mm import compat
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint import load_weights, read_source
from clipbert_mm.checkpoint.building import build_model
from clipbert_mm.checkpoint.compatibility import check_fit
from clipbert_mm.checkpoint.preprocessing import PYTORCH, UNIFORMER, X3D
from clipbert_mm.engine.launch import build_runner, follow_weights
from clipbert_mm.errors import OptionError
from clipbert_mm.models import ClipBert, ClipEncoder
from clipbert_mm.models.backbones import build_backbone
from clipbert_mm.registry import MODELS
from clipbert_mm.trusted import check_model

import_mmaction()

SIZE = 32
SPECS = {"X3D": X3D, "UniFormer": UNIFORMER}


@pytest.fixture
def build(model_config: dict) -> Callable[[str], tuple[ClipBert, dict[str, Any]]]:
    """Build a small ClipBert with a clip encoder; gives it and its config."""

    def model_of(name: str) -> tuple[ClipBert, dict[str, Any]]:
        encoder = encoder_config(name)
        channels = MODELS.build(copy.deepcopy(encoder)).map_shape[1]
        projection = model_config["projection"] | dict(in_channels=channels, pool=False)
        config = model_config | dict(backbone=encoder, projection=projection)
        return MODELS.build(copy.deepcopy(config)), config

    return model_of


def recognizer(name: str) -> nn.Module:
    """Build mmaction2's whole recognizer, with batch norms that matter."""
    backbone, _, layout, head = copy.deepcopy(BACKBONES[name])
    compat.import_mmaction()
    from mmaction.registry import MODELS as THEIRS

    kind = "Recognizer2D" if layout == "frames" else "Recognizer3D"
    with compat.building_mmaction():
        model = THEIRS.build(dict(type=kind, backbone=backbone, cls_head=head | dict(num_classes=5)))
    for norm in (each for each in model.modules() if isinstance(each, nn.modules.batchnorm._BatchNorm)):
        nn.init.uniform_(norm.weight, 0.5, 1.5)
        nn.init.normal_(norm.bias, std=0.2)
        norm.running_mean.normal_(std=0.2)
        norm.running_var.uniform_(0.5, 1.5)
    return model.eval()


@pytest.mark.parametrize("name", BACKBONES)
def test_a_checkpoint_of_mmaction2_loads_and_computes_what_it_does_there(name: str, build: Callable, tmp_path: Path):
    theirs = recognizer(name)
    torch.save({"meta": {"epoch": 100}, "state_dict": theirs.state_dict()}, tmp_path / "published.pth")
    assert any(key.startswith("cls_head.") for key in theirs.state_dict())
    model, _ = build(name)
    source = read_source(str(tmp_path / "published.pth")).named_as(model.state_dict().keys())
    assert source.title.startswith("mmaction2's")
    assert source.input_spec == SPECS.get(name, PYTORCH)
    report = check_fit(model, [source], whole=False)
    assert report.wrong_shape == ()
    assert not [each for each in report.missing if each.startswith("backbone.")]
    unused = {each for each in report.unexpected if not each.startswith("cls_head.")}
    assert unused == (
        {f"backbone.backbone.fc_norm.{part}" for part in ("weight", "bias")} if name == "VideoMAE" else set()
    )
    load_weights(model, source.tensors, source.path)
    encoder = model.eval().backbone
    clips = torch.randn(2, *encoder.clip_shape)
    with torch.no_grad():
        found = encoder(clips)  # (N, t, C, h, w)
        theirs.backbone.return_feat_map = True
        if encoder.layout == "frames":
            wanted = theirs.backbone(clips.flatten(0, 1)).unflatten(0, (2, -1))
        else:
            wanted = theirs.backbone(clips.transpose(1, 2).contiguous())
    if name == "SlowFast":  # its head pools each pathway over time and space, and puts the vectors side by side
        wanted = torch.cat([each.mean(dim=(2, 3, 4)) for each in wanted], dim=1)  # (N, C)
        found = found.mean(dim=(1, 3, 4))
    elif encoder.layout == "volume":
        wanted = wanted.transpose(1, 2)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)  # ours has its weights channels-last
    assert encoder(clips).shape == (2, *encoder.map_shape)


@pytest.mark.parametrize("name", BACKBONES)
def test_each_trains_end_to_end_and_is_rebuilt_from_a_checkpoint(
    name: str, build: Callable, make_batch: Callable, without_gradient: Callable
):
    model, config = build(name)
    model.init_weights()
    model.train()
    num_frames, _, size, _ = model.backbone.clip_shape
    data = model.data_preprocessor(make_batch(clips=2, length=num_frames, size=size), training=True)
    loss, _ = model.parse_losses(model(**data, mode="loss"))
    loss.backward()
    assert loss.isfinite()
    assert without_gradient(model) == []

    model.eval()
    frames = data["inputs"]["frames"]
    with torch.no_grad():
        tokens = model.encode_video(frames)
        torch.testing.assert_close(tokens[:1, 1:], model.encode_video(frames[:1, 1:]), rtol=1e-4, atol=1e-5)
    # What an untrusted file may name: a model of such a config, with no more memory than its weights.
    rebuilt = build_model(check_model(config, "a file"), model.state_dict(), "a file")
    load_weights(rebuilt, model.state_dict(), "a file", strict=True)
    with torch.no_grad():
        torch.testing.assert_close(rebuilt.eval().encode_video(frames), tokens, rtol=1e-5, atol=1e-6)


class Probe(nn.Module):
    """Keeps what it is given."""

    def forward(self, frames: Tensor) -> Tensor:
        self.seen = frames
        return frames


@pytest.mark.parametrize("layout", ["volume", "frames"])
def test_frames_reach_the_backbone_without_a_copy(model_config: dict, layout: str):
    MODELS.register_module(name="Probe", module=Probe, force=True)
    encoder = ClipEncoder(backbone=dict(type="Probe"), num_frames=4, frame_size=8, layout=layout)
    preprocessor = MODELS.build(model_config["data_preprocessor"])
    frames = preprocessor.normalize(torch.randint(0, 255, (2, 3, 4, 8, 8, 3), dtype=torch.uint8))  # (B, K, T, 3, H, W)
    maps = encoder(frames.flatten(0, 1))
    seen = encoder.backbone.seen
    assert seen.data_ptr() == maps.data_ptr() == frames.data_ptr()
    assert seen.is_contiguous(memory_format=torch.channels_last_3d if layout == "volume" else torch.channels_last)
    torch.testing.assert_close(maps.unflatten(0, (2, 3)), frames, rtol=0, atol=0)
    if layout == "volume":
        encoder(frames[:, 1:2].flatten(0, 1))  # one clip at a time, as clip_sequential takes them
        assert encoder.backbone.seen.data_ptr() == frames[:, 1:].data_ptr()


def test_a_2d_backbone_sees_each_frame_on_its_own_as_before(model_config: dict):
    model = MODELS.build(model_config).eval()
    frames = torch.randn(2, 3, 4, 3, 32, 48)
    wanted = model.projection(model.backbone(frames.flatten(0, 2))).unflatten(0, (2, 3, 4))
    assert torch.equal(model.encode_frames(frames), wanted)


def test_3d_convolutions_are_stored_channels_last(build: Callable):
    model, _ = build("SlowOnly")
    weights = [weight for weight in model.backbone.parameters() if weight.ndim == 5]
    assert weights
    assert all(weight.is_contiguous(memory_format=torch.channels_last_3d) for weight in weights)


def test_weights_of_images_start_a_clip_encoder_of_the_same_network(tmp_path: Path):
    resnet = dict(type="mmpretrain.ResNet", depth=18, stem_channels=4, base_channels=4)
    first = build_backbone(resnet)
    torch.save(
        {"state_dict": {f"backbone.{name}": value for name, value in first.state_dict().items()}}, tmp_path / "x.pth"
    )
    encoder = nn.ModuleDict(dict(backbone=ClipEncoder(backbone=resnet, num_frames=2, frame_size=64, layout="frames")))
    source = read_source(str(tmp_path / "x.pth")).named_as(encoder.state_dict().keys())
    assert check_fit(encoder, [source], whole=True).unexpected == ()
    assert all(name.startswith("backbone.backbone.") for name in source.tensors)


def test_mmaction2_s_tsn_loads_into_mmaction2_s_own_resnet_too(tmp_path: Path):
    torch.save({"state_dict": recognizer("TSN").state_dict()}, tmp_path / "tsn.pth")
    source = read_source(str(tmp_path / "tsn.pth"))
    backbone = BACKBONES["TSN"][0]
    bare = nn.ModuleDict(dict(backbone=build_backbone(backbone | dict(type="mmaction.ResNet"))))
    assert "backbone.layer1.0.bn1.weight" in source.tensors, "mmpretrain's names, unless the model has mmaction2's"
    assert check_fit(bare, [source.named_as(bare.state_dict().keys())], whole=True).missing == ()


REFUSED = {
    "a vector": (
        dict(backbone=dict(type="mmaction.TimeSformer", num_frames=4, img_size=SIZE, patch_size=16)),
        r"^ClipEncoder expects a map of 5 dimensions from mmaction\.TimeSformer, got \(1, 768\)\. Use a backbone that keeps",
    ),
    "a vector, of one that has a map": (
        dict(backbone=dict(type="mmaction.VisionTransformer", img_size=SIZE, depth=1, num_frames=4)),
        r"got \(1, 768\)\. .* return_feat_map=True of mmaction\.VisionTransformer\.$",
    ),
    "a border left out": (
        encoder_config("VideoMAE", frame_size=40),
        r"^mmaction\.VisionTransformer does not take clips of 4 frames of 40 x 40 pixels: it cuts 40 into parts of 16 and "
        r"would leave 8 out\. Set frame_size and num_frames of ClipEncoder to multiples\.$",
    ),
    "another length": (
        encoder_config("VideoMAE", num_frames=8),
        r"^mmaction\.VisionTransformer does not take clips of 8 frames of 32 x 32 pixels as \(N, 3, T, H, W\): RuntimeError: .*"
        r"\. Set num_frames, frame_size and layout of ClipEncoder to what it takes\.$",
    ),
    "a length between": (
        encoder_config("SlowFast", num_frames=6),
        r"^mmaction\.ResNet3dSlowFast does not take clips of 6 fr",
    ),
    "pathways that are not joined": (
        encoder_config("SlowFast", join_pathways=False),
        r"^mmaction\.ResNet3dSlowFast returns maps of 2, 8 points in time, as pathways do\. Set join_pathways=True",
    ),
    "other segments": (
        encoder_config("TSM", num_frames=8),
        r"^ClipEncoder has num_frames=8, but mmaction\.ResNetTSM mixes 4 frames\. Set num_segments of the backbone to",
    ),
    "the other layout": (
        encoder_config("TSM", layout="volume"),
        r"ResNetTSM does not take clips .* as \(N, 3, T, H, W\): Runt",
    ),
    "no layout": (
        encoder_config("TSM", layout="NCTHW"),
        r"^ClipEncoder expects layout to be one of volume, frames, got 'NC",
    ),
    "no backbone": (
        dict(backbone=dict(type="mmaction.ResNet3dSlowOnli")),
        r"^mmaction has no ResNet3dSlowOnli in its model registry\. Did you mean mmaction\.ResNet3dSlowOnly or ",
    ),
    "a backbone like no other": (
        dict(backbone=dict(type="mmaction.Qqqqq")),
        r"^mmaction has no Qqqqq in its model registry\. There are: .* ResNet3dCSN, ",
    ),
    "a backbone without its scope": (
        dict(backbone=dict(type="ResNet3dSlowOnly")),
        r"^'ResNet3dSlowOnly' is not in the model registry\. Did you mean mmaction\.ResNet3dSlowOnly\?",
    ),
    "no config": (
        dict(backbone="mmaction.ResNet3d"),
        r"^A backbone is a config with a type, such as dict\(type='mmpretrain.ResNet', depth=50\), got 'mmaction.ResNet3d'\.$",
    ),
    "no type": (dict(backbone=dict(depth=18)), r"config with a type, .*, got {'depth': 18}\.$"),
    "a depth that it has not": (
        dict(backbone=dict(type="mmaction.ResNet3dCSN", depth=10)),
        r"^mmaction\.ResNet3dCSN cannot be built with {'depth': 10}: KeyError: 'invalid depth 10 for resnet'\. Give the "
        r"settings that its class in mmaction takes\.$",
    ),
    "a setting that it has not": (
        dict(backbone=dict(type="mmaction.ResNet3dCSN", depth=50, foo=1)),
        r"^mmaction\.ResNet3dCSN cannot be built with .*TypeError: .*'foo'\. Give",
    ),
    "an assertion without words": (
        dict(backbone=dict(type="mmaction.TANet", depth=50, num_segments=0)),
        r"^mmaction\.TANet cannot be built with .*: AssertionError\. Give",
    ),
    "no convolution": (
        dict(backbone=dict(type="mmaction.ResNet2Plus1d", depth=18, conv_cfg=dict(type="Conv2plus1"))),
        r"^mmaction\.ResNet2Plus1d cannot be built with {'conv_cfg': {'type': 'Conv2plus1'}, 'depth': 18}: KeyError: ",
    ),
    "no backbone at all": (
        dict(backbone=dict(type="mmaction.Recognizer3D")),
        r"^mmaction\.Recognizer3D cannot be built with {}: TypeError: .*missing",
    ),
} | {
    f"sizes {sizes}": (
        dict(backbone=dict(type="mmaction.ResNet3d", depth=50)) | sizes,
        r"^ClipEncoder expects num_frames and frame_size to be whole numbers of 1 or more, .*, got .* and ",
    )
    for sizes in (
        dict(frame_size=32.0),
        dict(frame_size=(32, 32)),
        dict(frame_size="32"),
        dict(frame_size=0),
        dict(num_frames=-4),
        dict(num_frames=None),
    )
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_it_cannot_take_is_refused_when_it_is_built(case: str):
    options, message = REFUSED[case]
    with pytest.raises((OptionError, KeyError), match=message):
        MODELS.build(dict(type="ClipEncoder", num_frames=4, frame_size=SIZE) | options)


@pytest.mark.parametrize("name", ["SlowOnly", "R(2+1)D", "Swin", "VideoMAE"])
def test_a_3d_backbone_in_the_place_of_a_2d_one_is_refused(name: str):
    (found,) = (each for each in BACKBONES if each.replace("Video ", "").startswith(name))
    config = encoder_config(found)["backbone"]
    with pytest.raises(OptionError, match=rf"^{config['type']} takes clips, not frames\. Put it into a ClipEncoder: "):
        build_backbone(config)


def test_a_class_instead_of_its_name_is_built_the_same():
    compat.import_mmaction()
    from mmaction.models import ResNet3dSlowOnly

    config = encoder_config("SlowOnly")
    named, given = (
        MODELS.build(config | dict(backbone=config["backbone"] | kind)) for kind in ({}, dict(type=ResNet3dSlowOnly))
    )
    assert (given.name, given.map_shape) == (named.name, named.map_shape)


def test_a_csn_needs_no_name_of_weights_and_its_checkpoint_may_name_some():
    config = dict(type="mmaction.ResNet3dCSN", depth=50, base_channels=8, pretrained="nowhere.pth")
    encoder = dict(type="ClipEncoder", backbone=config, num_frames=4, frame_size=SIZE)
    rebuilt = MODELS.build(check_model(encoder, "a.pth"))
    assert rebuilt.backbone.pretrained is None
    assert MODELS.build(encoder).backbone.pretrained == "nowhere.pth"
    compat.import_mmaction()
    from mmaction.models import ResNet3dCSN

    with pytest.raises(TypeError, match="pretrained"):  # otherwise the work-around can go
        ResNet3dCSN(depth=50)


def test_clips_of_another_length_or_size_are_refused_at_the_first_batch():
    encoder = MODELS.build(encoder_config("SlowOnly"))
    for shape, got in (((2, 3, 32, 32), "2 frames of 32 x 32"), ((4, 3, 48, 32), "4 frames of 48 x 32")):
        with pytest.raises(
            OptionError,
            match=f"takes clips of 4 frames of 32 x 32 pixels, got {got} pixels. Set num_frames of SampleClips and size of "
            "ResizePad, or num_frames and frame_size of ClipEncoder",
        ):
            encoder(torch.zeros(1, *shape))


def test_a_training_starts_from_a_transformer_and_a_video_backbone_and_its_checkpoint_opens(
    runner_config: Config, checkpoint: Path, tmp_path: Path
):
    theirs = recognizer("SlowOnly")
    torch.save({"meta": {}, "state_dict": theirs.state_dict()}, tmp_path / "slowonly.pth")
    config = copy.deepcopy(runner_config)
    config.work_dir, config.experiment_name = str(tmp_path / "video"), f"{tmp_path.name}-video"
    config.model.backbone = encoder_config("SlowOnly")
    config.model.projection.update(in_channels=16, pool=False)
    for split in ("train", "test"):
        config[f"{split}_dataloader"].dataset.pipeline[1]["num_frames"] = 4
    config.default_hooks.checkpoint_fit.reinit = ["projection"]
    config.default_hooks.checkpoint = dict(type="FaultTolerantCheckpointHook", interval=1)
    config.optim_wrapper.optimizer.lr = 0.0  # the weights stay as they were loaded
    config.load_from = [str(checkpoint), str(tmp_path / "slowonly.pth")]
    follow_weights(config)
    assert config.model.data_preprocessor.std == list(PYTORCH.std), "as the video backbone wants frames"
    runner = build_runner(config)
    runner.train()
    (written,) = (tmp_path / "video").glob("epoch_*.pth")
    found, lent = (read_source(str(path)).tensors for path in (written, checkpoint))
    names = [name for name in lent if name.startswith("encoder.")]
    assert names
    assert all(torch.equal(found[name], lent[name]) for name in names)
    kernels = [name for name, value in theirs.backbone.named_parameters() if value.ndim == 5]
    assert all(torch.equal(found[f"backbone.backbone.{name}"], theirs.backbone.get_parameter(name)) for name in kernels)
    predictor = Predictor(written)
    frames = np.random.default_rng(0).integers(0, 255, (2, 4, 32, 32, 3), np.uint8)
    with torch.no_grad():
        wanted = runner.model.eval().encode_video(
            runner.model.data_preprocessor.normalize(torch.from_numpy(frames[None]))
        )
    torch.testing.assert_close(predictor.encode([frames]), wanted, rtol=1e-4, atol=1e-5)
