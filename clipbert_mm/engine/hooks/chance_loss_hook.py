"""Warn of a training that learns nothing."""

import math
from collections import Counter
from typing import Any

import torch
from mmengine.dist import all_gather_object
from mmengine.hooks import Hook
from mmengine.runner import Runner

from clipbert_mm.registry import HOOKS

LABELS = {"loss_match": "match_labels", "loss_answer": "answer_labels"}
"""The labels of each loss whose value at chance is known."""


@HOOKS.register_module()
class ChanceLossHook(Hook):
    """Warn after an epoch whose loss is no better than that of one prediction for all items.

    For labels with shares p, as of matching or of the answers of a vocabulary, that is their entropy, -Σ p log p; for o options
    it is log o. The first epoch, in which the rate warms up, is judged only if it is the last.

    Args:
        margin: Share by which the loss has to be lower, 0 to 1.
    """

    def __init__(self, *, margin: float = 0.02) -> None:
        self.margin = margin
        self._reset()

    def _reset(self) -> None:
        self.losses: dict[str, float] = {}  # sums over texts or questions
        self.options = 0.0  # sum of log o
        self.labels: Counter[int] = Counter()

    def before_train_epoch(self, runner: Runner) -> None:
        """Set the sums to zero."""
        self._reset()

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict[str, Any] | None = None
    ) -> None:
        """Add the losses and the labels of a batch."""
        for name, field in LABELS.items():
            samples = [sample for sample in (data_batch or {}).get("data_samples", ()) if field in sample]
            if name not in (outputs or {}) or not samples:
                continue
            labels = [int(label) for sample in samples for label in sample.get(field)]
            loss = float(torch.as_tensor((outputs or {})[name]).detach())
            self.losses[name] = self.losses.get(name, 0.0) + loss * len(labels)
            self.labels.update(labels)
            if name == "loss_answer":
                counts = [len(sample.get(field)) for sample in samples]
                options = [len(sample.texts) // count for sample, count in zip(samples, counts, strict=True)]
                self.options += sum(count * math.log(each) for count, each in zip(counts, options, strict=True))

    def after_train_epoch(self, runner: Runner) -> None:
        """Warn if the mean loss of the epoch is at chance."""
        states = all_gather_object((self.losses, self.labels, self.options))
        labels: Counter[int] = Counter()
        for _, counts, _ in states:
            labels.update(counts)
        total, options = sum(labels.values()), sum(option for _, _, option in states)
        if not total or (runner.epoch == 0 and runner.max_epochs > 1):
            return
        name = next(iter(self.losses))
        chance = options / total or -sum(count / total * math.log(count / total) for count in labels.values())
        loss = sum(losses[name] for losses, _, _ in states) / total
        if chance and loss > (1 - self.margin) * chance:
            runner.logger.warning(
                f"Epoch {runner.epoch + 1} has learned nothing: {name} is {loss:.3f}, and one prediction for all items has "
                f"{chance:.3f}. {describe_rate(runner)} Start from trained weights (load_from), or try a rate 3 to 10 times "
                "lower or higher: --cfg-options optim_wrapper.optimizer.lr=..."
            )


def describe_rate(runner: Any) -> str:  # noqa: ANN401
    """Describe the learning rate of a training, and which one its config's rate is for this many items per step."""
    group = runner.optim_wrapper.param_groups[0]
    rate, items = group.get("initial_lr", group["lr"]), runner.items_per_step
    text = f"The learning rate is {rate:.2g} for {items} items per step"
    scaling = runner.cfg.get("auto_scale_lr") or {}
    base = scaling.get("base_batch_size")
    if scaling.get("enable") or not base or base == items:
        return f"{text}."
    return f"{text}; the config's is for {base}, which is {rate * items / base:.2g} for {items} (--auto-scale-lr)."
