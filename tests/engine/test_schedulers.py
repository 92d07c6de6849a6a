"""The learning rate at each of the optimizer's steps, in trainings by our Runner."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from mmengine.model import BaseModel
from torch import Tensor, nn

from clipbert_mm.compat.optim import AccumulatingOptimWrapper
from clipbert_mm.engine import ClipBertRunner, WarmupLinearLR


def rates(steps: int, **options: object) -> list[float]:
    """Run a schedule as the Runner does: a step of the optimizer, then one of the schedule."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    schedule = WarmupLinearLR.build_iter_from_epoch(optimizer, end=steps, epoch_length=1, **options)
    seen = []
    for _ in range(steps):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_up_over_a_tenth_then_down_to_zero():
    ours = rates(20)
    assert ours[:3] == pytest.approx([1.0, 2.0, 2.0])
    # The highest rate at the end of the warm-up, step 2 of 20; from there in equal parts, to reach 0 at step 20.
    assert ours[2:] == pytest.approx([2.0 * (20 - step) / 18 for step in range(2, 20)])


def test_the_share_of_the_warm_up():
    assert rates(8, warmup_share=0.5) == pytest.approx([0.5, 1, 1.5, 2, 2, 1.5, 1, 0.5])
    assert rates(4, warmup_share=0.0) == pytest.approx([2, 1.5, 1, 0.5])


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
def test_a_training_of_a_few_steps_learns_at_every_one(steps: int):
    ours = rates(steps)
    assert min(ours) > 0
    assert max(ours) == pytest.approx(2.0)


class OneWeight(BaseModel):
    """A model of one number, which notes the rate at every iteration."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.optimizer = torch.optim.SGD(self.parameters(), lr=2.0)
        self.seen: list[float] = []

    def forward(self, inputs: Tensor, data_samples: Tensor, mode: str) -> dict[str, Tensor]:
        self.seen.append(self.optimizer.param_groups[0]["lr"])
        return {"loss": (self.weight * inputs).mean()}


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., tuple[list[float], list[float]]]:
    """Train by our Runner; gives the rate at each iteration and at each of the optimizer's steps."""

    def run(epochs: int, epoch_length: int, accumulation: int) -> tuple[list[float], list[float]]:
        model, at_steps = OneWeight(), []
        optimizer = model.optimizer
        make_step = optimizer.step
        optimizer.step = lambda: at_steps.append(optimizer.param_groups[0]["lr"]) or make_step()
        runner = ClipBertRunner(
            model,
            work_dir=str(tmp_path),
            experiment_name=f"{tmp_path.name}-{epochs}-{epoch_length}-{accumulation}",
            train_dataloader=torch.utils.data.DataLoader([{"inputs": torch.ones(1), "data_samples": 0}] * epoch_length),
            train_cfg=dict(type="ResumableEpochTrainLoop", max_epochs=epochs),
            optim_wrapper=AccumulatingOptimWrapper(optimizer, accumulative_counts=accumulation),
            param_scheduler=dict(type="WarmupLinearLR", warmup_share=0.1, convert_to_iter_based=True),
            default_hooks=dict(logger=None, checkpoint=None),
            log_level="ERROR",
            default_scope="clipbert_mm",
        )
        runner.train()
        return model.seen, at_steps

    return run


@pytest.mark.parametrize(
    ("epochs", "epoch_length", "accumulation"),
    [
        (1, 20, 1),
        (4, 5, 1),
        (2, 30, 3),
        (4, 5, 2),
        (5, 7, 3),
        (1, 47, 4),
        (3, 3, 4),
        (1, 2, 3),
        (20, 1, 2),
        (10, 21, 5),
    ],
)
def test_the_rate_of_each_step_under_accumulation(train: Callable, epochs: int, epoch_length: int, accumulation: int):
    at_iterations, at_steps = train(epochs, epoch_length, accumulation)
    steps = epochs * math.ceil(epoch_length / accumulation)  # the last of an epoch may be of fewer iterations
    warmup = steps / 10  # a fraction of an epoch, of a step even
    fall = max(1, steps - warmup)
    wanted = [2 * min(1, number / warmup, (steps + 1 - number) / fall) for number in range(1, steps + 1)]
    assert at_steps == pytest.approx(wanted)
    of_epoch = [i // accumulation for i in range(epoch_length)]
    of_all = [epoch * math.ceil(epoch_length / accumulation) + i for epoch in range(epochs) for i in of_epoch]
    assert at_iterations == pytest.approx([wanted[step] for step in of_all])


def test_the_highest_rate_is_a_tenth_into_the_training_also_under_accumulation(train: Callable):
    _, at_steps = train(4, 30, 3)  # 40 steps
    assert at_steps[:5] == pytest.approx([0.5, 1.0, 1.5, 2.0, 2.0])
    assert at_steps[5:] == pytest.approx([2 * left / 36 for left in range(35, 0, -1)])
