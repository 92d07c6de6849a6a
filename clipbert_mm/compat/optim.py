"""Work-arounds for hooks and optimizer wrappers of MMEngine 0.10.7, under names of their own."""

from typing import Any, ClassVar

import mmengine.hooks
import mmengine.optim
import torch
from mmengine.dist import is_main_process
from mmengine.runner import Runner

from clipbert_mm.compat import half_precision
from clipbert_mm.deprecation import renamed
from clipbert_mm.registry import HOOKS, OPTIM_WRAPPERS

GREATER_METRICS = ("R@", "recall")
"""Parts of the names of our metrics that are better when greater, besides those that MMEngine knows."""
LESS_METRICS = ("MdR", "MnR", "error", "mse")
"""The same for those that are better when less."""


class _CountsOneStep:
    """Counts the batches of each step of the optimizer.

    For MMEngine 0.10.7, whose wrappers count the batches of a whole training, so that a step may begin in one epoch and end in
    the next; they also warn if a training is resumed or has frozen batch norms, though nothing is lost.
    """

    def begin_step(self, batches: int) -> None:
        """Set the number of batches of the next step; their gradients are averaged, and synchronized once."""
        self.initialize_count_status(None, 0, batches)

    def initialize_count_status(self, model: torch.nn.Module | None, init_counts: int, max_counts: int) -> None:
        """Count from ``init_counts``; the last step, at ``max_counts``, may have fewer batches."""
        self._inner_count, self._max_counts = init_counts, max_counts
        self._remainder_counts = max_counts % self._accumulative_counts  # type: ignore[attr-defined]


@HOOKS.register_module()
class ResumableEarlyStoppingHook(mmengine.hooks.EarlyStoppingHook):
    """MMEngine's EarlyStoppingHook that keeps its count when a run is resumed, and knows the direction of our metrics.

    For MMEngine 0.10.7, whose hook counts from zero after each resume.
    """

    _default_greater_keys: ClassVar = [*mmengine.hooks.EarlyStoppingHook._default_greater_keys, *GREATER_METRICS]
    _default_less_keys: ClassVar = [*mmengine.hooks.EarlyStoppingHook._default_less_keys, *LESS_METRICS]

    def state_dict(self) -> dict[str, Any]:
        """Return the count and the best score, for a checkpoint."""
        return dict(wait_count=self.wait_count, best_score=self.best_score)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Resume the count of a run that was cut."""
        self.wait_count, self.best_score = state["wait_count"], state["best_score"]


@HOOKS.register_module()
class MainProcessLoggerHook(mmengine.hooks.LoggerHook):
    """MMEngine's LoggerHook that logs and writes the metrics of a test in the main process only.

    For MMEngine 0.10.7, whose hook writes them in each process, all to the same file at the same time.
    """

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Log and write the metrics."""
        if is_main_process():
            super().after_test_epoch(runner, metrics)


@OPTIM_WRAPPERS.register_module()
class AccumulatingOptimWrapper(_CountsOneStep, mmengine.optim.OptimWrapper):
    """MMEngine's OptimWrapper that accumulates gradients step by step; the last step of an epoch may have fewer batches."""


@OPTIM_WRAPPERS.register_module()
class AmpAccumulatingOptimWrapper(_CountsOneStep, mmengine.optim.AmpOptimWrapper):
    """:class:`AccumulatingOptimWrapper` in mixed precision, on a GPU as MMEngine's AmpOptimWrapper, and on the CPU.

    For MMEngine 0.10.7, whose AmpOptimWrapper refuses CPUs, scales losses in bfloat16 too, and fails only in the first step if
    a GPU has no bfloat16. Weights and optimizer stay in float32.

    Args:
        optimizer: The optimizer.
        dtype: "float16" or "bfloat16"; "auto" for float16 on a GPU and bfloat16 on a CPU.
        loss_scale: For float16, as in MMEngine: "dynamic", a fixed scale, or GradScaler's arguments. bfloat16 has the range of
            float32 and needs none.
        accumulative_counts: Batches per step.
        clip_grad: Arguments of torch's ``clip_grad_norm_``.
        use_fsdp: Whether the scaler is that of sharded gradients.

    Raises:
        ValueError: If this machine cannot compute in ``dtype``.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        dtype: str = "auto",
        loss_scale: float | str | dict = "dynamic",
        accumulative_counts: int = 1,
        clip_grad: dict | None = None,
        use_fsdp: bool = False,
    ) -> None:
        self.cast_dtype = half_precision(dtype)
        common = dict(optimizer=optimizer, accumulative_counts=accumulative_counts, clip_grad=clip_grad)
        if torch.cuda.is_available():
            scale = dict(enabled=False) if self.cast_dtype == torch.bfloat16 else loss_scale
            super().__init__(loss_scale=scale, dtype=self.cast_dtype, use_fsdp=use_fsdp, **common)
        else:
            mmengine.optim.OptimWrapper.__init__(self, **common)
            self.loss_scaler = torch.amp.GradScaler("cpu", enabled=False)
            self._scale_update_param = None


__getattr__ = renamed(
    __name__,
    {
        "AmpOptimWrapper": "clipbert_mm.compat.optim.AmpAccumulatingOptimWrapper",
        "EarlyStoppingHook": "clipbert_mm.compat.optim.ResumableEarlyStoppingHook",
        "LoggerHook": "clipbert_mm.compat.optim.MainProcessLoggerHook",
        "OptimWrapper": "clipbert_mm.compat.optim.AccumulatingOptimWrapper",
    },
)
