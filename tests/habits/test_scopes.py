"""Names with a scope, as the other libraries write them, are read as without it; a scope lets a file name nothing more."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config
from mmengine.model import BaseModule
from sister_libraries import import_mmaction

from clipbert_mm import registry
from clipbert_mm.__main__ import main
from clipbert_mm.apis import ClipBertInferencer, VideoQA, VideoSearch
from clipbert_mm.checkpoint.metadata import KEY, read_metadata
from clipbert_mm.datasets.shapes.questions import ANSWERS
from clipbert_mm.engine.config import drop_validation
from clipbert_mm.engine.launch import build_runner, use_amp, use_amp_in_test
from clipbert_mm.engine.mmengine_habits import resumable_loop
from clipbert_mm.registry import MODELS, TRANSFORMS
from clipbert_mm.trusted import is_known

TEXTS = ["a red circle", "a blue ring"]


OURS = [value for value in vars(registry).values() if isinstance(value, registry.Registry)]


def scoped(value: Any) -> Any:
    """Return a part of a config in which each class of ours is named with our scope."""
    if isinstance(value, dict):
        kind = value.get("type")
        is_ours = any(kind in (group.import_from_location() or group.module_dict) for group in OURS)
        return {key: scoped(each) for key, each in value.items()} | ({"type": f"clipbert_mm.{kind}"} if is_ours else {})
    return [scoped(each) for each in value] if isinstance(value, list) else value


@pytest.fixture
def trained(runner_config: Config, tmp_path: Path) -> Callable[[str], Path]:
    """Train a step with or without scopes; returns the checkpoint."""

    def train(name: str) -> Path:
        config = copy.deepcopy(runner_config)
        config.default_hooks.checkpoint.interval = 1
        if name == "scoped":
            config = Config(scoped(config.to_dict()))
        config.update(work_dir=str(tmp_path / name), experiment_name=f"{tmp_path.name}-{name}")
        build_runner(config).train()
        return tmp_path / name / "epoch_1.pth"

    return train


def test_a_training_with_scopes_is_that_without(
    trained: Callable[[str], Path], world: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    plain, named = trained("plain"), trained("scoped")
    first, second = (read_metadata(path) for path in (plain, named))
    assert first == second
    weights = [torch.load(path, weights_only=False)["state_dict"] for path in (plain, named)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    video = str(world / "videos" / "test_00001.mp4")
    old = tmp_path / "old.pth"  # as earlier releases saved it
    checkpoint = torch.load(named, weights_only=False)
    checkpoint[KEY] |= dict(
        model=scoped(checkpoint[KEY]["model"]) | dict(_scope_="clipbert_mm"),
        pipelines=scoped(checkpoint[KEY]["pipelines"]),
    )
    torch.save(checkpoint, old)
    scores = [VideoSearch(path, index=tmp_path / "index").rank(video, TEXTS).to_dict() for path in (plain, named, old)]
    models = [each.pop("model") for each in scores]
    assert [model.partition(" (digest ")[0] for model in models] == [str(path) for path in (plain, named, old)]
    assert scores[0] == scores[1] == scores[2]
    inferencer = ClipBertInferencer(model=old, show_progress=False)
    assert inferencer.task == "video-retrieval"
    assert inferencer(video, texts=TEXTS)["predictions"][0]["texts"] == scores[0]["texts"]
    capsys.readouterr()
    said = []
    for path in (plain, old):
        with pytest.raises(SystemExit, match="0"):
            main(["info", "--model", str(path)])
        said.append(capsys.readouterr().out.replace(str(path), "MODEL"))
    assert said[0] == said[1]
    assert "num_clips" in said[0]


def test_a_test_finds_no_difference_in_scopes(
    trained: Callable[[str], Path], runner_config: Config, caplog: pytest.LogCaptureFixture
):
    named = trained("scoped")
    checkpoint = torch.load(named, weights_only=False)
    checkpoint[KEY] |= {name: scoped(checkpoint[KEY][name]) for name in ("model", "pipelines")}
    torch.save(checkpoint, named)
    runner_config.load_from = str(named)
    runner = build_runner(runner_config)
    runner.logger.addHandler(caplog.handler)
    runner.test()
    assert not [each for each in caplog.records if "differs from" in each.getMessage()]


def test_questions_are_answered_by_a_head_with_a_scope(write_checkpoint: Callable[..., Path], world: Path):
    head = dict(type="clipbert_mm.OpenEndedHead", in_channels=16, num_answers=len(ANSWERS), hidden_channels=None)
    dataset = dict(type="clipbert_mm.OpenEndedDataset", ann_file="qa", answer_file="answers.json")
    video = str(world / "videos" / "test_00001.mp4")
    answers = VideoQA(write_checkpoint(head, dataset)).ask(video, "what color is the circle").answers
    assert answers[0].text in ANSWERS


def test_settings_are_found_by_names_with_a_scope():
    assert resumable_loop(dict(type="clipbert_mm.ResumableEpochTrainLoop", by_epoch=False, max_iters=3)) == dict(
        type="ResumableIterTrainLoop", max_iters=3
    )
    config = Config(
        dict(
            optim_wrapper=dict(type="clipbert_mm.AccumulatingOptimWrapper"),
            test_cfg=dict(type="clipbert_mm.RetrievalTestLoop"),
            default_hooks=dict(stop=dict(type="clipbert_mm.ResumableEarlyStoppingHook")),
        )
    )
    use_amp(config, "bf16")
    use_amp_in_test(config, "bf16")
    drop_validation(config)
    assert config.optim_wrapper.type == "AmpAccumulatingOptimWrapper"
    assert config.test_cfg.precision == "bf16"
    assert config.default_hooks == {}


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("clipbert_mm.ClipBert", True),
        ("mmpretrain.ResNet", True),
        ("mmaction.ResNet", True),
        ("mmaction.Conv2plus1d", True),
        ("mmengine.BN2d", True),
        ("mmaction.BN3d", True),
        ("clipbert_mm.BN2d", False),
        ("clipbert_mm.ResNet", False),
        ("clipbert_mm.clipbert_mm.ClipBert", False),
        ("clipbert_mm.resnet3d", False),
        ("clipbert_mm.mmaction.ResNet", False),
        ("mmengine.ClipBert", False),
        ("mmaction.ClipBert", False),
        ("mmpretrain.ImageClassifier", False),
        ("mmaction.Recognizer3D", False),
        ("mmengine.BaseDataPreprocessor", False),
        ("mmengine.Pretrained", False),
        ("torch.nn.Linear", False),
        ("os.system", False),
    ],
)
def test_a_scope_names_nothing_that_may_not_be_named(name: str, allowed: bool):
    import_mmaction()
    assert is_known(name, MODELS) == allowed
    assert not is_known(name, TRANSFORMS)


def test_a_layer_of_one_library_does_not_allow_its_name_in_another(monkeypatch: pytest.MonkeyPatch):
    import_mmaction()
    assert is_known("GELU", MODELS)
    theirs = MODELS.parent.children["mmaction"].module_dict
    monkeypatch.setitem(theirs, "GELU", type("GELU", (BaseModule,), {"__module__": "mmaction.elsewhere"}))
    assert not is_known("mmaction.GELU", MODELS)
    assert not is_known("GELU", MODELS), "inside a backbone of mmaction2 it is theirs"
    assert is_known("mmengine.GELU", MODELS)
