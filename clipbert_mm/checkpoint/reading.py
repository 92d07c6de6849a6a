"""Opening checkpoint files of any library without running code from them."""

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
from clipbert_mm.checkpoint.pickles import BoundedUnpickler, Reader
from clipbert_mm.errors import CheckpointError, printable, quoted

HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")
"""The weights in a Hugging Face folder, the first that is there."""
NESTED = ("state_dict", "model", "model_state_dict")
"""Keys under which the tensors lie in a file that holds more (MMEngine and mmpretrain; detectron2; the paper's release)."""
EXPECTED = (
    "expected a file of torch.save, safetensors, or a pickle of arrays. It may have been cut short while it was written or "
    "copied."
)
"""What is said of a file that is something else."""
ANYWHERE = ("_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
"""What torch.compile, FSDP and activation checkpointing put into names, wherever a module was wrapped."""
IN_FRONT = ("module", "model", "_forward_module", "ema_model", "ema", "shadow", "network", "net")
"""What DataParallel, Lightning, DeepSpeed and the usual averages put before all names."""
LONGEST_NAME = 300
"""Letters of the name of a tensor."""
DEEPEST = 100
"""Most containers within one another."""
LARGEST_SETTINGS = 2**20
"""Bytes of the config.json beside weights."""


def read_checkpoint(
    path_or_name: str, map_location: str | torch.device = "cpu", *, mmap: bool = True
) -> dict[str, Any]:
    """Read a checkpoint: a file of torch.save (old or new), safetensors, a pickle of arrays, or a Hugging Face folder or name.

    Nothing in the file is run: torch's files are loaded weights-only, others with an unpickler that knows arrays alone.

    Args:
        path_or_name: The file, folder, name on the Hugging Face hub, or an http(s) address, whose file is kept in torch.hub's
            folder.
        map_location: Device for the tensors of torch's files.
        mmap: Whether the tensors of a file may stay on disk until they are read, which halves the memory that loading takes.
            They must not be kept then, since the file may be overwritten later.

    Returns:
        What the file holds, its tensors by name under ``state_dict``.

    Raises:
        CheckpointError: If there is no such file, it is cut short or something else, or it asks for code to be run.
    """
    if "://" in path_or_name:
        try:
            return read_checkpoint(_fetch(path_or_name), map_location, mmap=mmap)
        except CheckpointError as error:
            raise CheckpointError(f"{path_or_name}: {error}") from error
    merged: dict[str, Any] = {}
    files = _find_files(path_or_name)
    for path in files:
        try:
            loaded = _read_file(path, map_location, mmap)
            check_values(loaded)
            content = _with_state_dict(loaded, path)
        except CheckpointError as error:
            named = printable(path) in str(error)
            raise error if named else CheckpointError(f"{_name(path)} {error}") from error
        # torch, pickle, zip and safetensors each have errors of their own for a damaged file
        except Exception as error:
            raise CheckpointError(f"{_name(path)} {_reason(error)}") from error
        settings = os.path.join(os.path.dirname(path), "config.json")  # beside the weights of a Hugging Face model
        if not os.path.isfile(path_or_name) and os.path.isfile(settings):
            content["attention_heads"] = read_settings(settings).get("num_attention_heads")
        content["state_dict"] = {**merged.get("state_dict", {}), **content["state_dict"]}
        merged = content
    return merged


def read_settings(path: str) -> dict[str, Any]:
    """Read a JSON file of settings, such as a config.json.

    Raises:
        CheckpointError: If it is not one, or too large to be one.
    """
    try:
        if os.path.getsize(path) > LARGEST_SETTINGS:
            raise ValueError(f"it has {os.path.getsize(path):,} bytes")
        with open(path, encoding="utf-8") as file:
            found = json.load(file)
        if not isinstance(found, dict):
            raise ValueError(f"it is a {type(found).__name__}")
    except (ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{printable(path)} is damaged: expected a JSON object of settings of at most {LARGEST_SETTINGS:,} bytes, got "
            f"{first_line(error)}. Take another copy."
        ) from error
    return found


def _fetch(address: str) -> str:
    """Return the file of an address, fetched the first time."""
    if not address.startswith(("http://", "https://")):
        raise CheckpointError("expected a file, a folder, a Hugging Face name, or an http(s) address.")
    name = f"{hashlib.sha256(address.encode()).hexdigest()[:8]}-{os.path.basename(urlparse(address).path)}"
    path = os.path.join(torch.hub.get_dir(), "checkpoints", name)
    if not os.path.exists(path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        try:
            torch.hub.download_url_to_file(address, path)  # under another name until it is whole
        except OSError as error:
            raise CheckpointError(f"it cannot be fetched: {error}. Fetch it by hand and give the file.") from error
    return path


def _find_files(path_or_name: str) -> list[str]:
    """Find the files of a checkpoint: one, but for large models on the Hugging Face hub."""
    if os.path.isfile(path_or_name):
        return [path_or_name]
    if os.path.isdir(path_or_name):
        for name in HUGGING_FACE_FILES:
            if os.path.isfile(os.path.join(path_or_name, name)):
                return [os.path.join(path_or_name, name)]
        shards = sorted(
            name for name in os.listdir(path_or_name) if re.search(r"-\d+-of-\d+\.(safetensors|bin)$", name)
        )
        if shards:
            return [os.path.join(path_or_name, name) for name in shards]
        raise CheckpointError(
            f"The folder {path_or_name} holds no checkpoint: expected {' or '.join(HUGGING_FACE_FILES)}."
        )
    missing = f"There is no checkpoint {os.path.abspath(path_or_name)}"
    if not re.fullmatch(r"[\w-][\w.-]*(/[\w.-]+)?", path_or_name) or re.search(
        r"\.(pth?|pkl|bin|safetensors)$", path_or_name
    ):
        raise CheckpointError(f"{missing}. Name another file, or train what writes it first.")
    from transformers.utils import cached_file

    for name in HUGGING_FACE_FILES:
        try:
            return [cached_file(path_or_name, name)]
        except OSError as error:
            reason = str(error).strip().splitlines()[0]
    raise CheckpointError(f"{missing}, and Hugging Face gave none of the name '{path_or_name}': {reason}")


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
            if head[:1] == b"\x80" or _refused(error):  # else it may be anything
                raise
    raise CheckpointError(f"{_name(path)} is no checkpoint: {EXPECTED}")


def _latin1(text: str, encoding: str) -> bytes:
    """Stand for ``_codecs.encode``, by which Python 3 writes bytes in Python 2's protocol."""
    if encoding != "latin1":
        raise pickle.UnpicklingError("bytes in another encoding than latin1")
    return text.encode("latin1")


class _ArrayUnpickler(BoundedUnpickler):
    """Unpickles numpy arrays in plain containers, as detectron2's ``.pkl`` files are, and refuses all else."""

    names: ClassVar[dict[str, Any]] = {
        **STAND_INS,
        "collections.OrderedDict": OrderedDict,
        "_codecs.encode": _latin1,
    }


def check_values(content: object) -> None:
    """See that what a file held can be gone through and taken for what it says.

    Raises:
        CheckpointError: If containers lie too deep in one another, or a tensor is larger than what is stored of it.
    """
    todo: list[tuple[object, int]] = [(content, 0)]
    seen = set()
    while todo:
        value, depth = todo.pop()
        if isinstance(value, Tensor):
            if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_nested:
                raise CheckpointError("is refused: it holds tensors that are not dense. Save dense ones.")
            stored = value.untyped_storage().nbytes()
            if value.numel() * value.itemsize > stored:
                raise CheckpointError(
                    f"is refused: a tensor of shape {tuple(value.shape[:8])} has {stored:,} bytes stored. Save it as it is, "
                    "not expanded."
                )
        elif isinstance(value, (Mapping, list, tuple, set)) and id(value) not in seen:
            seen.add(id(value))
            if depth > DEEPEST:
                raise CheckpointError(f"is refused: more than {DEEPEST} containers lie in one another.")
            inner: Iterable[object] = value.values() if isinstance(value, Mapping) else value
            todo.extend((each, depth + 1) for each in inner)


def _with_state_dict(content: object, path: str) -> dict[str, Any]:
    """Put the tensors under ``state_dict``, with arrays as tensors and without the prefix of a wrapper."""
    found: Any = content
    rest: dict[str, Any] = {}
    if isinstance(content, Mapping):
        nested = next((name for name in NESTED if isinstance(content.get(name), Mapping)), None)
        if nested is not None:
            found, rest = content[nested], {key: value for key, value in content.items() if key != nested}
    tensors: dict[str, Tensor] = {}
    if isinstance(found, Mapping):
        for name, value in found.items():
            if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
                value = torch.from_numpy(value)
            if isinstance(value, Tensor):
                tensors[str(name)] = value
    if not tensors:
        kind = type(content).__name__
        raise CheckpointError(f"{_name(path)} is no checkpoint: expected tensors by name, got a {kind} without any.")
    return {**rest, "state_dict": without_wrappers(tensors, path)}


def without_wrappers(tensors: Mapping[str, Tensor], path: str) -> dict[str, Tensor]:
    """Take what wrappers of a model put into the names of its tensors off them, in any order and as often as it is there.

    Raises:
        CheckpointError: If two tensors have the same name then: the file holds several models; or a name is none.

    >>> list(without_wrappers({"_orig_mod.module.model.a.weight": torch.ones(1)}, "a.pth"))
    ['a.weight']
    """
    first: dict[str, str] = {}
    for name in tensors:
        if len(name) > LONGEST_NAME or not name.isprintable():
            raise CheckpointError(f"{_name(path)} is damaged: it holds a tensor of the name {quoted(name)}.")
        parts = [part for part in name.split(".") if part not in ANYWHERE]
        while len(parts) > 1 and parts[0] in IN_FRONT:
            parts = parts[1:]
        bare = ".".join(parts)
        if bare in first:
            raise CheckpointError(
                f"{_name(path)} holds two models: both {quoted(first[bare])} and {quoted(name)} are a tensor {quoted(bare)}. "
                "Save one of them alone."
            )
        first[bare] = name
    return {bare: tensors[name] for bare, name in first.items()}


def _name(path: str) -> str:
    return printable(path) + (f" ({os.path.getsize(path)} bytes)" if os.path.isfile(path) else "")


def _refused(error: Exception) -> str | None:
    """Return what a file asked for and was not given; None if that is not what failed."""
    asked = re.search(r"(?:GLOBAL |(?=ARRAY of))([\w.]+(?: of \w+)?)", str(error))
    return None if asked is None else asked[1]


def _reason(error: Exception) -> str:
    """Say why a file could not be read."""
    asked = _refused(error)
    if asked is not None:
        return (
            f"is refused: it asks for {asked}, which is neither a tensor nor a plain value, and code from a checkpoint is "
            "never run. Save the weights alone with the library that wrote it, or take them from a source you trust."
        )
    return f"cannot be read as a checkpoint ({first_line(error)}): {EXPECTED}"
