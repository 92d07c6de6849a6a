"""What a folder of results was made with, so that nothing else is ever mixed with it."""

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
    """Results on disk that were made with something else."""


def digest(content: Any) -> str:  # noqa: ANN401
    """Return a short digest of what JSON can hold, or what Python can print."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=repr).encode()).hexdigest()[:16]


def digest_weights(model: nn.Module) -> str:
    """Return a short digest of all that a model's checkpoint would hold."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        found.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()[:16]


def digest_files(paths: list[str]) -> str:
    """Return a short digest of files by path, size and time of change; of addresses by themselves."""
    facts = []
    for path in paths:
        status = os.stat(path) if os.path.exists(path) else None
        facts.append((path, None if status is None else (status.st_size, status.st_mtime_ns)))
    return digest(facts)


def claim(folder: str | os.PathLike, identity: dict[str, str]) -> bool:
    """Note in a folder what its results are made with, or see that it is the same.

    Args:
        folder: The folder of the results.
        identity: What they are made with, by name, such as ``{"weights": "3f..."}``.

    Returns:
        Whether results were there already.

    Raises:
        ResultsMismatchError: If the folder's are made with something else, with what differs.
        VideoIndexError: If the note is damaged.
    """
    manifest = Path(folder) / MANIFEST
    Path(folder).mkdir(parents=True, exist_ok=True)
    if not manifest.exists():
        with scratch(folder, folder=False) as part, suppress(FileExistsError):
            with open(part, "w", encoding="utf-8") as file:
                json.dump(identity, file, indent=2)
                file.flush()
                os.fsync(file.fileno())
            try:
                os.link(part, manifest)  # of several processes that begin at once, one
            except FileExistsError:
                raise
            except OSError:  # a file system without hard links
                os.replace(part, manifest)
            return False
    try:
        found = json.loads(manifest.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VideoIndexError(
            f"{manifest} is damaged: {error}. Remove the folder, and it will be made anew."
        ) from error
    if not isinstance(found, dict):
        raise VideoIndexError(
            f"{manifest} is damaged: it is {quoted(found)}. Remove the folder, and it will be made anew."
        )
    others = [
        f"{name} {found.get(name)} (now {identity.get(name)})"
        for name in {**identity, **found}
        if found.get(name) != identity.get(name)
    ]
    if others:
        raise ResultsMismatchError(
            f"{folder} holds the results of a run that was not finished, with other {', other '.join(others)}. They cannot be "
            "continued with these. Finish that run, or remove the folder, or choose another work folder."
        )
    return True
