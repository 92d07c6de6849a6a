"""The same steps on any number of processes: their items, by comparison with those of MMEngine's sampler."""

from collections.abc import Callable
from types import ModuleType

import mmengine.dataset.sampler
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import DefaultSampler

from clipbert_mm.engine.global_batch import SameStepsSampler, describe_batch_statistics, keep_global_batch
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import OptionError


def steps_of(
    make: Callable[[], DefaultSampler], processes: int, batch: int, accumulation: int, drop_last: bool
) -> list:
    """The items of each step over all processes, which DistributedDataParallel and accumulation average with equal weights."""
    passes = []
    with pytest.MonkeyPatch.context() as patch:
        for rank in range(processes):
            patch.setattr(mmengine.dataset.sampler, "get_dist_info", lambda rank=rank: (rank, processes))
            sampler = make()
            sampler.set_epoch(3)
            batches = list(torch.utils.data.BatchSampler(sampler, batch, drop_last))
            assert len(sampler) == len(list(sampler))
            passes.append([batches[i : i + accumulation] for i in range(0, len(batches), accumulation)])
    return [sorted(item for own in step for batch in own for item in batch) for step in zip(*passes, strict=True)]


def small_config(batch: int, accumulation: int, processes: int, drop_last: bool = True) -> Config:
    """What keep_global_batch reads of a config for a number of processes."""
    sampler = dict(type="DefaultSampler", shuffle=True)
    return Config(
        dict(
            train_dataloader=dict(batch_size=batch, drop_last=drop_last, sampler=sampler),
            optim_wrapper=dict(accumulative_counts=accumulation),
            auto_scale_lr=dict(enable=False, base_batch_size=batch * accumulation * processes),
        )
    )


@pytest.mark.parametrize("items", [32, 61, 64, 75, 95, 121, 122, 127, 128, 200])
@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("batch", "accumulation"), [(4, 1), (2, 3)])
def test_a_step_has_the_items_that_it_has_on_eight_processes(
    items: int, drop_last: bool, batch: int, accumulation: int
):
    dataset = range(items)
    wanted = steps_of(lambda: DefaultSampler(dataset, seed=7), 8, batch, accumulation, drop_last)
    for processes, micro_batch in ((1, 0), (1, 1), (1, 8 * batch), (2, 2), (4, 0), (8, 1), (16, 0)):
        config = small_config(batch, accumulation, 8, drop_last)
        keep_global_batch(config, micro_batch, processes)
        loader = config.train_dataloader
        options = {key: value for key, value in loader.sampler.items() if key != "type"}
        found = steps_of(
            lambda: SameStepsSampler(dataset, seed=7, **options),  # noqa: B023
            processes,
            loader.batch_size,
            config.optim_wrapper.accumulative_counts,
            drop_last,
        )
        assert loader.batch_size * config.optim_wrapper.accumulative_counts * processes == 8 * batch * accumulation
        assert len(found) == len(wanted)
        if processes <= 8:
            assert found == wanted


def test_smaller_batches_of_batch_norms_are_warned_of(runner_config: Config):
    runner_config.train_dataloader.batch_size = 16
    runner = build_runner(runner_config)
    assert describe_batch_statistics(runner, 32) == []
    runner.model.backbone.norm = torch.nn.BatchNorm2d(8)
    said = "take their statistics from batches of 16 items instead of 32"
    assert said in describe_batch_statistics(runner, 32)[0]


@pytest.mark.parametrize(
    ("processes", "micro_batch", "change", "message"),
    [
        (
            3,
            0,
            {},
            "cannot divide the 128 items of a pass among 3 processes. Start a number of processes that divides 128",
        ),
        (4, 12, {}, "--micro-batch 12 x 4 processes does not divide the 128 .* can be 1, 2, 4, 8, 16, 32"),
        (1, 0, {"auto_scale_lr": None}, "got base_batch_size None, batch_size 16 and accumulative_counts 1"),
        (1, 0, {"auto_scale_lr.base_batch_size": 100}, "got base_batch_size 100, batch_size 16"),
        (1, 0, {"train_dataloader.sampler.type": "InfiniteSampler"}, "needs DefaultSampler .*, got InfiniteSampler"),
    ],
)
def test_a_batch_that_cannot_be_divided_is_refused(processes: int, micro_batch: int, change: dict, message: str):
    config = small_config(16, 1, 8)
    config.merge_from_dict(change)
    with pytest.raises(OptionError, match=message):
        keep_global_batch(config, micro_batch, processes)


def test_a_dataset_smaller_than_a_step_is_refused():
    with pytest.raises(OptionError, match="has 120 items, fewer than the 128 of 8 x batch_size 16, and drop_last"):
        SameStepsSampler(range(120), processes=8, batch_size=16, drop_last=True, seed=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--micro-batch", "-2"], "--micro-batch expects a positive number of items, got -2"),
        (["--micro-batch", "--auto-scale-lr"], "which --micro-batch keeps: give one"),
        (
            ["--micro-batch", "--cfg-options", "train_dataloader.batch_size=8"],
            "sets train_dataloader.batch_size itself",
        ),
    ],
)
def test_options_that_cannot_be_combined(tool: Callable[[str], ModuleType], options: list, message: str, capsys):
    with pytest.raises(SystemExit):
        tool("train.py").parse_args(["config.py", *options])
    assert message in capsys.readouterr().err
