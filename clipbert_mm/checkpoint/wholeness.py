"""Is a checkpoint whole, and which is the newest that is?"""

import os
from pathlib import Path
from typing import Any

from clipbert_mm.checkpoint.archives import check_whole, first_line, load_torch
from clipbert_mm.errors import CheckpointError

LAST = "last_checkpoint"
"""The file of a work folder that names the checkpoint written last, as MMEngine has it."""


def find_newest(work_dir: str | os.PathLike) -> tuple[str | None, list[str]]:
    """Find the checkpoint to go on from.

    It is the one that ``last_checkpoint`` names or, where that is not whole, the one furthest in training that is.

    Args:
        work_dir: Folder of a training.

    Returns:
        The file, None if there is none; and what was passed over, each with the reason.

    Raises:
        CheckpointError: If there are checkpoints, but none is whole.
    """
    pointer = Path(work_dir) / LAST
    last = Path(pointer.read_text().strip()) if pointer.is_file() else None
    if last is not None and not last.is_file():  # the folder was moved
        last = Path(work_dir) / last.name
    folders = dict.fromkeys(folder.resolve() for folder in (Path(work_dir), *([] if last is None else [last.parent])))
    found: list[tuple[tuple[bool, int, int], str]] = []
    passed_over = []
    for path in sorted(path for folder in folders for path in folder.glob("*.pth")):
        try:
            progress = _progress(path)
        except Exception as error:  # torch, pickle and zip each have errors of their own for a damaged file
            passed_over.append(f"{path} ({path.stat().st_size} bytes) is damaged: {first_line(error)}.")
            continue
        if progress is not None:
            found.append(((last is not None and path == last.resolve(), *progress), str(path)))
    for _, newest in sorted(found, reverse=True):
        try:
            check_whole(newest)
        except CheckpointError as error:
            passed_over.append(str(error))
            continue
        return newest, passed_over
    if passed_over:
        listed = "\n  ".join(passed_over)
        raise CheckpointError(
            f"None of the checkpoints in {os.path.abspath(work_dir)} is whole, so there is nothing to go on from:\n  {listed}\n"
            "Remove them to begin anew."
        )
    return None, []


def _progress(path: Path) -> tuple[int, int] | None:
    """Return epochs and iterations of a training's checkpoint; None if the file has no state of a training."""
    content: Any = load_torch(path)
    if not isinstance(content, dict) or "optimizer" not in content or "meta" not in content:
        return None
    return content["meta"]["epoch"], content["meta"]["iter"]
