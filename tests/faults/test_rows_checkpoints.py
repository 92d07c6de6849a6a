"""Rows S3 and S4: a checkpoint or a training state from elsewhere runs nothing and is refused by name."""

import builtins
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint import (
    CheckpointError,
)
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.checkpoint.metadata import KEY
from clipbert_mm.checkpoint.training_state import training_state
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.registry import MODELS, TRANSFORMS
from clipbert_mm.trusted import check_model, check_pipeline

# --- S3 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["pipeline", "model", "preprocessor", "inside", "initialization"])
def test_s3_a_type_runs_no_command(small_checkpoint: dict[str, Any], save: Callable, tmp_path: Path, where: str):
    marker = tmp_path / "it-ran"
    evil = dict(type="os.system", command=f"touch {marker}")
    contents = small_checkpoint[KEY]
    if where == "pipeline":
        contents["pipelines"]["test"].insert(0, evil)
    elif where == "inside":
        contents["model"]["backbone"] = dict(type="mmpretrain.ResNet", depth=18, norm_cfg=evil)
    elif where == "initialization":
        contents["model"]["backbone"]["init_cfg"] = evil
    else:
        contents["model"][{"model": "backbone", "preprocessor": "data_preprocessor"}[where]] = evil
    path = save(small_checkpoint)
    if where == "initialization":  # nobody reads where a trained model started from
        Predictor(path)
    else:
        with pytest.raises(
            CheckpointError, match=r"a\.pth.* is refused: it names the type 'os\.system'\. A file may name"
        ):
            Predictor(path)
    assert not marker.exists()


REFUSED = (
    "os.system", "mmengine.model.BaseModule", "clipbert_mm.models.ClipBert", "torch.nn.Linear", "mmpretrain.get_model",
    "mmpretrain.ImageClassifier", "mmpretrain.models.backbones.ResNet", "ToyModel", "nowhere.Model", "nn.Linear", "",
    "ClipBert.x",
)  # fmt: skip


def test_s3_what_a_file_may_name(model_settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch):
    imported = []
    whole = builtins.__import__
    for name in ("TinyBackbone", "clipbert_mm.TinyBackbone", "mmpretrain.ResNet", "mmpretrain.TIMMBackbone"):
        check_model({**model_settings, "backbone": dict(type=name)}, "a.pth")
    for layer in ("BN", "SyncBN", "GN", "ReLU", "GELU", "Conv2d", "mmpretrain.LN2d", "mmengine.LN"):
        check_model({**model_settings, "backbone": dict(type="TinyBackbone", norm_cfg=dict(type=layer))}, "a.pth")
    monkeypatch.setattr(builtins, "__import__", lambda name, *rest: (imported.append(name), whole(name, *rest))[1])
    for name in REFUSED:
        with pytest.raises(CheckpointError, match="is refused: it names"):
            check_model({**model_settings, "backbone": dict(type="TinyBackbone", act_cfg=dict(type=name))}, "a.pth")
        with pytest.raises(CheckpointError, match="is refused: it names"):
            check_pipeline([dict(type="OpenVideo"), dict(type=name)], "a.pth")
    assert not {name.partition(".")[0] for name in imported} & {"os", "nowhere", "nn"}


def test_s3_a_class_that_its_user_has_registered_may_be_named(model_settings: dict[str, Any]):
    class Own:
        pass

    TRANSFORMS.register_module(name="OwnStep", module=Own)
    try:
        assert check_pipeline([dict(type="OwnStep", kind="a word")], "a.pth") == [dict(type="OwnStep", kind="a word")]
    finally:
        TRANSFORMS.module_dict.pop("OwnStep")
    with pytest.raises(CheckpointError, match=r"the type 'OwnStep'.*Import a class of your own first"):
        check_pipeline([dict(type="OwnStep")], "a.pth")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (dict(norm_layer="os.system"), "expected a word as 'norm_layer' of its config, got 'os.system'"),
        (dict(model_name="hf-hub:someone/theirs"), "expected a word as 'model_name' of its config"),
        (dict(weights="/etc/passwd"), "expected a word as 'weights' of its config"),
        (dict(address="http://a"), "may not name paths or addresses"),
        (dict(_scope_="os"), "has a setting '_scope_'"),
        (dict(depth=10**9), "expected a number up to 1,048,576 as 'depth' of its config, got 1000000000"),
        (dict(depth=float("nan")), "expected a number up to"),
        (dict(depth=torch.ones(3)), "expected a number up to"),
        (dict(arch=json.loads("[" * 50 + "]" * 50)), "20 nested containers"),
        (dict(arch=[[0] * 200] * 200), "a config has at most 20,000 values"),
    ],
)
def test_s3_settings_lead_nowhere(model_settings: dict[str, Any], settings: dict[str, Any], said: str):
    with pytest.raises(CheckpointError, match=said):
        check_model({**model_settings, "backbone": dict(type="TinyBackbone", **settings)}, "a.pth")


def test_s3_what_the_training_started_from_is_left_out(model_settings: dict[str, Any]):
    started = dict(init_cfg=dict(type="Pretrained", checkpoint="http://a/b.pth"), pretrained=True, checkpoint_path="/a")
    config = {**model_settings, "backbone": dict(type="TinyBackbone", **started)}
    assert check_model(config, "a.pth") == model_settings


@pytest.mark.parametrize(
    ("file", "settings", "said"),
    [
        (
            "tokenizer_config.json",
            dict(auto_map={"AutoTokenizer": ["code.Own", None]}),
            "code of its own .auto_map., which is never",
        ),
        (
            "config.json",
            dict(auto_map={"AutoConfig": "code.Own"}, model_type="bert"),
            "code of its own .auto_map., which is never",
        ),
        (
            "tokenizer_config.json",
            dict(tokenizer_class="Own"),
            "names the class 'Own'. Expected one of BertTok",
        ),
        ("tokenizer_config.json", dict(tokenizer_class="TransfoXLTokenizer"), "names the class 'TransfoXLTokenizer'"),
        (
            "tokenizer_config.json",
            dict(tokenizer_class="BertTokenizer", vocab_file="/dev/zero"),
            "'vocab_file' names a file in another folder",
        ),
    ],
)
def test_s3_a_folder_of_hugging_face_runs_no_code(
    small_checkpoint: dict[str, Any], save: Callable, tmp_path: Path, file: str, settings: dict[str, Any], said: str
):
    small_checkpoint[KEY]["text_files"][file] = json.dumps(settings)
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    if file == "config.json":
        small_checkpoint[KEY]["text_files"].pop("tokenizer_config.json")
        said = r"names code of its own \(auto_map\)"
    with pytest.raises(CheckpointError, match=said):
        Predictor(save(small_checkpoint))
    assert not (tmp_path / "ran").exists()


def test_s3_an_architecture_of_hugging_face_runs_no_code(model_settings: dict[str, Any], tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="own", auto_map={"AutoConfig": "code.Own"})))
    (tmp_path / "code.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(CheckpointError, match=r"its config\.json names code of its own"):
        MODELS.build(model_settings["encoder"] | dict(architecture=str(tmp_path)))
    (tmp_path / "config.json").write_text(json.dumps(dict(model_type="rag")))
    with pytest.raises(CheckpointError, match=r"names the model type 'rag'.*Expected one of the types bert, "):
        MODELS.build(model_settings["encoder"] | dict(architecture=str(tmp_path)))
    assert not (tmp_path / "ran").exists()


# --- S4 --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(runner_config: Config) -> Config:
    """A config of two epochs, of which one is done, in a work folder with its checkpoint."""
    runner_config.default_hooks.checkpoint.interval = 1
    build_runner(runner_config).train()
    runner_config.train_cfg.max_epochs = 2
    runner_config.update(resume=True, load_from=f"{runner_config.work_dir}/epoch_1.pth")
    runner_config.experiment_name += "-resumed"
    return runner_config


def test_s4_resuming_runs_nothing_of_the_file(stopped: Config, tmp_path: Path):
    saved = load_torch(stopped.load_from, mmap=False)
    saved["meta"]["config"] = f"open({str(tmp_path / 'ran')!r}, 'w').write('ran as a config')\n"
    saved["param_schedulers"] = [dict(optimizer="none")]
    torch.save(saved, stopped.load_from)
    runner = build_runner(stopped)
    runner.train()
    assert runner.epoch == 2
    assert "config" not in runner.resumed["meta"]
    assert not (tmp_path / "ran").exists()


HUB = dict(log_scalars={}, runtime_info={}, resumed_keys={})
STATE = dict(meta=dict(epoch=1, iter=6, seed=None), message_hub=HUB, optimizer={}, ranks=[dict(random={}, hooks={})])


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("meta", dict(epoch="x"), r"meta\['epoch'\] is expected to be an integer from 0 to 9007199254740992, got 'x'"),
        ("meta", dict(epoch=1, iter=-1, seed=5), r"meta\['iter'\]"),
        ("meta", dict(epoch=1, iter=True, seed=5), r"meta\['iter'\]"),
        ("meta", dict(epoch=1, iter=6, seed=10**40), r"meta\['seed'\]"),
        ("meta", None, "meta is expected to be a dict, got a NoneType"),
        ("message_hub", [], "message_hub is expected to be a dict, got a list"),
        ("message_hub", {}, "its training state lacks or has invalid"),
        ("optimizer", 3, "optimizer is expected to be a dict, got a int"),
        ("param_schedulers", [3], "param_schedulers is expected to be a dict, got a int"),
        ("ranks", {}, "ranks is expected to be a list"),
        ("ranks", [{}], "its training state lacks or has invalid"),
    ],
)  # fmt: skip
def test_s4_a_damaged_state_is_named(key: str, value: Any, said: str):
    assert training_state(STATE, "a.pth")["meta"] == STATE["meta"]
    with pytest.raises(CheckpointError, match=rf"^a\.pth cannot be resumed: .*{said}"):
        training_state(STATE | {key: value}, "a.pth")


def test_s4_a_state_of_another_training_is_named(stopped: Config):
    whole = load_torch(stopped.load_from, mmap=False)
    for change, said in (
        (dict(optimizer={}), r"its training state is damaged or of another config \(KeyError: "),
        (dict(ranks=[dict(random={}, hooks={})]), "checkpoint's state of process 0 is damaged"),
    ):
        torch.save(whole | change, stopped.load_from)
        stopped.experiment_name += "x"
        with pytest.raises(CheckpointError, match=said):
            build_runner(stopped).train()
