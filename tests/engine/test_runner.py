"""The Runner starts from checkpoints of every kind, alone or together, and goes on from its own as if never stopped."""

import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from torch import Tensor
from transformers import BertConfig, BertModel

from clipbert_mm import compat
from clipbert_mm.checkpoint import CheckpointError, InputSpec
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.checkpoint.preprocessing import CAFFE, PYTORCH
from clipbert_mm.engine import ClipBertRunner
from clipbert_mm.engine.launch import Prepared, build_runner
from clipbert_mm.registry import MODELS

RESNET = dict(type="mmpretrain.ResNet", depth=50, stem_channels=8, base_channels=8, norm_eval=True)
BERT = dict(
    vocab_size=200,
    hidden_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=32,
    max_position_embeddings=40,
)


def frames_of(convention: InputSpec) -> dict[str, Any]:
    """What the config of a data preprocessor says of a convention."""
    return dict(mean=list(convention.mean), std=list(convention.std), to_bgr=convention.to_bgr)


@pytest.fixture
def resnet_config(runner_config: Config) -> Config:
    """The small config with a narrow ResNet-50 that begins as the paper's: Caffe's, BGR."""
    runner_config.model.backbone = RESNET | dict(style="caffe")
    runner_config.model.projection.in_channels = 256
    runner_config.model.data_preprocessor.update(frames_of(CAFFE))
    runner_config.train_cfg.max_epochs = 0  # as far as loading
    return runner_config


@pytest.fixture
def resnet_weights(tmp_path: Path) -> tuple[str, dict[str, Tensor]]:
    """A file of torchvision's ResNet-50, but narrow, and its tensors by our names."""
    compat.import_mmpretrain()
    weights = MODELS.build(RESNET).state_dict()  # by the very names
    torch.save(weights | {"fc.weight": torch.ones(1000, 256)}, tmp_path / "resnet50.pth")
    return str(tmp_path / "resnet50.pth"), {f"backbone.{name}": value for name, value in weights.items()}


@pytest.fixture
def bert_weights(tmp_path: Path) -> tuple[str, dict[str, Tensor]]:
    """A folder of a small BERT, and its tensors by our names."""
    model = BertModel(BertConfig(**BERT))
    model.save_pretrained(tmp_path / "bert")
    return str(tmp_path / "bert"), {f"encoder.bert.{name}": value for name, value in model.state_dict().items()}


def assert_holds(runner: ClipBertRunner, wanted: dict[str, Tensor]) -> None:
    found = runner.model.state_dict()
    assert wanted
    torch.testing.assert_close({name: found[name] for name in wanted}, wanted, rtol=0, atol=0)


def test_training_starts_from_a_bert_and_a_resnet(
    resnet_config: Config, resnet_weights: tuple, bert_weights: tuple, caplog: pytest.LogCaptureFixture
):
    resnet_config.load_from = [bert_weights[0], resnet_weights[0]]
    resnet_config.log_level = "INFO"
    runner = build_runner(resnet_config)
    runner.logger.addHandler(caplog.handler)
    runner.train()
    assert_holds(runner, resnet_weights[1] | bert_weights[1])
    (report,) = (record.getMessage() for record in caplog.records if record.getMessage().startswith("weights from"))
    assert report.splitlines()[0] == (
        f"weights from {bert_weights[0]} (transformers' (BERT)); {resnet_weights[0]} (torchvision's ResNet)"
    )
    loaded = len(bert_weights[1]) + sum(not name.endswith("tracked") for name in resnet_weights[1])
    assert report.splitlines()[1:] == [
        f"  loaded: {loaded} of the model's {loaded + 10} tensors: backbone, encoder.bert",
        "  missing (new): 10: projection, encoder.visual_embedding, head",
        "  unexpected (not used): 1: fc",
        "  wrong shape: 0",
    ]


def test_where_checkpoints_overlap_the_last_counts(
    resnet_config: Config, resnet_weights: tuple, bert_weights: tuple, tmp_path: Path
):
    other = {name: value + 1 for name, value in bert_weights[1].items()}
    torch.save(other, tmp_path / "ours.pth")
    resnet_config.load_from = [bert_weights[0], resnet_weights[0], str(tmp_path / "ours.pth")]
    runner = build_runner(resnet_config)
    runner.train()
    assert_holds(runner, resnet_weights[1] | other)


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is warned of, in any log."""
    messages: list[str] = []
    monkeypatch.setattr(MMLogger, "warning", lambda self, message, *values: messages.append(message))
    return messages


def test_the_model_follows_the_weights_it_starts_from(resnet_config: Config, resnet_weights: tuple, warned: list[str]):
    resnet_config.load_from = resnet_weights[0]
    build_runner(resnet_config)
    assert warned == [
        f"{resnet_weights[0]} changes the input from BGR minus (123.675, 116.28, 103.53) over (1, 1, 1) to RGB minus "
        "(123.675, 116.28, 103.53) over (58.395, 57.12, 57.375).",
        f"{resnet_weights[0]} changes the strides of the ResNet from caffe's style to pytorch's.",
        "To keep what the config says, set default_hooks.checkpoint_fit.own_input=True.",
    ]
    changed = resnet_config.model
    assert changed.data_preprocessor == dict(type="VideoTextPreprocessor", vocab_size=200, **frames_of(PYTORCH))
    assert changed.backbone == RESNET | dict(style="pytorch")
    resnet_config.experiment_name += "-again"
    warned.clear()
    build_runner(resnet_config)
    assert warned == []


def test_without_following_other_frames_are_refused(
    resnet_config: Config, resnet_weights: tuple, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("clipbert_mm.engine.runner.prepare", lambda *arguments: Prepared([], []))
    resnet_config.load_from = resnet_weights[0]
    runner = ClipBertRunner.from_cfg(resnet_config)
    with pytest.raises(CheckpointError) as caught:
        runner.train()
    assert str(caught.value) == (
        f"{resnet_weights[0]} (torchvision's ResNet) expects frames as {PYTORCH}, the model has {CAFFE}. Set mean, std and "
        "to_bgr of the data_preprocessor and style of the backbone."
    )
    name = "backbone.conv1.weight"
    assert not torch.equal(runner.model.state_dict()[name], resnet_weights[1][name])


def test_two_backbones_that_want_other_frames_are_refused(resnet_config: Config, resnet_weights: tuple, tmp_path: Path):
    weights = {"projection.conv.weight": torch.ones(16, 256, 3, 3), **resnet_weights[1]}
    torch.save({"state_dict": weights, "convention": CAFFE.to_dict()}, tmp_path / "caffe.pth")
    resnet_config.load_from = [str(tmp_path / "caffe.pth"), resnet_weights[0]]
    with pytest.raises(CheckpointError, match=r"caffe\.pth \(clipbert_mm's\) expects frames as BGR .*has RGB"):
        build_runner(resnet_config).train()


def test_our_checkpoints_say_how_they_were_trained(runner_config: Config, tmp_path: Path):
    runner_config.default_hooks.checkpoint.interval = 1
    runner = build_runner(runner_config)
    runner.train()
    own = tmp_path / "work" / "epoch_1.pth"
    saved = load_torch(own, mmap=False)
    assert InputSpec.from_dict(saved["convention"]) == InputSpec.of_model(runner.model)
    assert saved["convention"]["mean"] == (120.0, 110.0, 100.0)
    vocabulary = saved["vocabulary"]
    assert len(vocabulary) == 16
    # A run that would have its frames otherwise follows.
    runner_config.model.data_preprocessor.update(frames_of(CAFFE))
    runner_config.load_from, runner_config.experiment_name = str(own), tmp_path.name + "-next"
    runner = build_runner(runner_config)
    assert runner.model.data_preprocessor.mean.flatten().tolist() == [120.0, 110.0, 100.0]
    assert not runner.model.data_preprocessor.to_bgr
    runner.train()
    assert load_torch(own, mmap=False)["vocabulary"] == vocabulary


def test_each_checkpoint_s_vocabulary_is_looked_at(
    resnet_config: Config, resnet_weights: tuple, bert_weights: tuple, tmp_path: Path
):
    torch.save({"state_dict": bert_weights[1], "vocabulary": "of other words"}, tmp_path / "ours.pth")
    resnet_config.load_from = [str(tmp_path / "ours.pth"), resnet_weights[0]]
    with pytest.raises(CheckpointError, match="trained with another vocabulary"):
        build_runner(resnet_config).train()


class OverwriteWhenTraining(Hook):
    """Overwrites a file as soon as training begins."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def before_train(self, runner: ClipBertRunner) -> None:
        with open(self.path, "r+b") as file:
            file.write(bytes(self.path.stat().st_size))


def test_a_run_goes_on_exactly_even_if_its_checkpoint_is_overwritten(runner_config: Config, tmp_path: Path):
    runner_config.train_cfg.max_epochs = 2
    runner_config.default_hooks.checkpoint.interval = 1
    runner_config.default_hooks.logger = dict(type="MainProcessLoggerHook", interval=1)
    build_runner(runner_config).train()
    first, last = (tmp_path / "work" / f"epoch_{epoch}.pth" for epoch in (1, 2))
    wanted = load_torch(last, mmap=False)
    runner_config.update(load_from=str(first), resume=True, experiment_name=tmp_path.name + "-on")
    runner = build_runner(runner_config)
    runner.register_hook(OverwriteWhenTraining(first))
    runner.train()
    found = load_torch(last, mmap=False)
    for part in ("state_dict", "optimizer"):
        torch.testing.assert_close(found[part], wanted[part], rtol=0, atol=0)
    assert found["meta"]["iter"] == wanted["meta"]["iter"] == 12


def test_weights_to_start_from_may_be_overwritten_too(resnet_config: Config, resnet_weights: tuple):
    resnet_config.load_from = resnet_weights[0]
    runner = build_runner(resnet_config)
    runner.register_hook(OverwriteWhenTraining(Path(resnet_weights[0])))
    runner.train()
    assert_holds(runner, resnet_weights[1])


def test_weights_alone_are_nothing_to_resume_from(runner_config: Config, tmp_path: Path):
    torch.save(build_runner(runner_config).model.state_dict(), tmp_path / "weights.pth")
    path = str(tmp_path / "weights.pth")
    runner_config.update(load_from=path, resume=True, experiment_name=tmp_path.name + "-on")
    with pytest.raises(CheckpointError, match=path):
        build_runner(runner_config).train()


def strings_of(value: object) -> Iterator[str]:
    """Yield all strings in a checkpoint."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for key, each in value.items():
            yield from strings_of(key)
            yield from strings_of(each)
    elif isinstance(value, (list, tuple)):
        for each in value:
            yield from strings_of(each)


@pytest.mark.parametrize("hook", ["FaultTolerantCheckpointHook", "mmengine.CheckpointHook"])
def test_a_checkpoint_has_no_path_of_the_machine_that_wrote_it(runner_config: Config, tmp_path: Path, hook: str):
    for name in ("dataloader", "evaluator"):
        runner_config[f"val_{name}"] = runner_config[f"test_{name}"].copy()
    runner_config.val_cfg = dict(type="RetrievalValLoop")
    runner_config.default_hooks.checkpoint = dict(type=hook, interval=1, save_best="t2v/MnR", rule="less")
    runner_config.train_cfg.max_epochs = 2
    assert str(tmp_path) in runner_config.pretty_text
    build_runner(runner_config).train()
    paths = sorted((tmp_path / "work").glob("*.pth"))
    assert {path.name for path in paths} >= {"epoch_1.pth", "epoch_2.pth"}
    assert len(paths) == 3
    for path in paths:
        content = torch.load(path, weights_only=False)
        absolute = [text for text in strings_of(content) if re.search(r"""(^|[\s'"=(])/\w""", text)]
        assert absolute == []
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                data = archive.read(member)
                assert str(tmp_path).encode() not in data
                assert str(Path(runner_config.train_dataloader.dataset.data_root).parent).encode() not in data
        assert content["meta"]["cfg"] == content["message_hub"]["runtime_info"]["cfg"]
        assert "work_dir='work'" in content["meta"]["cfg"].replace(" ", "")
