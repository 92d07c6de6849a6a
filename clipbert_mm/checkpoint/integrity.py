"""Find the latest checkpoint of a training that is complete."""

import os
from pathlib import Path
from typing import Any

from clipbert_mm.checkpoint.archives import first_line, load_torch, verify_checkpoint
from clipbert_mm.errors import CheckpointError, quoted

FINISHED = "finished"
"""The file in a work folder that names the last checkpoint of a training that has done all its epochs."""
LAST = "last_checkpoint"
"""The file in a work folder that names the checkpoint written last, as in MMEngine."""


def find_latest(*folders: str | os.PathLike) -> tuple[str | None, list[str]]:
    """Find the checkpoint to resume from, in the folders of one training.

    It is the one that ``last_checkpoint`` names or, if that is missing or damaged, the one furthest in training.

    Args:
        folders: The work folder of a training and, if its checkpoints are in another folder, that one too.

    Returns:
        The file, None if there is none; and the files that were skipped, each with the reason.

    Raises:
        CheckpointError: If there are checkpoints, but all of them are damaged.
    """
    last, skipped = _last_name(Path(folders[0]))
    candidates: list[tuple[tuple[bool, int, int], str]] = []
    is_known = last is None
    for path in sorted(
        path for folder in folders for path in Path(folder).resolve().glob("*.pth") if not path.is_dir()
    ):
        try:
            progress = _progress(path)
        except Exception as error:  # torch, pickle and zip each have errors of their own for a damaged file
            size = f"{path.stat().st_size} bytes" if path.exists() else "a broken link"
            is_ours = isinstance(error, CheckpointError)  # those name the file
            skipped.append(str(error) if is_ours else f"{path} ({size}) is damaged: {first_line(error)}.")
            is_known |= path.name == last
            continue
        if progress is not None:
            candidates.append(((path.name == last, *progress), str(path)))
            is_known |= path.name == last
    if not is_known:
        skipped.insert(0, f"{Path(folders[0]) / LAST} names {quoted(last)}, which is not there or cannot be resumed.")
    for _, latest in sorted(candidates, reverse=True):
        try:
            verify_checkpoint(latest)
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        return latest, skipped
    if skipped:
        listed = "\n  ".join(skipped)
        raise CheckpointError(
            f"All checkpoints in {os.path.abspath(folders[0])} are damaged, so the training cannot be resumed:\n  "
            f"{listed}\nRemove them to start from the beginning."
        )
    return None, []


def find_selected(path: str) -> str:
    """Find the checkpoint that stands for a training in its work folder.

    It is the one that validation selected (``save_best``), or the last one of a training that finished without selecting any.

    Args:
        path: A work folder. Anything else, such as a checkpoint or a folder of Hugging Face, is returned as it is.

    Returns:
        The path of the checkpoint.

    Raises:
        CheckpointError: If the folder has checkpoints, but several were selected, or none and the training has not finished.
    """
    checkpoints = sorted(file.name for file in Path(path).glob("*.pth")) if os.path.isdir(path) else []
    if not checkpoints:
        return path
    selected = [name for name in checkpoints if name.startswith("best_")]
    if len(selected) == 1:
        return os.path.join(path, selected[0])
    finished = Path(path) / FINISHED
    if not selected and finished.is_file() and (name := os.fsdecode(finished.read_bytes())) in checkpoints:
        return os.path.join(path, name)
    what = (
        f"{len(selected)} checkpoints that validation selected"
        if selected
        else "no checkpoint that validation selected"
    )
    last, _ = _last_name(Path(path))
    others = selected or [last if last in checkpoints else checkpoints[-1]]
    raise CheckpointError(f"{path} has {what}. Name the file: {' or '.join(os.path.join(path, n) for n in others)}.")


def _last_name(folder: Path) -> tuple[str | None, list[str]]:
    """Return the file name in ``last_checkpoint``, without the folders that older releases and MMEngine put before it.

    Returns:
        The name, None if there is none; and what is wrong with ``last_checkpoint``.
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
    """Return epochs and iterations of a checkpoint; None if it has no training state."""
    content: Any = load_torch(path)
    if not isinstance(content, dict) or "optimizer" not in content or "meta" not in content:
        return None
    meta = content["meta"] if isinstance(content["meta"], dict) else {}
    epoch, iteration = meta.get("epoch"), meta.get("iter")
    if not isinstance(epoch, int) or not isinstance(iteration, int):
        raise ValueError(f"it names epoch {quoted(epoch, 20)} and iteration {quoted(iteration, 20)}")
    return epoch, iteration
