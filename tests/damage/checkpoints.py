"""Damaged and hostile checkpoints: files of torch.save new and old, safetensors, pickles of arrays, Hugging Face folders."""

import copy
import json
import os
import pickle
import random
import shutil
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.registry import DefaultScope
from safetensors.torch import save_file
from torch import Tensor
from transformers import BertConfig

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.checkpoint import CheckpointMetadata, read_source
from clipbert_mm.checkpoint.archives import load_torch
from clipbert_mm.checkpoint.metadata import KEY
from clipbert_mm.checkpoint.training_state import training_state
from clipbert_mm.datasets import train_vocabulary
from clipbert_mm.datasets.transforms.text import get_tokenizer
from clipbert_mm.models import JointEncoder
from clipbert_mm.registry import MODELS

VOCAB = 60
TEXTS = ("a red circle moves left", "a blue square moves right", "two green stars stand still")
MODEL = dict(
    type="ClipBert",
    data_preprocessor=dict(type="VideoTextPreprocessor", mean=[120.0] * 3, std=[60.0] * 3, vocab_size=VOCAB),
    backbone=dict(
        type="mmpretrain.ResNet", depth=18, stem_channels=8, base_channels=8, num_stages=2, strides=(1, 2),
        dilations=(1, 1), out_indices=(1,), norm_cfg=dict(type="BN"),
    ),
    projection=dict(type="GridProjection", in_channels=16, out_channels=16),
    temporal_fusion=dict(type="MeanFusion"),
    encoder=dict(
        type="JointEncoder", vocab_size=VOCAB, hidden_size=16, num_layers=1, num_heads=2, intermediate_size=16,
        max_text_length=20, dropout=0.0, grid_size=8,
    ),
    head=dict(type="MatchingHead", in_channels=16, hidden_channels=None),
    aggregator=dict(type="LogSumExpAggregator"),
)  # fmt: skip
PIPELINE = [
    dict(type="OpenVideo"),
    dict(type="SampleClips", num_clips=2, num_frames=2, mode="uniform"),
    dict(type="DecodeClips"),
    dict(type="ResizePad", size=32),
    dict(type="Tokenize", tokenizer="gone", max_length=20),
    dict(type="PackInputs"),
]


def prepare(folder: Path) -> None:
    """Write a checkpoint of a tiny model in each format, and a folder of Hugging Face's."""
    torch.manual_seed(0)
    tokenizer = train_vocabulary(TEXTS, folder / "hf", VOCAB)
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        model = MODELS.build(copy.deepcopy(MODEL))
    contents = CheckpointMetadata(
        version="1",
        task="retrieval",
        model=MODEL,
        pipelines={"test": PIPELINE},
        text_files={path.name: path.read_text() for path in sorted(tokenizer.iterdir())},
        answers=None,
    )
    weights = model.state_dict()
    checkpoint = {
        "state_dict": weights,
        KEY: contents.to_dict(),
        "meta": dict(epoch=1, iter=6, seed=5, cfg="", dataset_meta=None, experiment_name="a"),
        "message_hub": dict(
            log_scalars={"train/loss": HistoryBuffer([0.5, 0.25], [1, 1])},
            runtime_info={"epoch": 1, "regular_checkpoints": ["epoch_1.pth"]},
            resumed_keys={"epoch": True},
        ),
        "optimizer": dict(
            state={0: dict(step=torch.tensor(6.0), exp_avg=torch.ones(3))}, param_groups=[dict(lr=0.1, params=[0])]
        ),
        "param_schedulers": [dict(last_step=6, factor=0.5)],
        "ranks": [dict(random=dict(torch=torch.get_rng_state()), hooks={})],
        "attention_heads": 2,
        "convention": dict(mean=(120.0,) * 3, std=(60.0,) * 3, to_bgr=False, style=None),
    }
    torch.save(checkpoint, folder / "new.pth")
    torch.save(checkpoint, folder / "old.pth", _use_new_zipfile_serialization=False)
    save_file({name: value.contiguous() for name, value in weights.items()}, folder / "weights.safetensors")
    arrays = {"model": {name: value.numpy() for name, value in weights.items()}, "__author__": "someone"}
    for protocol in (2, 4):
        (folder / f"arrays_{protocol}.pkl").write_bytes(pickle.dumps(arrays, protocol))
    bert = model.encoder.bert
    BertConfig.from_dict(bert.config.to_dict()).save_pretrained(folder / "hf")
    save_file(
        {name: value.contiguous() for name, value in bert.state_dict().items()}, folder / "hf" / "model.safetensors"
    )


def damage(rng: random.Random, folder: Path, target: Path) -> str:
    """Damage one of the files in one of the ways of :data:`WAYS`."""
    way = rng.choices(list(WAYS), weights=[weight for weight, _ in WAYS.values()])[0]
    path, said = WAYS[way][1](rng, folder, target)
    return f"{path}: {way}, {said}"


def use(path: Path) -> None:
    """Read a checkpoint in every way that the package does, and predict with what it says of its model."""
    torch.set_num_threads(1)
    with DefaultScope.overwrite_default_scope("clipbert_mm"):
        if path.is_dir():
            get_tokenizer(str(path))(["a red circle"])
            JointEncoder(architecture=str(path), dropout=0.0, grid_size=8)
        source = read_source(str(path))
        if "message_hub" in source.rest:
            training_state(source.rest, source.path)
        if KEY in source.rest:
            predictor = Predictor(path, device="cpu")
            tokens = predictor.encode([np.zeros((2, 2, 32, 32, 3), np.uint8)])
            predictor.pooled_scores(predictor.clip_logits(tokens, predictor.token_ids(["a red circle"])))


def _loaded(folder: Path) -> dict[str, Any]:
    return load_torch(folder / "new.pth", mmap=False)


def _saved(rng: random.Random, checkpoint: Any, target: Path) -> Path:
    """Write a checkpoint as torch did in either of its formats."""
    path = target.with_suffix(".pth")
    torch.save(checkpoint, path, _use_new_zipfile_serialization=rng.random() < 0.8)
    return path


# --- bytes -----------------------------------------------------------------------------------------------------------


def damage_bytes(rng: random.Random, folder: Path, target: Path) -> tuple[Path, str]:
    """Cut, flip, overwrite or add bytes, mostly where the structure is: at the start or the end."""
    name = rng.choice(["new.pth", "old.pth", "weights.safetensors", "arrays_2.pkl", "arrays_4.pkl"])
    path = target.with_suffix(Path(name).suffix)
    data = bytearray((folder / name).read_bytes())
    zone = rng.choice([min(400, len(data)), min(5000, len(data)), len(data)])
    place = rng.randrange(zone) if rng.random() < 0.6 else len(data) - 1 - rng.randrange(zone)
    how = rng.choice(["cut", "flip", "flips", "zeros", "noise", "insert", "remove", "append", "prepend"])
    if how == "cut":
        del data[place:]
    elif how == "flip":
        data[place] ^= 1 << rng.randrange(8)
    elif how == "flips":
        for _ in range(rng.randrange(2, 50)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    elif how in ("zeros", "noise"):
        size = min(rng.randrange(1, 200), len(data) - place)
        data[place : place + size] = bytes(size) if how == "zeros" else rng.randbytes(size)
    elif how in ("insert", "prepend", "append"):
        at = {"insert": place, "prepend": 0, "append": len(data)}[how]
        data[at:at] = rng.randbytes(rng.randrange(1, 100))
    else:
        del data[place : place + rng.randrange(1, 100)]
    path.write_bytes(data)
    return path, f"{how} at {place} of {name}"


def damage_archive(rng: random.Random, folder: Path, target: Path) -> tuple[Path, str]:
    """Pack the members of a file of torch.save anew in a way that torch does not."""
    path = target.with_suffix(".pth")
    how = rng.choice(
        [
            "compressed",
            "one compressed",
            "twice",
            "other case",
            "lost",
            "script",
            "behind",
            "no checksum",
            "flags",
            "two",
        ]
    )
    with zipfile.ZipFile(folder / "new.pth") as source, zipfile.ZipFile(path, "w") as packed:
        members = source.infolist()
        chosen = rng.choice(members).filename
        for member in members:
            data = source.read(member)
            packing = how == "compressed" or (how == "one compressed" and member.filename == chosen)
            if how == "lost" and member.filename == chosen:
                continue
            packed.writestr(member.filename, data, zipfile.ZIP_DEFLATED if packing else zipfile.ZIP_STORED)
            if how in ("twice", "other case") and member.filename == chosen:
                name = chosen.upper() if how == "other case" else chosen
                packed.writestr(name, rng.randbytes(len(data)))
        if how == "script":
            packed.writestr(members[0].filename.partition("/")[0] + "/constants.pkl", b"\x80\x02).")
    data = path.read_bytes()
    if how == "behind":
        path.write_bytes(rng.randbytes(64) + data)
    elif how == "two":
        path.write_bytes(data + (folder / "new.pth").read_bytes())
    elif how in ("no checksum", "flags"):
        changed, size = bytearray(data), 4 if how == "no checksum" else 2
        for mark, offset in ((b"PK\x03\x04", 14 if size == 4 else 6), (b"PK\x01\x02", 16 if size == 4 else 8)):
            at = changed.find(mark)
            while at >= 0:
                changed[at + offset : at + offset + size] = bytes(4) if size == 4 else b"\x01\0"
                at = changed.find(mark, at + 4)
        path.write_bytes(changed)
    return path, f"{how} ({chosen})"


# --- values ----------------------------------------------------------------------------------------------------------

NAMES = [
    "os.system",
    "subprocess.getoutput",
    "builtins.eval",
    "builtins.open",
    "mmengine.Config.fromfile",
    "shutil.rmtree",
    "mmengine.model.BaseModel",
    "torch.hub.load",
    "mmpretrain.TIMMBackbone",
    "mmpretrain.models.backbones.ResNet",
    "ToyModel",
    "mmpretrain.BLIPCaption",
    "antigravity.fly",
    "clipbert_mm.ClipBert",
    "OptimWrapper",
    "BN",
    "mmcv.transforms.LoadImageFromFile",
    "mmpretrain.get_model",
    "PretrainedInit",
    "Compose",
]


def _odd(rng: random.Random, marker: str, shared: bool = True) -> Any:
    """Return a value that is of no use, or of bad use; where lists may be shared, one that is huge if it is written out."""
    deep: Any = []
    for _ in range(rng.choice([5, 150, 300])):
        deep = [deep]
    wide: Any = ["x"] * 50
    for _ in range(8 if shared else 1):
        wide = [wide] * 50
    hostile = dict(type=rng.choice(NAMES), command=f"touch {marker}", cmd=f"touch {marker}")
    values = [
        None, True, 0, -1, 1, 7, 10**6, 10**9, 10**30, -(10**18), 0.5, float("nan"), float("inf"), "", "x" * 10**6, "\ud800",
        b"bytes", [], {}, (), [1, 2], {"a": 1}, {1: 2}, set(), deep, wide, torch.ones(2), HistoryBuffer([1.0], [1]),
        "/etc/passwd", "../../x", "hf-hub:a/b", "http://127.0.0.1:1/x", hostile, [hostile],
        dict(type="Pretrained", checkpoint=marker), dict(type=rng.choice(NAMES)),
    ]  # fmt: skip
    return rng.choice(values)


def _places(root: Any) -> list[tuple]:
    """Return the ways to the first values within dicts and lists."""
    found: list[tuple] = []
    todo: list[tuple[Any, tuple]] = [(root, ())]
    while todo and len(found) < 1000:
        value, at = todo.pop(0)
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, each in inner:
            found.append((*at, key))
            todo.append((each, (*at, key)))
    return found


def _change(rng: random.Random, root: Any, marker: str, shared: bool = True) -> str:
    """Change one value somewhere within dicts and lists."""
    at = rng.choice(_places(root))
    holder = root
    for key in at[:-1]:
        holder = holder[key]
    how = rng.choice(["odd", "odd", "odd", "lost", "added", "large", "named"])
    if how == "lost":
        del holder[at[-1]]
    elif how == "added" and isinstance(holder, dict):
        key = rng.choice(
            ["_scope_", "init_cfg", "pretrained", "custom_imports", "type", "checkpoint", "depth", "arch", "x"]
        )
        holder[key] = _odd(rng, marker, shared)
        at = (*at[:-1], key)
    elif how == "large" and isinstance(holder[at[-1]], int):
        holder[at[-1]] *= rng.choice([10, 1000, 10**5, 10**9, -1])
    elif how == "named" and "type" in at:
        holder[at[-1]] = rng.choice(NAMES)
    else:
        holder[at[-1]] = _odd(rng, marker, shared)
    return f"{how} at {'.'.join(map(str, at))[:80]}"


def damage_contents(rng: random.Random, folder: Path, target: Path) -> tuple[Path, str]:
    """Change what a checkpoint says of its model, in one place or several."""
    checkpoint = _loaded(folder)
    if rng.random() < 0.1:
        checkpoint[KEY] = _odd(rng, str(folder / "ran"))
        return _saved(rng, checkpoint, target), "all of it"
    said = [_change(rng, checkpoint[KEY], str(folder / "ran")) for _ in range(rng.choice([1, 1, 1, 3]))]
    return _saved(rng, checkpoint, target), "; ".join(said)


def damage_state(rng: random.Random, folder: Path, target: Path) -> tuple[Path, str]:
    """Change the state of a training."""
    checkpoint = _loaded(folder)
    part = rng.choice(
        ["meta", "message_hub", "optimizer", "param_schedulers", "ranks", "convention", "attention_heads"]
    )
    if rng.random() < 0.3 or not isinstance(checkpoint[part], (dict, list)):
        checkpoint[part] = _odd(rng, str(folder / "ran"))
        return _saved(rng, checkpoint, target), f"all of {part}"
    if part == "meta" and rng.random() < 0.3:
        checkpoint["meta"]["config"] = f"open({str(folder / 'ran')!r}, 'w')"
        return _saved(rng, checkpoint, target), "a config that runs"
    return _saved(rng, checkpoint, target), f"{part}: {_change(rng, checkpoint[part], str(folder / 'ran'))}"


def damage_tensors(rng: random.Random, folder: Path, target: Path) -> tuple[Path, str]:
    """Change the weights: their names, shapes, types and values."""
    checkpoint = _loaded(folder)
    weights: dict[str, Tensor] = dict(checkpoint["state_dict"])
    name = rng.choice(list(weights))
    value = weights[name]
    changes: dict[str, Callable[[], Any]] = {
        "NaN": lambda: torch.full_like(value, float("nan")) if value.is_floating_point() else value,
        "inf": lambda: torch.full_like(value, float("inf")) if value.is_floating_point() else value,
        "empty": lambda: value.new_zeros(0),
        "flat": lambda: value.flatten(),
        "larger": lambda: torch.cat([value.flatten(), value.flatten()]),
        "expanded": lambda: torch.zeros(1).expand(10**10),
        "half": lambda: value.half(),
        "bfloat16": lambda: value.bfloat16(),
        "complex": lambda: value.to(torch.complex64),
        "bool": lambda: value.bool(),
        "int": lambda: value.long(),
        "8 bits": lambda: value.float().to(torch.float8_e4m3fn),
        "sparse": lambda: value.to_sparse(),
        "meta": lambda: torch.empty(10**12, device="meta"),
        "array": lambda: np.ones(3),
        "no tensor": lambda: _odd(rng, str(folder / "ran")),
        "quantized": lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8),
    }
    how = rng.choice([*changes, "lost", "renamed", "wrapped", "wrapped", "two models", "strange key"])
    if how in changes:
        weights[name] = changes[how]()
    elif how == "lost":
        for each in rng.sample(list(weights), rng.choice([1, 5, len(weights) - 1])):
            del weights[each]
    elif how == "renamed":
        weights = {f"x{each}" if rng.random() < 0.5 else each: tensor for each, tensor in weights.items()}
    elif how == "wrapped":
        words = ["module.", "_orig_mod.", "model.", "_fsdp_wrapped_module.", "ema.", "foo."]
        front = "".join(rng.choices(words, k=rng.randrange(1, 4)))
        weights = {front + each: tensor for each, tensor in weights.items()}
        name = front
    elif how == "two models":
        weights |= {f"ema_model.{each}": tensor for each, tensor in weights.items()}
    else:
        weights[rng.choice([None, 5, (1, 2), "", "." * 300, "\ud800"])] = value  # type: ignore[index]
    checkpoint["state_dict"] = weights
    if rng.random() < 0.2:
        checkpoint = {"state_dict": weights}
    return _saved(rng, checkpoint, target), f"{how} ({name})"


# --- pickles ---------------------------------------------------------------------------------------------------------

GLOBALS = [
    "os:system",
    "posix:system",
    "builtins:eval",
    "builtins:exec",
    "builtins:getattr",
    "builtins:bytearray",
    "__builtin__:bytearray",
    "builtins:set",
    "builtins:complex",
    "subprocess:Popen",
    "numpy:ndarray",
    "numpy:dtype",
    "numpy.core.multiarray:_reconstruct",
    "numpy._core.multiarray:scalar",
    "numpy._core.numeric:_frombuffer",
    "collections:OrderedDict",
    "collections:Counter",
    "torch:Tensor",
    "torch._utils:_rebuild_tensor_v2",
    "torch._utils:_rebuild_parameter",
    "torch:FloatStorage",
    "torch:Size",
    "torch:device",
    "torch.storage:UntypedStorage",
    "torch.storage:_load_from_bytes",
    "torch:float32",
    "_codecs:encode",
    "functools:partial",
    "mmengine.logging.history_buffer:HistoryBuffer",
    "torch._tensor:_rebuild_from_type_v2",
    "operator:attrgetter",
    "torch.nn.parameter:Parameter",
    "torch._utils:_rebuild_sparse_tensor",
    "torch._utils:_rebuild_meta_tensor_no_storage",
    "torch.serialization:_get_layout",
]
SIZES = (0, 1, 3, 255, 10**6, 2**31 - 1, 2**32 - 1)


def _random_pickle(rng: random.Random, marker: str) -> bytes:
    """Return operations in a random order, most of which have what they need on the stack."""
    parts = [b"\x80" + bytes([rng.choice([0, 1, 2, 2, 2, 3, 4, 5])])]
    words = [
        marker,
        "storage",
        "cpu",
        "latin1",
        "f4",
        "O8",
        "a",
        "mean",
        "__class__",
        "hex",
        "utf-32",
        f"touch {marker}",
    ]
    for _ in range(rng.randrange(3, 60)):
        size = rng.choice(SIZES)
        small, large = struct.pack("<i", min(size, 2**31 - 1)), struct.pack("<I", size)
        text = rng.choice(words).encode()
        name = rng.choice(GLOBALS).replace(":", "\n").encode() + b"\n"
        operations = [
            b"(", b")", b"]", b"}", b"N", b"\x88", b"t", b"l", b"d", b"R", b"R", b"R", b"b", b"b", b"\x81", b"a", b"e", b"s",
            b"u", b"0", b"1", b"2", b"\x85", b"\x86", b"\x87", b"Q", b"\x8f", b"\x90", b"\x91", b"\x92", b"\x93", b"\x94",
            b"\x97", b"\x98", b"K" + bytes([size % 256]), b"J" + small, b"\x8a\x06" + struct.pack("<q", 10**13)[:6],
            b"\x8b" + small, b"X" + struct.pack("<I", len(text)) + text, b"X" + large + text, b"B" + large + text,
            b"\x8e" + struct.pack("<Q", size) + text, b"\x96" + struct.pack("<Q", 2**33) + text,
            b"\x8d" + struct.pack("<Q", 2**34),
            b"\x95" + struct.pack("<Q", 2**40), b"r" + large, b"q\0", b"q\1", b"h\0", b"h\1", b"j" + large,
            b"c" + name, b"c" + name,
            b"L" + b"9" * rng.choice([3, 5000, 10**5]) + b"L\n", b"I0x" + b"f" * rng.choice([3, 10**5]) + b"\n",
            b"p999999999\n", b"G" + b"\xff" * 8, b"\x82\1", b"i" + name, b"P0\n", b"U\5ab", b"C\3abc",
        ]  # fmt: skip
        parts.append(rng.choice(operations))
    return b"".join(parts) + b"."


def _call(name: str, *arguments: bytes) -> bytes:
    """Return the operations that call something."""
    return b"c" + name.replace(":", "\n").encode() + b"\n(" + b"".join(arguments) + b"tR"


def _text(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text)) + text.encode()


def _bomb(rng: random.Random, marker: str) -> tuple[bytes, str]:
    """Return a pickle that is to run a command or take memory, and what it is."""
    large = b"J" + struct.pack("<i", 2**31 - 1)
    huge = b"\x8a\x06" + struct.pack("<q", 10**13)[:6]
    many = rng.choice([1000, 10**5])
    storage = b"(" + _text("storage") + b"ctorch\nFloatStorage\n" + _text("0") + _text("cpu") + huge
    history = b"cmmengine.logging.history_buffer\nHistoryBuffer\n"
    axes = _call("numpy._core.multiarray:_reconstruct", b"cnumpy\nndarray\n", b"(K\0t", b"C\1b")
    lists = b"](" + b"K\1" * 1000 + b"eq\0](" + b"h\0" * 1000 + b"eq\1](" + b"h\1" * 1000 + b"eq\2"
    bombs = {
        "command": _call(rng.choice(["os:system", "posix:system", "subprocess:getoutput"]), _text(f"touch {marker}")),
        "code": _call("builtins:exec", _text(f"open({marker!r}, 'w')")),
        "getattr": _call(
            "builtins:getattr", _call("builtins:getattr", history, _text("__init__")), _text("__globals__")
        ),
        "memo of 9 bytes": b"Nr\xff\xff\xff\x3f",
        "bytes of 9 bytes": b"\x8e" + struct.pack("<Q", 2**33),
        "byte array": b"\x96" + struct.pack("<Q", 2**33),
        "called byte array": _call("__builtin__:bytearray", large),
        "array": _call("numpy:ndarray", b"(" + large + b"K\x04t"),
        "array of many axes": axes + b"(K\1(" + large * 100 + b"tNN" + _text("") + b"tb",
        "storage": storage + b"tQ",
        "storage and view": storage + b"NtQ",
        "meta tensor": _call(
            "torch._utils:_rebuild_meta_tensor_no_storage", b"ctorch\nfloat32\n", b"(" + huge + b"t", b"(K\1t", b"\x89"
        ),
        "tensor": _call("torch:Tensor", large),
        "parameter": _call("torch.nn.parameter:Parameter", large),
        "lists in lists": b"]" * many,
        "tuples in tuples": b")" + b"\x85" * many,
        "doubled tuples": b")" + b"2\x86" * 60 + b"q\0" + _call("builtins:set", b"h\0"),
        "doubled keys": b")" + b"2\x86" * 60 + b"q\0}h\0Ns",
        "copies of text": _text("x" * 10**5) + b"q\0" + _call("_codecs:encode", b"h\0", _text("latin1")) * 5000,
        "copies of lists": b"](" + b"N" * 10**4 + b"eq\0" + _call("torch:Size", b"h\0") * 2000,
        "lists of lists": lists + _call("mmengine.logging.history_buffer:HistoryBuffer", b"h\2", b"h\2"),
        "long number": b"\x8b" + struct.pack("<i", 2**31 - 1),
        "written number": b"L" + b"9" * 10**6 + b"L\n",
        "type of objects": _call("numpy:dtype", _text("O8"), b"\x89", b"\x88")
        + b"(K\3"
        + _text("|")
        + b"NNNK\0K\0K?tb",
        "counter": _call("collections:Counter", large),
        "rebuilt": _call(
            "torch._tensor:_rebuild_from_type_v2", b"c__builtin__\nset\n", b"ctorch\nTensor\n", b")", b"}"
        ),
    }
    which = rng.choice(list(bombs))
    return bombs[which], which


def damage_pickle(rng: random.Random, folder: Path, target: Path) -> tuple[Path, str]:
    """Write a hostile pickle: alone, in an archive as torch has it, or as torch had it before."""
    marker = str(folder / "ran")
    if rng.random() < 0.5:
        data, said = _random_pickle(rng, marker), "random operations"
    else:
        bomb, said = _bomb(rng, marker)
        data = b"\x80\x02}" + _text("state_dict") + bomb + b"s." if rng.random() < 0.5 else b"\x80\x02" + bomb + b"."
    place = rng.choice(["alone", "archive", "old"])
    path = target.with_suffix(".pkl" if place == "alone" else ".pth")
    if place == "archive":
        with zipfile.ZipFile(folder / "new.pth") as source, zipfile.ZipFile(path, "w") as packed:
            for member in source.infolist():
                packed.writestr(member.filename, data if member.filename.endswith("data.pkl") else source.read(member))
    elif place == "old":
        head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, dict(little_endian=True))]
        path.write_bytes(b"".join(head) + data + pickle.dumps(["0"], 2) + struct.pack("<q", 2**40) + bytes(64))
    else:
        path.write_bytes(data)
    return path, f"{said}, {place}"


# --- folders of Hugging Face's ---------------------------------------------------------------------------------------


def damage_folder(rng: random.Random, folder: Path, target: Path) -> tuple[Path, str]:
    """Damage a file of a folder of Hugging Face's, or let it name code."""
    shutil.copytree(folder / "hf", target)
    file = target / rng.choice(sorted(path.name for path in target.iterdir()))
    (target / "code.py").write_text(f"open({str(folder / 'ran')!r}, 'w')\nclass Model: pass\n")
    how = rng.choice(
        ["code", "changed", "changed", "changed", "cut", "flipped", "empty", "lost", "a list", "pickle", "deep"]
    )
    if how in ("code", "changed"):
        file = target / rng.choice(["config.json", "tokenizer_config.json", "tokenizer.json"])
        settings = json.loads(file.read_text())
        if how == "code":
            names = {
                "AutoConfig": "code.Model",
                "AutoModel": "code.Model",
                "AutoTokenizer": ["code.Model", "code.Model"],
            }
            settings["auto_map"] = names
            settings.update(
                rng.choice([{}, {"model_type": "mine"}, {"tokenizer_class": "Model"}, {"model_type": None}])
            )
            said = ""
        else:
            said = _change(rng, settings, str(folder / "ran"), shared=False)
            if rng.random() < 0.2:
                settings[
                    rng.choice(["vocab_file", "tokenizer_file", "num_hidden_layers", "hidden_act", "tokenizer_class"])
                ] = "/dev/zero"
        file.write_text(json.dumps(settings, default=str))
        return target, f"{how} {file.name} {said}"
    data = file.read_bytes()
    if how == "lost":
        file.unlink()
    elif how == "pickle":
        (target / "model.safetensors").unlink()
        (target / "pytorch_model.bin").write_bytes(b"\x80\x02" + _bomb(rng, str(folder / "ran"))[0] + b".")
    else:
        flipped = bytearray(data)
        flipped[rng.randrange(len(flipped))] ^= 1 << rng.randrange(8)
        file.write_bytes(
            {
                "cut": data[: rng.randrange(len(data))],
                "flipped": bytes(flipped),
                "empty": b"",
                "a list": b"[1]",
                "deep": b"[" * 10**5,
            }[how]
        )
    return target, f"{how} {file.name}"


def undamaged(rng: random.Random, folder: Path, target: Path) -> tuple[Path, str]:
    """Copy a sound file."""
    name = rng.choice(["new.pth", "old.pth", "weights.safetensors", "arrays_2.pkl", "arrays_4.pkl"])
    path = target.with_suffix(Path(name).suffix)
    os.link(folder / name, path)
    return path, name


WAYS: dict[str, tuple[int, Callable[[random.Random, Path, Path], tuple[Path, str]]]] = {
    "bytes": (5, damage_bytes),
    "archive": (2, damage_archive),
    "contents": (6, damage_contents),
    "state": (3, damage_state),
    "tensors": (4, damage_tensors),
    "pickle": (8, damage_pickle),
    "folder": (4, damage_folder),
    "sound": (1, undamaged),
}
"""How files are damaged, and how often."""
