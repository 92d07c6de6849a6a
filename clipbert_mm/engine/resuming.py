"""Which checkpoint a training resumes, wherever its runner was built."""

from typing import Any

from mmengine.config import Config
from mmengine.runner import BaseLoop

from clipbert_mm.checkpoint import find_latest
from clipbert_mm.engine.hooks.checkpoint_hook import checkpoint_folders


def find_resumed(resume: bool | str | None, config: Config) -> tuple[str | None, list[str]]:
    """Find the checkpoint that ``resume`` of a config means.

    Args:
        resume: True or "auto" for the latest intact checkpoint of the work folder, or the path of one. Where the folder has
            none, True resumes ``load_from``, and "auto" begins with its weights.
        config: The config.

    Returns:
        The file, None if there is none; and a warning for each damaged checkpoint that was skipped.

    Raises:
        CheckpointError: If the work folder has checkpoints, but all of them are damaged.
    """
    if resume and (resume is True or resume == "auto"):
        latest, skipped = find_latest(*checkpoint_folders(config.work_dir, config))
        return latest, [f"Skipped a checkpoint: {reason}" for reason in skipped]
    return resume or None, []


def set_start(runner: Any) -> None:  # noqa: ANN401
    """Set what a runner starts from, by its ``resume`` and ``load_from``, and log it; a test does not resume.

    Raises:
        CheckpointError: See :func:`find_resumed`.
    """
    resume, given = runner._resume, runner._load_from
    runner._resume = False
    if not isinstance(runner._train_loop, BaseLoop):  # a config, which a test does not build
        return
    latest, warnings = find_resumed(resume, runner.cfg)
    for warning in warnings:
        runner.logger.warning(warning)
    if latest is None and (resume == "auto" or given is None):
        begins = "begins anew" if given is None else f"begins with {given}"
        runner.logger.warning(f"There is no checkpoint in {runner.work_dir} to resume from: the training {begins}.")
        return
    runner._resume, runner._load_from = True, latest or given
    instead = f", not from load_from ({given}), which resume={given!r} would do"
    runner.logger.info(f"Resumes from {runner._load_from}{instead if given not in (None, runner._load_from) else ''}.")
