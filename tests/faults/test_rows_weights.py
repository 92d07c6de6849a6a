"""Rows S8, W1, W2, W4: weights from elsewhere take no more than their size, are right or refused."""

import copy
import json
import os
import pickle
import resource
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from safetensors.torch import save_file

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint import (
    CheckpointError,
    check_fit,
    load_weights,
    read_checkpoint,
    read_metadata,
    read_source,
)
from clipbert_mm.checkpoint.building import build_model
from clipbert_mm.checkpoint.metadata import KEY
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.registry import MODELS
from clipbert_mm.trusted import check_model

# --- S8 --------------------------------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    """Return a pickled string."""
    return b"X" + struct.pack("<I", len(value)) + value.encode()


BOMBS = {
    "9 bytes": (b"\x80\x02Nr\xff\xff\xff\x3f.", ""),
    "bytes": (b"\x80\x04\x8e" + struct.pack("<Q", 2**33) + b".", "a value of 8,589,934,592 bytes, and 1 are left"),
    "byte array": (b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b".", "a value of 8,589,934,592 bytes"),
    "called byte array": (b"\x80\x02c__builtin__\nbytearray\n(J\xff\xff\xff\x7ftR.", "it asks for __builtin__.bytearray"),
    "long number": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "an operation 0x8b"),
    "array": (b"\x80\x02}(X\1\0\0\0acnumpy\nndarray\n((J\xff\xff\xff\x7fK\x04ttRu.", ""),
    "tensor": (b"\x80\x02ctorch\nTensor\n(J\xff\xff\xff\x7ftR.", ""),
    "copies": (
        b"\x80\x02" + text("x" * 10**5) + b"q\0" + (b"c_codecs\nencode\n(h\0" + text("latin1") + b"tR0") * 3000 + b".",
        "it repeats values until they need far more memory than the file",
    ),
    "keys": (b"\x80\x02)" + b"2\x86" * 60 + b"q\0}h\0Ns.", "a key of type tuple"),
    "set": (b"\x80\x02)" + b"2\x86" * 60 + b"q\0c__builtin__\nset\n(h\0tR.", ""),
}  # fmt: skip


def measured(read: Callable[[], Any]) -> tuple[str, int]:
    """Return the error of a reading and by how many MB the process' largest size grew."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(CheckpointError) as caught:
        read()
    return str(caught.value), (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024


@pytest.mark.parametrize("place", ["alone", "archive", "old"])
@pytest.mark.parametrize("bomb", BOMBS)
def test_s8_a_pickle_takes_no_more_memory_than_its_size(tmp_path: Path, bomb: str, place: str):
    data, said = BOMBS[bomb]
    path = tmp_path / "a.pth"
    if place == "archive":
        torch.save({"a": torch.ones(1)}, tmp_path / "good.pth")
        with zipfile.ZipFile(tmp_path / "good.pth") as good, zipfile.ZipFile(path, "w") as packed:
            for member in good.infolist():
                packed.writestr(member.filename, data if member.filename.endswith(".pkl") else good.read(member))
    elif place == "old":
        torch.save([], tmp_path / "good.pth", _use_new_zipfile_serialization=False)
        good = (tmp_path / "good.pth").read_bytes()
        path.write_bytes(good[: good.rindex(b"\x80\x02]")].rpartition(b"\x80\x02]")[0] + data)
    else:
        path.write_bytes(data)
    message, grown = measured(lambda: read_checkpoint(str(path)))
    assert message.startswith(str(path))
    assert place == "old" or said in message or "asks for torch" in message or "asks for _codecs" in message
    assert grown < 200


@pytest.mark.parametrize("new", [True, False], ids=["archive", "old"])
def test_s8_tensors_are_not_larger_than_the_file(tmp_path: Path, new: bool):
    path = tmp_path / "a.pth"
    torch.save({"state_dict": {"head.weight": torch.ones(1000)}}, path, _use_new_zipfile_serialization=new)
    whole = path.read_bytes()
    size = b"M\xe8\x03"  # 1,000, as number of values of the storage and of the tensor
    assert whole.count(size) >= 2
    forged = tmp_path / "forged.pth"
    changed = whole.replace(size, b"J\xff\xff\xff\x7f"[:1] + struct.pack("<i", 2**31 - 1))
    if new:
        with zipfile.ZipFile(path) as good, zipfile.ZipFile(forged, "w") as packed:
            for member in good.infolist():
                data = good.read(member)
                packed.writestr(member.filename, data.replace(size, b"J\xff\xff\xff\x7f"))
    else:
        forged.write_bytes(changed)
    said = (
        "a tensor needs 8,589,934,588 bytes of its member data/0, which has 4,000"
        if new
        else "more bytes than the file"
    )
    message, grown = measured(lambda: read_checkpoint(str(forged)))
    assert said in message
    assert grown < 200


def test_s8_tensors_are_what_is_stored_of_them(save: Callable):
    for tensor, said in (
        (torch.zeros(1).expand(10**10), r"a tensor of shape \(10000000000,\) has only 4 bytes"),
        (torch.empty(10**12, device="meta"), "it asks for torch._utils._rebuild_meta_tensor_no_storage"),
        (torch.ones(3).to_sparse(), "it asks for torch._utils._rebuild_sparse_tensor"),
    ):
        with pytest.raises(CheckpointError, match=said):
            read_checkpoint(save({"state_dict": {"a": tensor}}))


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("encoder", dict(num_layers=10**5)),
        ("encoder", dict(num_layers=4000)),
        ("encoder", dict(vocab_size=10**6)),
        ("encoder", dict(hidden_size=10**6, num_heads=1)),
        ("encoder", dict(intermediate_size=10**6)),
        ("encoder", dict(max_text_length=10**6)),
        ("encoder", dict(grid_size=10**6)),
        ("projection", dict(out_channels=10**6)),
        ("head", dict(hidden_channels=10**6)),
        ("backbone", dict(type="mmpretrain.ResNet", depth=18, base_channels=4000)),
        ("backbone", dict(type="mmpretrain.ConvNeXt", arch=dict(depths=[4000] * 4, channels=[8] * 4))),
        ("backbone", dict(type="mmpretrain.SwinTransformer", arch="tiny", window_size=500)),
    ],
)  # fmt: skip
def test_s8_a_model_is_no_larger_than_its_weights(small_checkpoint: dict[str, Any], part: str, change: dict[str, Any]):
    small_checkpoint[KEY]["model"][part].update(change)
    config = check_model(small_checkpoint[KEY]["model"], "a.pth")
    message, grown = measured(lambda: build_model(config, small_checkpoint["state_dict"], "a.pth"))
    assert message.startswith("a.pth: the model that it describes is larger than its weights")
    assert grown < 300


def test_s8_frames_are_of_a_size_that_can_be_held(small_checkpoint: dict[str, Any], save: Callable):
    for place, change in ((1, dict(num_clips=10**6)), (3, dict(size=10**5)), (0, dict(num_threads=10**4))):
        changed = copy.deepcopy(small_checkpoint)
        changed[KEY]["pipelines"]["test"][place].update(change)
        with pytest.raises(CheckpointError, match="is refused: it asks for"):
            Predictor(save(changed))


# --- W1 --------------------------------------------------------------------------------------------------------------


def pack(source: str, path: Path, how: str) -> None:
    """Pack the members of a file anew."""
    with zipfile.ZipFile(source) as good, zipfile.ZipFile(path, "w") as packed:
        for member in good.infolist():
            squeezed = how == "compressed" or (how == "one compressed" and member.filename.endswith("data/0"))
            packed.writestr(
                member.filename, good.read(member), zipfile.ZIP_DEFLATED if squeezed else zipfile.ZIP_STORED
            )
            if how in ("twice", "other case") and member.filename.endswith("data.pkl"):
                name = member.filename.upper() if how == "other case" else member.filename
                packed.writestr(name, good.read(member))
    if how == "behind":
        path.write_bytes(b"something" + path.read_bytes())


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("compressed", r"a/data\.pkl is compressed, and torch would read the compressed bytes as tensors"),
        ("one compressed", "a/data/0 is compressed"),
        ("twice", r"a/data\.pkl exists twice"),
        ("other case", r"A/DATA\.PKL exists twice"),
        ("behind", None),
    ],
)
def test_w1_members_are_stored(save: Callable, tmp_path: Path, how: str, said: str | None):
    weights = {"state_dict": {"head.weight": torch.zeros(2000), "head.bias": torch.zeros(7)}}
    packed = tmp_path / "b.pth"
    pack(save(weights), packed, how)
    with pytest.raises(CheckpointError, match=rf"^{packed} is refused: its member {said}" if said else str(packed)):
        read_checkpoint(str(packed))
    pack(save(weights), packed, "stored")
    assert read_checkpoint(str(packed))["state_dict"]["head.weight"].eq(0).all()


# --- W2 --------------------------------------------------------------------------------------------------------------

WRAPPERS = (
    "module.", "_orig_mod.", "model.", "module._orig_mod.", "_orig_mod.module.", "module.module.",
    "model._orig_mod.module.model.",
    "_forward_module.module.", "_fsdp_wrapped_module._orig_mod.", "ema_model.module.", "module.ema.",
)  # fmt: skip


@pytest.mark.parametrize("front", WRAPPERS)
@pytest.mark.parametrize("ending", [".pth", ".safetensors", ".pkl"])
def test_w2_words_of_wrappers_come_off(small_checkpoint: dict[str, Any], tmp_path: Path, front: str, ending: str):
    weights = small_checkpoint["state_dict"]
    wrapped = {f"{front}{name}": value.contiguous() for name, value in weights.items()}
    path = tmp_path / f"a{ending}"
    if ending == ".pkl":
        path.write_bytes(pickle.dumps({name: value.numpy() for name, value in wrapped.items()}, 2))
    else:
        (torch.save if ending == ".pth" else save_file)(wrapped, path)
    source = read_source(str(path))
    assert source.title == "clipbert_mm's"
    assert source.tensors.keys() == weights.keys()
    assert all(torch.equal(source.tensors[name], value) for name, value in weights.items())


def test_w2_words_within_names_come_off_too(save: Callable):
    names = (
        "backbone._orig_mod.conv.weight",
        "module.encoder._fsdp_wrapped_module.bert.encoder.layer.0._checkpoint_wrapped_module.a",
    )
    found = read_checkpoint(save({name: torch.ones(1) for name in names}))["state_dict"]
    assert list(found) == ["backbone.conv.weight", "encoder.bert.encoder.layer.0.a"]


def test_w2_two_models_in_a_file_are_not_mixed(save: Callable):
    names = ("model.backbone.conv1.weight", "ema_model.backbone.conv1.weight")
    with pytest.raises(
        CheckpointError, match=r"has two models: both 'model.backbone.conv1.weight' and 'ema_model.backbone.c"
    ):
        read_checkpoint(save({name: torch.ones(1) for name in names}))


def test_w2_a_random_backbone_is_not_trained_in_silence(
    small_checkpoint: dict[str, Any], save: Callable, model_settings: dict
):
    strange = {f"student.{name}": value for name, value in small_checkpoint["state_dict"].items()}
    with pytest.raises(
        CheckpointError, match=r"has tensors such as student.backbone.conv.weight, .*names of no known format"
    ):
        read_source(save({"state_dict": strange}))
    model = MODELS.build(copy.deepcopy(model_settings))
    mostly = {**small_checkpoint["state_dict"], **{f"other.{i}": torch.ones(1) for i in range(100)}}
    with pytest.raises(
        CheckpointError, match=r"The model has \d+ of the \d+ tensors of .*a\.pth .*does not have 'other\.0'"
    ):
        check_fit(model, [read_source(save({"state_dict": mostly}))], whole=False)


# --- W4 --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float8_e5m2])
def test_w4_weights_are_numbers(
    small_checkpoint: dict[str, Any], model_settings: dict, value: float, dtype: torch.dtype
):
    model, weights = MODELS.build(copy.deepcopy(model_settings)), dict(small_checkpoint["state_dict"])
    load_weights(model, weights | {"unused": torch.tensor(float("nan"))}, "a.pth")
    for name in ("backbone.conv.bias", "head.classifier.0.bias"):
        weights[name] = weights[name].clone()
        weights[name][-1] = value
        weights[name] = weights[name].to(dtype)
    taken = len(model.state_dict())
    with pytest.raises(
        CheckpointError, match=rf"^a\.pth is refused: 2 of the {taken} tensors .* infinite, the first is 'backbone\.c"
    ):
        load_weights(model, weights, "a.pth")


def test_w4_a_search_and_a_training_refuse_them(
    small_checkpoint: dict[str, Any], save: Callable, runner_config: Config
):
    small_checkpoint["state_dict"]["backbone.conv.bias"][0] = float("nan")
    path = save(small_checkpoint)
    for use in (lambda: Predictor(path), lambda: build_runner(runner_config).train()):
        runner_config.load_from = path
        with pytest.raises(CheckpointError, match=r"the first is 'backbone\.conv\.bias'\. Its training failed"):
            use()


# --- E ---------------------------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a list": lambda saved: saved.update({KEY: [1]}),
    "a number": lambda saved: saved.update({KEY: 3}),
    "empty": lambda saved: saved.update({KEY: {}}),
    "no model": lambda saved: saved[KEY].pop("model"),
    "model a list": lambda saved: saved[KEY].update(model=[]),
    "model of no type": lambda saved: saved[KEY]["model"].pop("type"),
    "model without a head": lambda saved: saved[KEY]["model"].pop("head"),
    "model without an encoder": lambda saved: saved[KEY]["model"].pop("encoder"),
    "encoder of words": lambda saved: saved[KEY]["model"]["encoder"].update(hidden_size="wide"),
    "encoder of 3 heads": lambda saved: saved[KEY]["model"]["encoder"].update(num_heads=3),
    "negative size": lambda saved: saved[KEY]["model"]["encoder"].update(hidden_size=-16),
    "unknown setting": lambda saved: saved[KEY]["model"]["encoder"].update(color="red"),
    "unknown architecture": lambda saved: saved[KEY]["model"]["encoder"].update(architecture="someone/theirs"),
    "another class": lambda saved: saved[KEY].update(model=saved[KEY]["model"]["head"] | dict(encoder={})),
    "parts of other kinds": lambda saved: saved[KEY]["model"].update(temporal_fusion=dict(type="MeanAggregator")),
    "a layer as a part": lambda saved: saved[KEY]["model"].update(temporal_fusion=dict(type="Identity")),
    "mean of two": lambda saved: saved[KEY]["model"]["data_preprocessor"].update(mean=[1.0, 2.0]),
    "no pipelines": lambda saved: saved[KEY].update(pipelines={}),
    "pipelines a list": lambda saved: saved[KEY].update(pipelines=[]),
    "step of no type": lambda saved: saved[KEY]["pipelines"]["test"].append({}),
    "no Tokenize": lambda saved: saved[KEY]["pipelines"]["test"].pop(4),
    "texts too long": lambda saved: saved[KEY]["pipelines"]["test"][4].update(max_length=1000),
    "texts of words": lambda saved: saved[KEY]["pipelines"]["test"][4].update(max_length="long"),
    "clips -1": lambda saved: saved[KEY]["pipelines"]["test"][1].update(num_clips=-1),
    "no tokenizer": lambda saved: saved[KEY].update(text_files={}),
    "tokenizer of bytes": lambda saved: saved[KEY].update(text_files={"vocab.txt": b""}),
    "tokenizer.json cut": lambda saved: saved[KEY]["text_files"].update({"tokenizer.json": '{"version": "1.0"'}),
    "tokenizer_config.json a list": lambda saved: saved[KEY]["text_files"].update({"tokenizer_config.json": "[]"}),
    "answers of numbers": lambda saved: saved[KEY].update(answers=[1, 2]),
    "task a list": lambda saved: saved[KEY].update(task=[]),
    "convention": lambda saved: saved.update(convention={"mean": 3}),
    "nested": lambda saved: saved[KEY].update(answers=json.loads("[" * 300 + "]" * 300)),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_e_damaged_contents(small_checkpoint: dict[str, Any], save: Callable, how: str):
    Predictor(save(small_checkpoint))
    DAMAGES[how](small_checkpoint)
    path = save(small_checkpoint, "damaged.pth")
    with pytest.raises(CheckpointError) as caught:
        Predictor(path)
    assert path in str(caught.value)
    assert len(str(caught.value)) < 1500


@pytest.mark.parametrize("wrong", ["[]", "{", '"x"', "[" * 10**5, "null"])
def test_e_damaged_settings_beside_weights(tmp_path: Path, wrong: str):
    save_file({"embeddings.word_embeddings.weight": torch.zeros(3, 4)}, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(wrong)
    with pytest.raises(CheckpointError, match=r"config\.json is damaged: expected a JSON object of settings"):
        read_checkpoint(str(tmp_path))


def test_e_old_checkpoints_open(small_checkpoint: dict[str, Any], tmp_path: Path):
    for new in (True, False):
        torch.save(
            small_checkpoint | {"history": np.arange(3), "scalar": np.float64(2)},
            tmp_path / "a.pth",
            _use_new_zipfile_serialization=new,
        )
        predictor = Predictor(tmp_path / "a.pth")
        assert read_metadata(tmp_path / "a.pth").task == predictor.task == "retrieval"
        assert os.path.isabs(predictor.weights)
