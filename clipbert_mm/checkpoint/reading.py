"""Opening checkpoint files of any library without running code from them."""

import hashlib
import json
import os
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from typing import IO, Any
from urllib.parse import urlparse

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.checkpoint.arrays import STAND_INS
from clipbert_mm.checkpoint.wholeness import check_whole
from clipbert_mm.errors import CheckpointError

HUGGING_FACE_FILES = ("model.safetensors", "pytorch_model.bin")
"""The weights in a Hugging Face folder, the first that is there."""
NESTED = ("state_dict", "model", "model_state_dict")
"""Keys under which the tensors lie in a file that holds more (MMEngine and mmpretrain; detectron2; the paper's release)."""
EXPECTED = (
    "expected a file of torch.save, safetensors, or a pickle of arrays. It may have been cut short while it was written or "
    "copied."
)
"""What is said of a file that is something else."""
TORCH_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""How torch.save began before its files were zip archives (torch 1.5 and older)."""


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
            content = _with_state_dict(_read_file(path, map_location, mmap), path)
        except CheckpointError:
            raise
        # torch, pickle, zip and safetensors each have errors of their own for a damaged file
        except Exception as error:
            raise CheckpointError(f"{_name(path)} {_reason(error)}") from error
        settings = os.path.join(os.path.dirname(path), "config.json")  # beside the weights of a Hugging Face model
        if not os.path.isfile(path_or_name) and os.path.isfile(settings):
            with open(settings, encoding="utf-8") as file:
                content["attention_heads"] = json.load(file).get("num_attention_heads")
        content["state_dict"] = {**merged.get("state_dict", {}), **content["state_dict"]}
        merged = content
    return merged


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
        file.seek(0)
        if zipfile.is_zipfile(path):
            check_whole(path)
            return torch.load(path, map_location=map_location, weights_only=True, mmap=mmap)
        if head == TORCH_MAGIC:
            return torch.load(path, map_location=map_location, weights_only=True)
        if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= os.path.getsize(path):
            from safetensors.torch import load_file

            return load_file(path, device=str(map_location))
        try:
            return _ArrayUnpickler(file).load()
        except Exception as error:
            if head[:1] == b"\x80" or _refused(error):  # else it may be anything
                raise
    raise CheckpointError(f"{_name(path)} is no checkpoint: {EXPECTED}")


class _ArrayUnpickler(pickle.Unpickler):
    """Unpickles numpy arrays in plain containers, as detectron2's ``.pkl`` files are, and refuses all else."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file, encoding="latin1")  # bytes of Python 2

    def find_class(self, module: str, name: str) -> Any:  # noqa: ANN401
        """Give what an array is made of."""
        if (module, name) == ("_codecs", "encode"):  # how Python 3 writes bytes in Python 2's protocol
            return _latin1
        found = STAND_INS.get(
            f"{module}.{name}", OrderedDict if (module, name) == ("collections", "OrderedDict") else None
        )
        if found is None:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name}")
        return found


def _latin1(text: str, encoding: str) -> bytes:
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes as {encoding}")
    return text.encode("latin1")


def _with_state_dict(content: object, path: str) -> dict[str, Any]:
    """Put the tensors under ``state_dict``, with arrays as tensors and without the prefix of a wrapper."""
    found: Any = content
    rest: dict[str, Any] = {}
    if isinstance(content, Mapping):
        nested = next((name for name in NESTED if isinstance(content.get(name), Mapping)), None)
        if nested is not None:
            found, rest = content[nested], {key: value for key, value in content.items() if key != nested}
    tensors = {}
    for name, value in found.items() if isinstance(found, Mapping) else ():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
            value = torch.from_numpy(value)
        if isinstance(value, Tensor):
            tensors[str(name).removeprefix("module.")] = value
    if not tensors:
        kind = type(content).__name__
        raise CheckpointError(f"{_name(path)} is no checkpoint: expected tensors by name, got a {kind} without any.")
    return {**rest, "state_dict": tensors}


def _name(path: str) -> str:
    return f"{path} ({os.path.getsize(path)} bytes)" if os.path.isfile(path) else path


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
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return f"cannot be read as a checkpoint ({first}): {EXPECTED}"
