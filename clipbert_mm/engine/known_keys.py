"""The names that a run reads in its config, as MMEngine's and torch's own signatures and sources have them."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import init_dist
from mmengine.evaluator import Evaluator
from mmengine.optim import OptimWrapper
from mmengine.runner import EpochBasedTrainLoop, IterBasedTrainLoop, LogProcessor, Runner, TestLoop, ValLoop
from mmengine.utils.dl_utils import set_multi_processing
from torch.utils.data import DataLoader


def runner_keys() -> frozenset[str]:
    """Return the top-level names of a config that are read; all others are variables of the config file."""
    named = {*inspect.signature(Runner).parameters, *re.findall(r"self\.cfg\.get\(\s*'(\w+)'", SOURCE)}
    others = {"custom_imports", "runner_type", "strategy", "test_pipeline", "tta_model", "tta_pipeline"}
    return frozenset(named | others) - {"cfg"}


def known_in(path: str) -> set[str]:
    """Return the names that may be added to a part of a config that has no ``type``.

    Args:
        path: Dotted path of the part, such as "env_cfg.dist_cfg".

    >>> sorted(known_in("randomness"))
    ['deterministic', 'diff_rank_seed', 'seed']
    >>> "norm_type" in known_in("optim_wrapper.clip_grad")
    True
    """
    if path.endswith("_dataloader"):
        return _arguments(DataLoader) | {"num_batch_per_epoch"}
    if path in ("val_evaluator", "test_evaluator"):
        return _arguments(Evaluator) | {"type"}
    return set().union(*map(_arguments, READERS.get(path, ()))) | EXTRA.get(path, set())


def _arguments(reader: Callable) -> set[str]:
    """Return the names of the arguments of a function or a class."""
    parameters = inspect.signature(reader).parameters.values()
    kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
    given = {"self", "runner", "dataloader", "evaluator", "model", "parameters", "distributed", "launcher"}
    return {each.name for each in parameters if each.kind not in kinds and not each.name.startswith("_")} - given


SOURCE = Path(inspect.getfile(Runner)).read_text(encoding="utf-8")
"""MMEngine's file of its Runner."""
READERS: dict[str, tuple[Any, ...]] = {
    "compile": (torch.compile,),
    "env_cfg.dist_cfg": (init_dist, torch.distributed.init_process_group),
    "env_cfg.mp_cfg": (set_multi_processing,),
    "log_processor": (LogProcessor,),
    "optim_wrapper": (OptimWrapper,),
    "optim_wrapper.clip_grad": (torch.nn.utils.clip_grad_norm_, torch.nn.utils.clip_grad_value_),
    "randomness": (Runner.set_randomness,),
    "test_cfg": (TestLoop,),
    "train_cfg": (EpochBasedTrainLoop, IterBasedTrainLoop),
    "val_cfg": (ValLoop,),
}
"""What gets the settings of a part of a config as its arguments."""
EXTRA: dict[str, set[str]] = {
    "auto_scale_lr": {"base_batch_size", "enable"},
    "env_cfg": set(re.findall(r"env_cfg\.get\(\s*'(\w+)'", SOURCE)),
    "log_processor": {"type"},
    "optim_wrapper": {"constructor", "paramwise_cfg", "type"},
    "optim_wrapper.clip_grad": {"type"},
    "test_cfg": {"type"},
    "train_cfg": {"by_epoch", "type"},
    "val_cfg": {"type"},
}
"""What a part of a config may have besides."""
