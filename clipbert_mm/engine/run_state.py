"""The state of a run in its checkpoints: that of MMEngine's Runner, and the random generators and hooks of each process."""

import os
import time
from collections.abc import Mapping
from typing import Any

import mmengine
from mmengine.dist import get_world_size
from mmengine.runner import Runner
from mmengine.runner.checkpoint import weights_to_cpu
from torch import Tensor

from clipbert_mm.checkpoint.archives import first_line
from clipbert_mm.checkpoint.compatibility import not_finite
from clipbert_mm.deprecation import NAMES_IN_CONFIGS
from clipbert_mm.engine.bare_model import bare_model
from clipbert_mm.engine.hooks.checkpoint_hook import checkpoint_folders, file_names
from clipbert_mm.engine.random_state import random_state, set_random_state
from clipbert_mm.errors import CheckpointError


def checkpoint_content(
    runner: Runner, meta: dict[str, Any], *, save_optimizer: bool, save_param_scheduler: bool
) -> dict[str, Any]:
    """Return the entries of MMEngine's checkpoints, without paths of this machine.

    Args:
        runner: The runner.
        meta: ``epoch``, ``iter`` and other entries to save.
        save_optimizer: Whether it has the state of the optimizer.
        save_param_scheduler: Whether it has the state of the schedule.
    """
    meta |= dict(
        cfg=runner.config_text,
        seed=runner.seed,
        experiment_name=runner.experiment_name,
        time=time.strftime("%Y%m%d_%H%M%S", time.localtime()),
        mmengine_version=mmengine.__version__,
        dataset_meta=getattr(runner.train_dataloader.dataset, "metainfo", None),
        **runner.epoch_shape(),
    )
    model = bare_model(runner.model)
    hub = runner.message_hub.state_dict()
    infos = hub["runtime_info"]
    infos |= {key: os.path.basename(path) for key, path in _checkpoint_paths(infos).items()}
    if "cfg" in infos:
        infos["cfg"] = runner.config_text
    content = dict(meta=meta, state_dict=weights_to_cpu(model.state_dict()), message_hub=hub)
    if save_optimizer:
        content["optimizer"] = runner.optim_wrapper.state_dict()
    if save_param_scheduler and runner.param_schedulers is not None:
        content["param_schedulers"] = (
            [scheduler.state_dict() for scheduler in runner.param_schedulers]
            if isinstance(runner.param_schedulers, list)
            else {name: [each.state_dict() for each in group] for name, group in runner.param_schedulers.items()}
        )
    return content


def check_finite(tensors: Mapping[str, Tensor], filename: str) -> None:
    """Check that weights are finite: a NaN gradient ruins them one step before the loss shows it.

    Raises:
        CheckpointError: If a tensor has a NaN or an infinite value.
    """
    broken = not_finite(tensors)
    if broken:
        raise CheckpointError(
            f"{filename} is not written: {len(broken)} of the {len(tensors)} tensors of the model are not finite, the first is "
            f"{broken[0]}. Older checkpoints are unchanged. Lower the learning rate or clip gradients; resume with --resume."
        )


def rank_state(runner: Runner) -> dict[str, Any]:
    """Return the state of this rank: its random generators, and its hooks that have a state."""
    hooks = {type(hook).__name__: hook.state_dict() for hook in runner.hooks if hasattr(hook, "state_dict")}
    return dict(random=random_state(), hooks=hooks)


def restore_rank(runner: Runner) -> None:
    """Restore the random generators and the hooks of this rank as they were when the resumed run was cut.

    Raises:
        CheckpointError: If the saved state is damaged.
    """
    ranks = [] if runner.resumed is None else runner.resumed["ranks"]
    if len(ranks) != get_world_size():
        runner.logger.warning(
            f"The checkpoint has the random state of {len(ranks)} processes, this run has {get_world_size()}: it resumes "
            "weights and position, with other random numbers."
        )
        return
    try:
        states = {NAMES_IN_CONFIGS.get(name, name): state for name, state in ranks[runner.rank]["hooks"].items()}
        for hook in runner.hooks:
            if type(hook).__name__ in states and hasattr(hook, "load_state_dict"):
                hook.load_state_dict(states[type(hook).__name__])
        set_random_state(ranks[runner.rank]["random"])
    except (AttributeError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"The checkpoint's state of process {runner.rank} is damaged: {first_line(error)}. Use another copy, or train from "
            "its weights with load_from."
        ) from error


def restore_paths(runner: Runner) -> None:
    """Let the checkpoints that the resumed message hub names be those of this run's folder, whatever folder they were in.

    MMEngine's CheckpointHook takes the names for paths and removes the files.
    """
    folder = checkpoint_folders(runner.work_dir, runner.cfg)[-1]
    for key, path in _checkpoint_paths(runner.message_hub.runtime_info).items():
        names = file_names([path])
        runner.message_hub.update_info(key, os.path.join(folder, names[0]) if names else None)


def _checkpoint_paths(infos: Mapping[str, Any]) -> dict[str, str]:
    """Return the paths of checkpoints among the entries of a message hub: last_ckpt, best_ckpt and best_ckpt_METRIC."""
    return {
        key: value
        for key, value in infos.items()
        if key.startswith(("last_ckpt", "best_ckpt")) and isinstance(value, str)
    }
