"""The paper's learning rate schedule: linear warm-up, then linear decay to zero."""

import warnings
from typing import Any

from mmengine.optim.scheduler.lr_scheduler import LRSchedulerMixin
from mmengine.optim.scheduler.param_scheduler import _ParamScheduler

from clipbert_mm.registry import PARAM_SCHEDULERS


@PARAM_SCHEDULERS.register_module()
class WarmupLinearLR(LRSchedulerMixin, _ParamScheduler):
    """Warm up over a share of the steps, then decay linearly to 0 (Section 3 of the paper, Implementation Details).

    Use it with ``convert_to_iter_based=True``; ``end`` is then the training's last epoch unless given. It works for any
    number of steps, also if the warm-up is a fraction of an epoch. Steps are those of the optimizer under gradient accumulation
    too, since they are the iterations of :class:`~clipbert_mm.engine.ResumableEpochTrainLoop`.

    Args:
        optimizer: Optimizer or its wrapper.
        warmup_share: Share of the steps over which the learning rate rises; 0.1 in the paper.
        end: Number of steps.
        **schedule: ``begin``, ``last_step``, ``by_epoch`` and ``verbose`` of MMEngine's schedulers.
    """

    def __init__(self, optimizer: Any, *, warmup_share: float = 0.1, end: int, **schedule: Any) -> None:  # noqa: ANN401
        self.total = end
        self.warmup = warmup_share * end
        super().__init__(optimizer, end=end, **schedule)

    @classmethod
    def build_iter_from_epoch(
        cls,
        optimizer: Any,  # noqa: ANN401
        *,
        end: int,
        epoch_length: int,
        by_epoch: bool = True,
        **options: Any,  # noqa: ANN401
    ) -> "WarmupLinearLR":
        """Build a schedule whose ``end`` is given in epochs of ``epoch_length`` steps."""
        return cls(optimizer, end=end * epoch_length, by_epoch=False, **options)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Resume a schedule; its length stays that of the config, which may differ from the saved one."""
        length = ("end", "total", "warmup")
        super().load_state_dict({key: value for key, value in state_dict.items() if key not in length})

    def step(self) -> None:
        """Go to the next step."""
        with warnings.catch_warnings():
            # In float16 the optimizer skips the first steps until the scale of the loss fits.
            warnings.filterwarnings("ignore", "Detected call of `scheduler.step", UserWarning)
            super().step()

    def factor(self, step: int) -> float:
        """Return the share of the full learning rate at a step of the optimizer, counted from 0; it is above 0 in training."""
        if step + 1 < self.warmup:
            return (step + 1) / self.warmup
        return min(1.0, max(0.0, (self.total - step) / max(1.0, self.total - self.warmup)))

    def _get_value(self) -> list[float]:
        return [base * self.factor(self.last_step) for base in self.base_values]
