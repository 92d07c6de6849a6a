"""Checks of a run before its first step: settings that have no effect, and parts that do not fit together."""

from typing import Any

from mmengine.hooks import EarlyStoppingHook
from mmengine.runner import Runner

from clipbert_mm.errors import OptionError


def check_selection(runner: Runner) -> None:
    """Check that a training validates if a hook selects or stops by a metric of validation.

    Raises:
        OptionError: If it does not, so that the hook would never act. ``save_best="auto"`` is for trainings with validation and
            without.
    """
    begin = (runner.cfg.get("train_cfg") or {}).get("val_begin", 1)
    epochs = (runner.cfg.get("train_cfg") or {}).get("max_epochs", begin)
    if runner._val_loop is not None and begin <= epochs:
        return
    why = (
        f"val_begin={begin} is after max_epochs={epochs}"
        if runner._val_loop is not None
        else "there is no val_dataloader"
    )
    for hook in runner.hooks:
        setting = _selects_by(hook)
        if setting is not None:
            raise OptionError(
                f"{setting} of {type(hook).__name__} needs validation, and {why}: it would never act. Set val_dataloader, "
                "val_evaluator and val_cfg of the config, or remove the setting."
            )


def _selects_by(hook: Any) -> str | None:  # noqa: ANN401
    """Return the setting of a hook that names a metric of validation; None if there is none."""
    if isinstance(hook, EarlyStoppingHook):
        return f"monitor={hook.monitor!r}"
    best = getattr(hook, "save_best", None)
    return None if best in (None, "auto", ["auto"]) else f"save_best={best!r}"
