"""Fingerprints of what results were computed from, so that results of different runs are never mixed in one folder."""

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import nn

from clipbert_mm.errors import VideoIndexError, quoted
from clipbert_mm.fileio import scratch

MANIFEST = "manifest.json"


class ResultsMismatchError(VideoIndexError):
    """Results on disk were computed from something else."""


def digest(content: Any) -> str:  # noqa: ANN401
    """Return a short digest of a value: of its JSON, with ``repr`` of what JSON cannot hold."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def digest_weights(model: nn.Module) -> str:
    """Return a short digest of a model's state dict."""
    weights = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        weights.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        weights.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return weights.hexdigest()[:16]


def digest_files(paths: list[str]) -> str:
    """Return a short digest of files: of path, size and modification time; of remote ones the URL alone."""
    facts = []
    for path in paths:
        status = os.stat(path) if os.path.exists(path) else None
        facts.append((path, None if status is None else (status.st_size, status.st_mtime_ns)))
    return digest(facts)


def reserve(folder: str | os.PathLike, fingerprint: dict[str, str]) -> bool:
    """Write into a folder what its results are computed from, or check that it is the same as what is written there.

    Args:
        folder: The folder of the results.
        fingerprint: Digests of what they are computed from, by name, such as ``{"weights": "3f..."}``.

    Returns:
        Whether the folder was reserved before.

    Raises:
        ResultsMismatchError: If its results are computed from something else; names what differs.
        VideoIndexError: If the manifest is damaged.
    """
    manifest = Path(folder) / MANIFEST
    Path(folder).mkdir(parents=True, exist_ok=True)
    if not manifest.exists():
        with scratch(folder, folder=False) as part, suppress(FileExistsError):
            with open(part, "w", encoding="utf-8") as file:
                json.dump(fingerprint, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, manifest)  # succeeds in one of several processes that start at once
            except FileExistsError:
                raise
            except OSError:  # the file system has no hard links
                os.replace(part, manifest)
            return False
    try:
        stored = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VideoIndexError(f"{manifest} is damaged: {error}. Delete the folder {folder} to start again.") from error
    if not isinstance(stored, dict):
        raise VideoIndexError(
            f"{manifest} is damaged: expected a JSON object, got {quoted(stored)}. Delete the folder {folder} to start again."
        )
    changed = [
        f"{name} was {stored.get(name)}, is {fingerprint.get(name)}"
        for name in {**fingerprint, **stored}
        if stored.get(name) != fingerprint.get(name)
    ]
    if changed:
        raise ResultsMismatchError(
            f"{folder} holds results of an unfinished run with other settings: {'; '.join(changed)}. Resume that run, delete "
            "the folder, or choose another work_dir."
        )
    return True
