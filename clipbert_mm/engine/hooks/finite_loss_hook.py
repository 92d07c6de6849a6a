"""End a training at the first loss that is NaN or infinite."""

import os
from typing import Any

import torch
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement

from clipbert_mm.engine.hooks.checkpoint_hook import file_names
from clipbert_mm.errors import NotFiniteError
from clipbert_mm.registry import HOOKS

SHOWN = 32
"""Most items that the error lists."""


@HOOKS.register_module()
class FiniteLossHook(Hook):
    """End training at the first loss that is NaN or infinite, and name the step and the items of its batch.

    Under loss scaling (fp16) a gradient may be infinite, which skips a step and is no error; a loss may not.
    """

    priority = "VERY_HIGH"

    def __init__(self) -> None:
        self.good: str | None = None
        """The last checkpoint after which a loss was finite."""

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Check the losses.

        Raises:
            NotFiniteError: If one is not finite.
        """
        losses = {
            key: float(torch.as_tensor(value).detach()) for key, value in (outputs or {}).items() if "loss" in key
        }
        last = last_checkpoint(runner)
        if torch.tensor(list(losses.values())).isfinite().all():
            self.good = last
            return
        samples = (data_batch or {}).get("data_samples", ())
        more = f"\n  and {len(samples) - SHOWN} more" if len(samples) > SHOWN else ""
        items = "".join(f"\n  {describe(sample)}" for sample in samples[:SHOWN])
        values = ", ".join(f"{key} {value:g}" for key, value in losses.items())
        good = "There is no good checkpoint yet." if self.good is None else f"The last good checkpoint is {self.good}."
        if last != self.good:
            good += f" {last} has the weights that gave this loss."
        raise NotFiniteError(
            f"The loss is not finite at step {runner.iter + 1} (epoch {runner.epoch + 1}, batch {batch_idx + 1}), process "
            f"{runner.rank}: {values}. {good} Lower the learning rate, clip gradients, or look at the items of the batch "
            f"(tools/analysis_tools/browse_dataset.py draws those of a ClipBert):{items}{more}"
        )


def last_checkpoint(runner: Runner) -> str | None:
    """Return the path of the checkpoint that a training wrote last or was resumed from; None if there is none."""
    names = file_names([runner.message_hub.get_info("last_ckpt")])
    folders = [hook.out_dir for hook in runner.hooks if isinstance(hook, CheckpointHook)]
    return os.path.join(folders[0], names[0]) if names and folders else None


def describe(sample: BaseDataElement) -> str:
    """Describe an item, which may be mmpretrain's, by its file and, if it has some, its texts."""
    texts = f": {sample.texts}" if "texts" in sample else ""
    return f"{sample.get('path', sample.get('img_path'))}{texts}"
