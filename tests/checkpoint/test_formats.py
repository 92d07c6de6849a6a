"""Files of each library are recognized by their names, and compute in our modules what they do in their own."""

import contextlib
import importlib.util
import pickle
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
from mmengine.registry import DefaultScope
from public_models import without, write_blip, write_image_processor
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertModel,
    CLIPConfig,
    CLIPModel,
    ElectraConfig,
    ElectraModel,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    SiglipConfig,
    SiglipModel,
)

from clipbert_mm import compat
from clipbert_mm.checkpoint import CheckpointError, InputSpec, LoadedCheckpoint, hub, read_source
from clipbert_mm.checkpoint.formats import FORMATS
from clipbert_mm.checkpoint.preprocessing import CAFFE, OPENAI, PYTORCH
from clipbert_mm.models import JointEncoder, MaskedLanguageHead
from clipbert_mm.registry import MODELS

RELEASE = Path(__file__).resolve().parents[1] / "parity" / "state_dict.tsv"
DETECTRON = "cnn.feature.backbone."
"""Before detectron2's names in those of the paper's release."""


def release_shapes(task: str) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the paper's release for one of its tasks."""
    rows = [line.split("\t") for line in RELEASE.read_text().splitlines()[1:]]
    shapes = {name: shape.split(" | ")[0] for name, shape, tasks in rows if task in tasks.split(",")}
    return {name: tuple(map(int, shape.split("x"))) for name, shape in shapes.items()}


def numbered(names: Iterable[str]) -> dict[str, Tensor]:
    """A tensor for each name, by whose value it is known again."""
    return {name: torch.tensor([i]) for i, name in enumerate(names)}


def assert_kind(source: LoadedCheckpoint, title: str, parts: tuple[str, ...], input_spec: InputSpec | None) -> None:
    assert (source.title, source.parts, source.input_spec) == (title, parts, input_spec)
    with pytest.warns(FutureWarning, match=r"LoadedCheckpoint\.convention is deprecated .* Use input_spec\."):
        assert source.convention == input_spec


@pytest.fixture(scope="module")
def frames() -> Tensor:
    return torch.randn(1, 3, 64, 96, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def resnet() -> Callable[..., nn.Module]:
    """Build our ResNet-50."""
    compat.import_mmpretrain()

    @cache
    def build(style: str, **sizes: int) -> nn.Module:
        return MODELS.build(dict(type="mmpretrain.ResNet", depth=50, style=style, **sizes)).double()

    return build


@pytest.fixture
def feed(resnet: Callable, frames: Tensor) -> Callable[..., tuple[Tensor, list[str]]]:
    """Run our ResNet-50 with the weights of a source; gives its map, and the names that it had no use for."""

    @torch.no_grad()
    def run(source: LoadedCheckpoint, **sizes: int) -> tuple[Tensor, list[str]]:
        backbone = resnet(source.input_spec.style, **sizes)
        for tensor in backbone.state_dict().values():
            tensor.fill_(0)
        wrapped = nn.ModuleDict({"backbone": backbone})
        found = wrapped.load_state_dict(source.tensors, strict=False)
        assert all(name.endswith("num_batches_tracked") for name in found.missing_keys)
        return wrapped.eval()["backbone"](frames)[-1], found.unexpected_keys

    return run


def make_matter(model: nn.Module) -> nn.Module:
    """Give batch norms statistics, scales and shifts."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.weight.data, module.running_var):
                value.uniform_(0.5, 1.5)
            for value in (module.bias.data, module.running_mean):
                value.normal_(std=0.2)
    model.double().train(False)  # mmaction2's returns None
    return model


@torch.no_grad()
def test_torchvision(tmp_path: Path, frames: Tensor, feed: Callable):
    theirs = make_matter(torchvision.models.resnet50(num_classes=4))
    torch.save(theirs.state_dict(), tmp_path / "resnet50-0676ba61.pth")
    source = read_source(str(tmp_path / "resnet50-0676ba61.pth"))
    assert_kind(source, "torchvision's ResNet", ("backbone",), PYTORCH)
    theirs.avgpool = theirs.fc = nn.Identity()
    found, left = feed(source)
    torch.testing.assert_close(found.flatten(1), theirs(frames))
    assert left == ["fc.weight", "fc.bias"]


@torch.no_grad()
def test_mmpretrain(tmp_path: Path, frames: Tensor, feed: Callable):
    from mmpretrain.models import ImageClassifier

    sizes = dict(stem_channels=8, base_channels=8)
    with DefaultScope.overwrite_default_scope("mmpretrain"):
        theirs = make_matter(
            ImageClassifier(
                backbone=dict(type="ResNet", depth=50, **sizes),
                neck=dict(type="GlobalAveragePooling"),
                head=dict(type="LinearClsHead", num_classes=5, in_channels=256),
            )
        )
    torch.save({"meta": {"epoch": 100}, "state_dict": theirs.state_dict()}, tmp_path / "resnet50_8xb32_in1k.pth")
    source = read_source(str(tmp_path / "resnet50_8xb32_in1k.pth"))
    assert_kind(source, "mmpretrain's", ("backbone",), PYTORCH)
    found, left = feed(source, **sizes)
    torch.testing.assert_close(found, theirs.backbone(frames)[-1])
    assert left == ["head.fc.weight", "head.fc.bias"]


@torch.no_grad()
def test_mmaction2(tmp_path: Path, frames: Tensor, feed: Callable):
    if not importlib.util.find_spec("mmaction"):
        pytest.skip("mmaction2 needs decord, which has no wheel for this machine")
    compat.import_mmaction()
    from mmaction.models.backbones import ResNet

    theirs = make_matter(ResNet(depth=50))
    weights = {f"backbone.{name}": value for name, value in theirs.state_dict().items()}
    weights |= {"cls_head.fc_cls.weight": torch.ones(400, 2048), "cls_head.fc_cls.bias": torch.ones(400)}
    torch.save({"meta": {}, "state_dict": weights}, tmp_path / "tsn_r50.pth")
    source = read_source(str(tmp_path / "tsn_r50.pth"))
    assert_kind(source, "mmaction2's", ("backbone",), PYTORCH)
    found, left = feed(source)
    torch.testing.assert_close(found, theirs(frames))
    assert left == ["cls_head.fc_cls.weight", "cls_head.fc_cls.bias"]


def detectron_by_hand(tensors: dict[str, Tensor], frames: Tensor) -> Tensor:
    """detectron2's ResNet-50 with its defaults: the stride in the first convolution of a block."""

    def conv(name: str, maps: Tensor, stride: int, padding: int) -> Tensor:
        maps = F.conv2d(maps, tensors[f"{name}.weight"], stride=stride, padding=padding)
        mean, var, scale, shift = (
            tensors[f"{name}.norm.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (maps - mean) / (var + 1e-5).sqrt() * scale + shift

    maps = F.max_pool2d(conv("stem.conv1", frames, 2, 3).relu(), kernel_size=3, stride=2, padding=1)
    for stage, blocks in ((2, 3), (3, 4), (4, 6), (5, 3)):
        for block in range(blocks):
            name, stride = f"res{stage}.{block}", 2 if block == 0 and stage > 2 else 1
            skipped = conv(f"{name}.shortcut", maps, stride, 0) if block == 0 else maps
            inner = conv(f"{name}.conv1", maps, stride, 0).relu()
            inner = conv(f"{name}.conv2", inner, 1, 1).relu()
            maps = (conv(f"{name}.conv3", inner, 1, 0) + skipped).relu()
    return maps


@pytest.fixture(scope="module")
def detectron_names() -> dict[str, tuple[int, ...]]:
    """Names of detectron2's ResNet-50, with shapes."""
    shapes = release_shapes("retrieval")
    return {name.removeprefix(DETECTRON): shape for name, shape in shapes.items() if name.startswith(DETECTRON)}


def write_zoo(path: Path, tensors: dict[str, Tensor], author: str) -> str:
    """Write a file of detectron2's model zoo."""
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    path.write_bytes(pickle.dumps({"model": arrays, "__author__": author, "matching_heuristics": True}))
    return str(path)


@torch.no_grad()
def test_detectron2(tmp_path: Path, detectron_names: dict, frames: Tensor, feed: Callable):
    tensors = {}
    for name, shape in detectron_names.items():
        scale = (2 / torch.Size(shape[1:]).numel()) ** 0.5 if len(shape) > 1 else 0.2
        tensors[name] = scale * torch.randn(shape)
        if name.endswith(("running_var", "norm.weight")):
            tensors[name] = 0.5 + torch.rand(shape)
    prefixed = {f"backbone.bottom_up.{name}": tensor for name, tensor in tensors.items()}
    source = read_source(write_zoo(tmp_path / "model_final_b275ba.pkl", prefixed, "Detectron2 Model Zoo"))
    assert_kind(source, "detectron2's (grid-feat)", ("backbone",), CAFFE)
    found, left = feed(source)
    wanted = detectron_by_hand({name: tensor.double() for name, tensor in tensors.items()}, frames)
    torch.testing.assert_close(found, wanted)
    assert left == []


LAYOUTS = {  # prefix, prefix of the last stage, what else there is
    "alone": ("backbone.", "backbone.", []),
    "FPN": (
        "backbone.bottom_up.",
        "backbone.bottom_up.",
        ["backbone.fpn_lateral2.weight", "roi_heads.box_head.fc1.bias"],
    ),
    "C4": (
        "backbone.",
        "roi_heads.",
        ["proposal_generator.rpn_head.conv.bias", "roi_heads.box_predictor.cls_score.bias"],
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_detectron2_s_detectors_have_the_same_backbone(tmp_path: Path, detectron_names: dict, layout: str):
    # The names after which the test above computes.
    torch.save(numbered(f"backbone.bottom_up.{name}" for name in detectron_names), tmp_path / "bottom_up.pth")
    wanted = read_source(str(tmp_path / "bottom_up.pth")).tensors
    prefix, last, others = LAYOUTS[layout]
    names = [f"{last if name.startswith('res5.') else prefix}{name}" for name in detectron_names]
    torch.save({"model": numbered(names + others), "iteration": 90_000}, tmp_path / "detector.pth")
    source = read_source(str(tmp_path / "detector.pth"))
    assert_kind(source, "detectron2's (grid-feat)", ("backbone",), CAFFE)
    # What is beside the ResNet belongs to no module of ours.
    beside = [name.removeprefix("backbone.") for name in others]
    assert source.tensors == wanted | {name: torch.tensor([len(wanted) + i]) for i, name in enumerate(beside)}


def test_torchvision_s_weights_by_detectron2_s_names(tmp_path: Path, detectron_names: dict):
    # As detectron2's tools/convert-torchvision-to-d2.py writes them, to be used with RGB and STRIDE_IN_1X1 False.
    source = read_source(write_zoo(tmp_path / "R-50.pkl", numbered(detectron_names), "torchvision"))
    assert_kind(source, "detectron2's (grid-feat)", ("backbone",), PYTORCH)


SIZES = dict(vocab_size=60, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=24)
TEXT_MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "BertModel": lambda: BertModel(BertConfig(**SIZES)),
    "BertForPreTraining": lambda: BertForPreTraining(BertConfig(**SIZES)),
    "RobertaForMaskedLM": lambda: RobertaForMaskedLM(RobertaConfig(**SIZES, layer_norm_eps=1e-5)),
    "ElectraModel": lambda: ElectraModel(ElectraConfig(**SIZES, embedding_size=8)),
}


def save_as_of_old(model: PreTrainedModel, folder: Path) -> None:
    """Save as transformers did, with TensorFlow's names of LayerNorm and numbered places."""
    weights = {name: value for name, value in model.state_dict().items() if "position_ids" not in name}
    for new, old in (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")):
        weights = {name.replace(new, old): value for name, value in weights.items()}
    prefix = next(name for name in weights if name.endswith("word_embeddings.weight")).partition("word_")[0]
    weights[f"{prefix}position_ids"] = torch.arange(512)[None]
    torch.save(weights, folder / "pytorch_model.bin")
    model.config.save_pretrained(folder)


@pytest.mark.parametrize("save", [PreTrainedModel.save_pretrained, save_as_of_old])
@pytest.mark.parametrize("name", TEXT_MODELS)
@torch.no_grad()
def test_transformers(tmp_path: Path, name: str, save: Callable):
    theirs = TEXT_MODELS[name]().double().eval()
    for parameter in theirs.parameters():
        parameter += 0.2 * torch.randn_like(parameter)
    save(theirs, tmp_path)
    source = read_source(str(tmp_path))
    assert_kind(source, "transformers' (BERT)", ("encoder.bert.embeddings", "encoder.bert.encoder"), None)
    encoder = JointEncoder(architecture=str(tmp_path), grid_size=2)
    head = MaskedLanguageHead(in_channels=16, vocab_size=60, layer_norm_eps=theirs.config.layer_norm_eps)
    ours = nn.ModuleDict(dict(encoder=encoder, mlm_head=head)).double().eval()
    lacking = ours.load_state_dict(source.tensors, strict=False).missing_keys
    with_words = name in ("BertForPreTraining", "RobertaForMaskedLM")
    expected = ["encoder.visual_embedding"] + ["mlm_head"] * (not with_words)
    expected += ["encoder.bert.pooler"] * (name in ("RobertaForMaskedLM", "ElectraModel"))
    assert all(key.startswith(tuple(expected)) for key in lacking)
    text_ids = torch.tensor([[2, 17, 9, 33, 3], [2, 5, 58, 41, 3]])
    wanted = theirs(text_ids, output_hidden_states=True)
    states = encoder.bert(text_ids).last_hidden_state
    torch.testing.assert_close(states, wanted.hidden_states[-1])
    if with_words:
        logits = wanted.logits if name.startswith("Roberta") else wanted.prediction_logits
        torch.testing.assert_close(head(states, encoder.word_embeddings), logits)


TOWER = dict(hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=20)
TOWER_SIZES = dict(hidden_size=16, num_layers=1, num_heads=4, intermediate_size=20)
TOWERS: dict[str, tuple[Callable, dict[str, Any], str]] = {
    "CLIP": (
        lambda text, frames: CLIPModel(CLIPConfig(text_config=text, vision_config=frames, projection_dim=8)),
        dict(vector_size=8),
        "SimilarityHead",
    ),
    "SigLIP": (
        lambda text, frames: SiglipModel(SiglipConfig(text_config=text, vision_config=frames)),
        {},
        "SigmoidSimilarityHead",
    ),
}


@pytest.mark.parametrize("save", ["save_pretrained", "as of old"])
@pytest.mark.parametrize("name", TOWERS)
def test_models_of_two_towers(tmp_path: Path, name: str, save: str):
    build, vectors, head = TOWERS[name]
    theirs = build(TOWER | dict(vocab_size=60, max_position_embeddings=12), TOWER | dict(image_size=16, patch_size=8))
    if save == "save_pretrained":
        theirs.save_pretrained(tmp_path)
    else:
        buffers = {f"{part}_model.embeddings.position_ids": torch.arange(5)[None] for part in ("text", "vision")}
        torch.save(theirs.state_dict() | buffers, tmp_path / "pytorch_model.bin")
        theirs.config.save_pretrained(tmp_path)
    source = read_source(str(tmp_path))
    parts = ("backbone", "encoder.text", *["encoder.text_projection"] * (name == "CLIP"))
    assert_kind(source, f"transformers' {name}", parts, None)  # its preprocessor file says how frames are normalized
    prefix = "CLIP" if name == "CLIP" else "Siglip"
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        ours = MODELS.build(
            dict(
                type="ClipBert",
                data_preprocessor=dict(type="VideoTextPreprocessor", mean=[0.0] * 3, std=[1.0] * 3, vocab_size=60),
                backbone=dict(type=f"{prefix}Vision", image_size=16, patch_size=8, **TOWER_SIZES, **vectors),
                temporal_fusion=dict(type="MeanFusion"),
                encoder=dict(
                    type=f"{prefix}Text",
                    vocab_size=60,
                    max_text_length=12,
                    **TOWER_SIZES,
                    **(vectors or dict(vector_size=16)),
                ),
                head=dict(type=head),
                aggregator=dict(type="MeanAggregator"),
            )
        )
    ours.load_state_dict(source.tensors)  # which test_dual_encoder compares
    assert len(source.tensors) == len(theirs.state_dict())
    # Ours is known by its own names, whichever its parts.
    torch.save(dict(state_dict=ours.state_dict()), tmp_path / "epoch_1.pth")
    assert_kind(read_source(str(tmp_path / "epoch_1.pth")), "clipbert_mm's", parts, None)


@pytest.mark.parametrize(
    "names",
    [
        ["text_model.embeddings.token_embedding.weight", "mit.position_embedding"],  # X-CLIP
        ["text_model.embeddings.word_embeddings.weight", "visual_projection.weight"],  # BlipModel
    ],
)
def test_other_models_are_not_taken_for_clip(tmp_path: Path, names: list[str]):
    torch.save(numbered(names), tmp_path / "other.pth")
    with contextlib.suppress(CheckpointError):
        assert "CLIP" not in read_source(str(tmp_path / "other.pth")).title


ALL_PARTS = (
    "backbone",
    "projection",
    "encoder.bert.embeddings",
    "encoder.bert.encoder",
    "encoder.visual_embedding",
)


@pytest.mark.parametrize("task", ["retrieval", "qa", "multiple_choice", "pretraining"])
def test_the_paper_s_release(tmp_path: Path, task: str):
    # What its weights compute in our modules: tests/parity.
    torch.save(numbered(release_shapes(task)), tmp_path / "release.pt")
    source = read_source(str(tmp_path / "release.pt"))
    assert_kind(source, "the paper's release's", ALL_PARTS, CAFFE)
    heads = {"head", "mlm_head"} if task == "pretraining" else {"head"}
    assert {name.partition(".")[0] for name in source.tensors} == {"backbone", "projection", "encoder"} | heads


def test_our_own(tmp_path: Path, model_config: dict[str, Any]):
    model = MODELS.build(model_config)
    convention = InputSpec.of_model(model)
    rest = {"vocabulary": "ab12", "convention": convention.to_dict(), "meta": {"epoch": 3}}
    torch.save({"state_dict": model.state_dict(), **rest}, tmp_path / "epoch_3.pth")
    source = read_source(str(tmp_path / "epoch_3.pth"))
    assert_kind(source, "clipbert_mm's", ALL_PARTS, convention)
    assert source.rest == rest
    torch.testing.assert_close(source.tensors, dict(model.state_dict()))
    torch.save(model.state_dict(), tmp_path / "weights.pth")  # or the weights alone, which say nothing of frames
    assert_kind(read_source(str(tmp_path / "weights.pth")), "clipbert_mm's", ALL_PARTS, None)


def test_other_files_are_answered_with_the_kinds(tmp_path: Path):
    path = tmp_path / "other.pth"
    torch.save(numbered(["foo.bar", "foo.weight", "a", "never.shown"]), path)
    titles = "; ".join(kind.title for kind in FORMATS)
    with pytest.raises(CheckpointError) as caught:
        read_source(str(path))
    assert str(caught.value).startswith(
        f"{path} has tensors such as foo.bar, foo.weight, a, names of no known format: {titles}. Rename them"
    )
    assert "transformers' (BERT)" in titles


@pytest.mark.parametrize(
    "other", ["roi_head.bbox_head.fc_cls.weight", "decode_head.conv_seg.weight", "backbone.body.x"]
)
def test_detectors_are_not_taken_for_classifiers(tmp_path: Path, other: str):
    torch.save(numbered(["backbone.conv1.weight", "backbone.layer1.0.conv1.weight", other]), tmp_path / "detector.pth")
    with pytest.raises(CheckpointError, match=r"of no known format: "):
        read_source(str(tmp_path / "detector.pth"))


def test_the_heads_of_a_folder_are_known(tmp_path: Path):
    config = BertConfig(vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=4, intermediate_size=20)
    BertModel(config).save_pretrained(tmp_path)
    assert read_source(str(tmp_path)).rest["attention_heads"] == 4


def test_a_public_model_s_frames_are_as_its_processor_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_blip(tmp_path)
    assert read_source(str(tmp_path)).input_spec.agrees(OPENAI)
    write_image_processor(tmp_path, "BlipImageProcessor", image_mean=[0.5, 0.4, 0.2], image_std=[0.2, 0.4, 0.5])
    expected = InputSpec(mean=(127.5, 102.0, 51.0), std=(51.0, 102.0, 127.5), to_bgr=False, style=None)
    assert read_source(str(tmp_path)).input_spec.agrees(expected)
    # The hub's, by name and revision.
    asked = []
    find = hub.locate_file
    monkeypatch.setattr(
        hub, "locate_file", lambda name, file, revision: asked.append((name, revision)) or find(str(tmp_path), file)
    )
    assert read_source("owner/blip@main").input_spec.agrees(expected)
    assert set(asked) == {("owner/blip", "main")}
    without(tmp_path, "preprocessor_config.json")
    assert read_source(str(tmp_path)).input_spec == OPENAI
