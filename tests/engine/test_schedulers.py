"""The learning rate, step by step."""

import pytest
import torch

from clipbert_mm.engine.schedulers import WarmupLinearLR


def rates(steps: int, **options: object) -> list[float]:
    """Run a schedule as the Runner does: a step of the optimiser, then one of the schedule."""
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


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 9])
def test_a_training_of_a_few_steps_learns_at_every_one(steps: int):
    ours = rates(steps)
    assert min(ours) > 0
    assert max(ours) == pytest.approx(2.0)


def test_epochs_become_steps():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    schedule = WarmupLinearLR.build_iter_from_epoch(optimizer, end=3, epoch_length=7, warmup_share=0.5)
    assert (schedule.total, schedule.warmup, schedule.by_epoch) == (21, 10.5, False)
