"""Take the same steps of the optimizer on any number of processes: divide a step's items among them, and accumulate."""

import math
from collections.abc import Mapping, Sized

from mmengine.config import Config
from mmengine.dataset import DefaultSampler
from mmengine.runner import Runner
from torch.nn.modules.batchnorm import _BatchNorm

from clipbert_mm.engine.bare_model import bare_model
from clipbert_mm.errors import OptionError
from clipbert_mm.registry import DATA_SAMPLERS, type_name


@DATA_SAMPLERS.register_module()
class SameStepsSampler(DefaultSampler):
    """MMEngine's DefaultSampler that gives each step the items that it has on another number of processes.

    The order of an epoch depends on the seed only. On P processes with batches of b, DefaultSampler fills it up to a multiple
    of P, and ``drop_last`` drops what is less than P x b at its end. This sampler keeps these items, in their order, and
    divides them among the processes that there are.

    Args:
        dataset: The dataset.
        processes: P, the number of processes whose steps to take.
        batch_size: b, the items of a batch in each of them.
        drop_last: Whether they drop what is less than a batch.
        shuffle: Whether the items are shuffled.
        seed: Seed of the order; the same in all processes.

    Raises:
        OptionError: If the dataset has less than a batch for each process, and it is dropped.
    """

    def __init__(
        self,
        dataset: Sized,
        *,
        processes: int,
        batch_size: int,
        drop_last: bool,
        shuffle: bool = True,
        seed: int | None = None,
    ) -> None:
        super().__init__(dataset, shuffle, seed)
        items = processes * batch_size
        total = math.ceil(len(dataset) / processes) * processes
        if drop_last:
            total -= total % items
            if total == 0:
                raise OptionError(
                    f"The training set has {len(dataset)} items, fewer than the {items} of {processes} x batch_size "
                    f"{batch_size}, and drop_last drops such a rest, so that no step is left. Lower auto_scale_lr."
                    "base_batch_size, the items per step, or set drop_last of train_dataloader to False."
                )
        self.num_samples = math.ceil(total / self.world_size)
        self.total_size = self.num_samples * self.world_size


def keep_global_batch(config: Config, micro_batch: int, processes: int) -> str:
    """Change a config so that each step has the items that its learning rate is for, on this number of processes.

    The items per step are ``auto_scale_lr.base_batch_size``. Steps, their items, the schedule and the epochs are those of
    base_batch_size / (batch_size x accumulative_counts) processes, for which the config was written.

    Args:
        config: The config; batch size, accumulation and sampler are changed.
        micro_batch: Items that a process computes at a time; 0 for as many as divide a step, at most the config's.
        processes: The number of processes.

    Returns:
        What was changed, as a line for the log.

    Raises:
        OptionError: If the config has no base_batch_size that suits its batch, another sampler than DefaultSampler, or a step
            cannot be divided so.
    """
    loader, wrapper = config.train_dataloader, config.optim_wrapper
    batch, accumulation = loader.get("batch_size"), wrapper.get("accumulative_counts", 1)
    base = (config.get("auto_scale_lr") or {}).get("base_batch_size")
    if not isinstance(base, int) or not isinstance(batch, int) or base < 1 or base % (batch * accumulation):
        raise OptionError(
            "--micro-batch needs auto_scale_lr=dict(base_batch_size=...), the items per step that the learning rate is for, a "
            f"multiple of batch_size x accumulative_counts; got base_batch_size {base}, batch_size {batch} and "
            f"accumulative_counts {accumulation}."
        )
    sampler = loader.get("sampler") or {}
    if not isinstance(sampler, Mapping) or type_name(sampler).removeprefix("mmengine.") != "DefaultSampler":
        raise OptionError(
            f"--micro-batch needs DefaultSampler as train_dataloader.sampler.type, got {sampler.get('type')}. Set "
            "train_dataloader.batch_size and optim_wrapper.accumulative_counts yourself."
        )
    pass_items = base // accumulation  # what the processes of the config read at a time
    if pass_items % processes:
        raise OptionError(
            f"--micro-batch cannot divide the {pass_items} items of a pass among {processes} processes. Start a number of "
            f"processes that divides {pass_items}."
        )
    fitting = [size for size in range(1, pass_items + 1) if pass_items % (size * processes) == 0]
    chosen = micro_batch or max(size for size in fitting if size <= batch)
    if chosen not in fitting:
        raise OptionError(
            f"--micro-batch {micro_batch} x {processes} processes does not divide the {pass_items} items of a pass. With "
            f"{processes} processes it can be {', '.join(map(str, fitting))}."
        )
    loader.batch_size = chosen
    wrapper.accumulative_counts = base // (chosen * processes)
    loader.sampler = dict(
        sampler,
        type="SameStepsSampler",
        processes=pass_items // batch,
        batch_size=batch,
        drop_last=loader.get("drop_last", False),
    )
    return (
        f"--micro-batch: steps of {base} items as on {pass_items // batch} processes with batches of {batch}"
        f"{f' and accumulative_counts={accumulation}' if accumulation > 1 else ''}; now {processes} processes, batch_size="
        f"{chosen}, accumulative_counts={wrapper.accumulative_counts}."
    )


def describe_batch_statistics(runner: Runner, before: int) -> list[str]:
    """Return a line that smaller batches change the statistics of batch norms; none if none is in training mode.

    Args:
        runner: The runner, whose batches are smaller than the config's.
        before: The batch size of the config.
    """
    model = bare_model(runner.model)
    if not any(isinstance(module, _BatchNorm) and module.training for module in model.train().modules()):
        return []
    now = runner.cfg.train_dataloader.batch_size
    return [
        f"Batch norms in training mode take their statistics from batches of {now} items instead of {before}, so this training "
        "is not the same as the config's."
    ]
