"""Is a checkpoint whole, and which is the newest that is?"""

import os
from pathlib import Path
from typing import Any

from clipbert_mm.checkpoint.archives import first_line, load_torch, verify_checkpoint
from clipbert_mm.errors import CheckpointError, quoted

LAST = "last_checkpoint"
"""The file of a work folder that names the checkpoint written last, as MMEngine has it."""


def find_latest(*folders: str | os.PathLike) -> tuple[str | None, list[str]]:
    """Find the checkpoint to go on from, in the folders of a training alone.

    It is the one that ``last_checkpoint`` names or, where that is not there or not whole, the one furthest in training that is.

    Args:
        folders: The work folder of a training and, if its checkpoints are in another one, that too.

    Returns:
        The file, None if there is none; and what was passed over, each with the reason.

    Raises:
        CheckpointError: If something says that there was a checkpoint, but none is whole.
    """
    last, passed_over = _last_name(Path(folders[0]))
    found: list[tuple[tuple[bool, int, int], str]] = []
    is_known = last is None
    for path in sorted(
        path for folder in folders for path in Path(folder).resolve().glob("*.pth") if not path.is_dir()
    ):
        try:
            progress = _progress(path)
        except Exception as error:  # torch, pickle and zip each have errors of their own for a damaged file
            size = f"{path.stat().st_size} bytes" if path.exists() else "a link to nothing"
            passed_over.append(f"{path} ({size}) is damaged: {first_line(error)}.")
            is_known |= path.name == last
            continue
        if progress is not None:
            found.append(((path.name == last, *progress), str(path)))
            is_known |= path.name == last
    if not is_known:
        passed_over.insert(0, f"{Path(folders[0]) / LAST} names {quoted(last)}, which cannot be gone on from here.")
    for _, newest in sorted(found, reverse=True):
        try:
            verify_checkpoint(newest)
        except CheckpointError as error:
            passed_over.append(str(error))
            continue
        return newest, passed_over
    if passed_over:
        listed = "\n  ".join(passed_over)
        raise CheckpointError(
            f"None of the checkpoints in {os.path.abspath(folders[0])} is whole, so there is nothing to go on from:\n  "
            f"{listed}\nRemove them to begin anew."
        )
    return None, []


def _last_name(folder: Path) -> tuple[str | None, list[str]]:
    """Return the name that ``last_checkpoint`` has, without the folders that older releases and MMEngine put before it.

    Returns:
        The name, None if there is none; and what is wrong with the file.
    """
    pointer = folder / LAST
    try:
        text = pointer.read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None, []
    except (OSError, UnicodeDecodeError) as error:
        return None, [f"{pointer} is damaged: {first_line(error)}."]
    name = os.path.basename(text)
    return (name, []) if name.isprintable() and name else (None, [f"{pointer} is damaged: it names {quoted(text)}."])


def _progress(path: Path) -> tuple[int, int] | None:
    """Return epochs and iterations of a training's checkpoint; None if the file has no state of a training."""
    content: Any = load_torch(path)
    if not isinstance(content, dict) or "optimizer" not in content or "meta" not in content:
        return None
    meta = content["meta"] if isinstance(content["meta"], dict) else {}
    epoch, iteration = meta.get("epoch"), meta.get("iter")
    if not isinstance(epoch, int) or not isinstance(iteration, int):
        raise CheckpointError(f"it says to be of epoch {quoted(epoch, 20)}, iteration {quoted(iteration, 20)}")
    return epoch, iteration
