"""Read checkpoint files of any library without running code from them."""

import hashlib
import json
import mmap as memory_map
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.checkpoint.archives import TORCH_MAGIC, ZIP_MAGIC, first_line, load_torch
from clipbert_mm.checkpoint.arrays import STAND_INS
from clipbert_mm.checkpoint.hub import NAME, commit_of, find_file
from clipbert_mm.checkpoint.pickles import BoundedUnpickler, Reader
from clipbert_mm.errors import CheckpointError, printable, quoted

INDEX = ".index.json"
"""How the name of a file ends that says which of several files has which tensor."""
HUGGING_FACE_FILES = (
    "model.safetensors",
    f"model.safetensors{INDEX}",
    "pytorch_model.bin",
    f"pytorch_model.bin{INDEX}",
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.bin",
)
"""The file of the weights in a folder of Hugging Face or of open_clip, or the index of several, in order of preference."""
SHARD = re.compile(r"[\w.-]*\w-\d+-of-\d+\.(safetensors|bin)")
"""Names of the files of weights that are in several."""
NESTED = ("state_dict", "model", "model_state_dict")
"""Keys of the tensors in a file with more entries (MMEngine and mmpretrain; detectron2; the paper's release)."""
EXPECTED = (
    "expected a file of torch.save, safetensors, or a pickle of arrays. It may have been cut short while it was written or "
    "copied."
)
"""The end of the error for any other file."""
ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""Parts that torch.compile, FSDP and activation checkpointing add to names, wherever a module was wrapped."""
PREFIXES = ("module", "model", "_forward_module", "ema_model", "ema", "shadow", "network", "net")
"""Prefixes that DataParallel, Lightning, DeepSpeed and weight averaging add to all names."""
MAX_NAME_LENGTH = 300
"""Most characters of a tensor's name."""
MAX_DEPTH = 100
"""Most nested containers."""
MAX_SETTINGS_BYTES = 2**20
"""Largest size of the config.json next to weights."""


def read_checkpoint(
    path_or_name: str, map_location: str | torch.device = "cpu", *, mmap: bool = True, revision: str | None = None
) -> dict[str, Any]:
    """Read a checkpoint: a file of torch.save (old or new), safetensors, a pickle of arrays, or a Hugging Face folder or name.

    No code from the file is run: torch's files are loaded weights-only, others with an unpickler that knows only arrays.

    Args:
        path_or_name: The file, folder, name on the Hugging Face hub, or an http(s) address, which is downloaded to torch.hub's
            folder.
        map_location: Device for the tensors of torch's files.
        mmap: Whether the tensors of a file stay on disk until they are read, which halves the memory that loading takes. They
            must not be kept then, since the file may be overwritten later.
        revision: Branch, tag or commit of a name on the hub; None for its main branch.

    Returns:
        The entries of the file, with its tensors by name under ``state_dict``.

    Raises:
        CheckpointError: If there is no such file, it is cut short or no checkpoint, or it asks for code to be run.
    """
    if "://" in path_or_name:
        try:
            return read_checkpoint(_download(path_or_name), map_location, mmap=mmap)
        except CheckpointError as error:
            raise CheckpointError(f"{path_or_name}: {error}") from error
    merged: dict[str, Any] = {}
    files = find_files(path_or_name, revision)
    for path in files:
        try:
            loaded = _read_file(path, map_location, mmap)
            check_values(loaded)
            content = _with_state_dict(loaded, path)
        except CheckpointError as error:
            named = printable(path) in str(error)
            raise error if named else CheckpointError(f"{_describe(path)} {error}") from error
        # torch, pickle, zip and safetensors each raise errors of their own for a damaged file
        except Exception as error:
            raise CheckpointError(f"{_describe(path)} {_reason(error)}") from error
        if not os.path.isfile(path_or_name):
            content |= _attention_heads(os.path.dirname(path))
        content["state_dict"] = {**merged.get("state_dict", {}), **content["state_dict"]}
        merged = content
    return merged


def _attention_heads(folder: str) -> dict[str, Any]:
    """Return the attention heads of a text encoder as the settings next to its weights say, which the weights do not."""
    for name, part, key in (
        ("config.json", "text_config", "num_attention_heads"),
        ("open_clip_config.json", "text_cfg", "heads"),
    ):
        if os.path.isfile(os.path.join(folder, name)):
            values = read_settings(os.path.join(folder, name))
            values = values["model_cfg"] if isinstance(values.get("model_cfg"), dict) else values
            text = values.get(part)  # of models of images and texts
            return dict(attention_heads=(text if isinstance(text, dict) else values).get(key))
    return {}


def read_settings(path: str) -> dict[str, Any]:
    """Read a JSON file of settings, such as a config.json.

    Raises:
        CheckpointError: If it is not one, or too large.
    """
    try:
        if os.path.getsize(path) > MAX_SETTINGS_BYTES:
            raise ValueError(f"it has {os.path.getsize(path):,} bytes")
        with open(path, encoding="utf-8") as file:
            settings = json.load(file)
        if not isinstance(settings, dict):
            raise ValueError(f"it is a {type(settings).__name__}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(path)} is damaged: expected a JSON object of settings of at most {MAX_SETTINGS_BYTES:,} bytes, got "
            f"{first_line(error)}. Take another copy."
        ) from error
    return settings


def _download(address: str) -> str:
    """Return the file of an address, which is downloaded the first time."""
    if not address.startswith(("http://", "https://")):
        raise CheckpointError("expected a file, a folder, a Hugging Face name, or an http(s) address.")
    name = f"{hashlib.sha256(address.encode()).hexdigest()[:8]}-{os.path.basename(urlparse(address).path)}"
    path = os.path.join(torch.hub.get_dir(), "checkpoints", name)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, path)  # under another name until it is complete
        except OSError as error:
            raise CheckpointError(
                f"it cannot be downloaded: {error}. Download it yourself and give the file."
            ) from error
    return path


def find_files(path_or_name: str, revision: str | None) -> list[str]:
    """Return the files of a checkpoint: one, except for large models of Hugging Face, which have several.

    Raises:
        CheckpointError: If there are none, or not all.
    """
    if os.path.isfile(path_or_name):
        return [path_or_name]
    if os.path.isdir(path_or_name):
        there = [name for name in HUGGING_FACE_FILES if os.path.isfile(os.path.join(path_or_name, name))]
        if there:
            return _files_of(os.path.join(path_or_name, there[0]), path_or_name, None)
        shards = sorted(filter(SHARD.fullmatch, os.listdir(path_or_name)))
        if shards:
            return [os.path.join(path_or_name, name) for name in shards]
        raise CheckpointError(
            f"The folder {path_or_name} has no checkpoint: expected {' or '.join(HUGGING_FACE_FILES)}."
        )
    missing = f"There is no checkpoint {os.path.abspath(path_or_name)}"
    if not NAME.fullmatch(path_or_name) or re.search(r"\.(pth?|pkl|bin|safetensors)$", path_or_name):
        raise CheckpointError(f"{missing}. Check the path, or run the training that writes it first.")
    try:
        path = find_file(path_or_name, *HUGGING_FACE_FILES, revision=revision)
    except CheckpointError as error:
        raise CheckpointError(f"{missing}, and none named '{path_or_name}' on Hugging Face: {error}") from error
    return _files_of(path, path_or_name, commit_of(path) or revision)


def _files_of(path: str, path_or_name: str, revision: str | None) -> list[str]:
    """Return a file of weights, or all those that an index names, which are downloaded if they are on the hub.

    Raises:
        CheckpointError: If the index names something else than files next to it, or one of them is not there.
    """
    if not path.endswith(INDEX):
        return [path]
    shards = read_settings(path).get("weight_map")
    names = (
        set(shards.values()) if isinstance(shards, dict) and all(isinstance(n, str) for n in shards.values()) else set()
    )
    strange = [name for name in names if not SHARD.fullmatch(name)]
    if strange or not names:
        raise CheckpointError(
            f"{printable(path)} is damaged: expected the names of files next to it as its weight_map, such as "
            f"model-00001-of-00002.safetensors, got {quoted(strange[0] if strange else shards)}. Take another copy."
        )
    return [find_file(path_or_name, name, revision=revision) for name in sorted(names)]


def _read_file(path: str, map_location: str | torch.device, mmap: bool) -> object:
    with open(path, "rb") as file:
        head = file.read(len(TORCH_MAGIC))
        if head.startswith(ZIP_MAGIC) or head == TORCH_MAGIC:
            return load_torch(path, map_location, mmap=mmap)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= os.path.getsize(path):
            from safetensors.torch import load_file

            return load_file(path, device=str(map_location))
        try:
            with memory_map.mmap(file.fileno(), 0, access=memory_map.ACCESS_READ) as content:
                reader = Reader(content)
                try:
                    return _ArrayUnpickler(reader).load()
                finally:
                    reader.data.release()
        except Exception as error:
            if head[:1] == b"\x80" or _requested_name(error):  # otherwise it may be any file
                raise
    raise CheckpointError(f"{_describe(path)} is not a checkpoint: {EXPECTED}")


def _latin1(text: str, encoding: str) -> bytes:
    """Replace ``_codecs.encode``, with which Python 3 writes bytes in Python 2's protocol."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes in the encoding {encoding!r}, expected latin1")
    return text.encode("latin1")


class _ArrayUnpickler(BoundedUnpickler):
    """Unpickle numpy arrays in plain containers, as in detectron2's ``.pkl`` files; everything else is refused."""

    names: ClassVar[dict[str, Any]] = {
        **STAND_INS,
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": _latin1,
    }


def check_values(content: object) -> None:
    """Check that the containers of a checkpoint are not nested too deeply, and that its tensors are stored completely.

    Raises:
        CheckpointError: If they are not.
    """
    todo: list[tuple[object, int]] = [(content, 0)]
    seen = set()
    while todo:
        value, depth = todo.pop()
        if isinstance(value, Tensor):
            if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_nested:
                raise CheckpointError("is refused: it has tensors that are not dense. Save dense tensors.")
            stored = value.untyped_storage().nbytes()
            if value.numel() * value.itemsize > stored:
                raise CheckpointError(
                    f"is refused: a tensor of shape {tuple(value.shape[:8])} has only {stored:,} bytes. Save a contiguous copy "
                    "instead of an expanded tensor."
                )
        elif isinstance(value, (Mapping, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            if depth > MAX_DEPTH:
                raise CheckpointError(f"is refused: more than {MAX_DEPTH} containers are nested.")
            inner: Iterable[object] = value.values() if isinstance(value, Mapping) else value
            todo.extend((each, depth + 1) for each in inner)


def _with_state_dict(content: object, path: str) -> dict[str, Any]:
    """Put the tensors under ``state_dict``, with arrays as tensors and without the prefixes of wrappers."""
    values: Any = content
    rest: dict[str, Any] = {}
    if isinstance(content, Mapping):
        nested = next((name for name in NESTED if isinstance(content.get(name), Mapping)), None)
        if nested is not None:
            values, rest = content[nested], {key: value for key, value in content.items() if key != nested}
    tensors: dict[str, Tensor] = {}
    if isinstance(values, Mapping):
        for name, value in values.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
                value = torch.from_numpy(value)
            if isinstance(value, Tensor):
                tensors[str(name)] = value
    if not tensors:
        raise CheckpointError(
            f"{_describe(path)} is not a checkpoint: expected tensors by name, got a {type(content).__name__} without tensors."
        )
    return {**rest, "state_dict": without_wrappers(tensors, path)}


def without_wrappers(tensors: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Remove all parts that wrappers of a model add to the names of its tensors.

    Raises:
        CheckpointError: If a name is not valid, or two tensors have the same name then: the file has several models.

    >>> list(without_wrappers({"_orig_mod.module.model.a.weight": torch.ones(1)}, "a.pth"))
    ['a.weight']
    """
    first: dict[str, str] = {}
    for name in tensors:
        if len(name) > MAX_NAME_LENGTH or not name.isprintable():
            raise CheckpointError(f"{_describe(path)} is damaged: it has a tensor named {quoted(name)}.")
        parts = [part for part in name.split(".") if part not in ANYWHERE]
        while len(parts) > 1 and parts[0] in PREFIXES:
            parts = parts[1:]
        bare = ".".join(parts)
        if bare in first:
            raise CheckpointError(
                f"{_describe(path)} has two models: both {quoted(first[bare])} and {quoted(name)} are the tensor "
                f"{quoted(bare)}. Save only one of them."
            )
        first[bare] = name
    return {bare: tensors[name] for bare, name in first.items()}


def _describe(path: str) -> str:
    """Return the path and size of a file, for errors."""
    return printable(path) + (f" ({os.path.getsize(path)} bytes)" if os.path.isfile(path) else "")


def _requested_name(error: Exception) -> str | None:
    """Return the function or class that a file asked for and that was refused; None for another error."""
    match = re.search(r"(?:GLOBAL |(?=ARRAY of))([\w.]+(?: of \w+)?)", str(error))
    return None if match is None else match[1]


def _reason(error: Exception) -> str:
    """Return why a file cannot be read."""
    name = _requested_name(error)
    if name is not None:
        return (
            f"is refused: it asks for {name}, which is neither a tensor nor a plain value, and code from a checkpoint is "
            "never run. Save only the weights with the library that wrote it, or use a file from a source that you trust."
        )
    return f"cannot be read as a checkpoint ({first_line(error)}): {EXPECTED}"
