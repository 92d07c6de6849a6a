"""Build the Runner of a config, wherever it runs: in one process or several, on GPUs or on the CPU."""

import importlib.util
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from clipbert_mm import compat
from clipbert_mm.checkpoint import InputSpec, read_source
from clipbert_mm.datasets import train_vocabularies
from clipbert_mm.deprecation import NAMES_IN_CONFIGS
from clipbert_mm.engine.config import (
    check_averaging,
    check_numbers,
    check_stages,
    check_unused,
    drop_scope,
    foreign_model,
    names_library,
)
from clipbert_mm.engine.global_batch import describe_batch_statistics, keep_global_batch
from clipbert_mm.engine.mmengine_habits import metrics_of
from clipbert_mm.engine.resuming import find_resumed
from clipbert_mm.engine.signals import end_with_launcher
from clipbert_mm.errors import OptionError
from clipbert_mm.registry import RUNNERS, type_name


def build_runner(config: Config, *, micro_batch: int | None = None) -> Runner:
    """Build the runner of a config: a ClipBertRunner, or the one that its ``runner_type`` names.

    Args:
        config: A whole config, with ``launcher``; :func:`prepare` changes it.
        micro_batch: Items that a process computes at a time, 0 for the config's, so that a step has as many items as the
            learning rate is for; None for the config's batch size and accumulation.

    Raises:
        UnknownNameError: If there is no such runner.
        OptionError: If ``micro_batch`` is given to a runner that cannot accumulate, or see :func:`prepare`.
    """
    from clipbert_mm.engine.runner import ClipBertRunner  # which prepares configs by this module

    named: Any = config.get("runner_type") or ClipBertRunner
    kind: Any = RUNNERS.get(named) if isinstance(named, str) else named
    if issubclass(kind, ClipBertRunner):
        return kind.from_cfg(config, micro_batch=micro_batch)
    if micro_batch is not None:
        raise OptionError(f"--micro-batch needs a ClipBertRunner as runner_type, got {kind.__name__}.")
    prepared = prepare(config)
    if config.get("resume"):
        latest, prepared.warnings[:0] = find_resumed(config.resume, config)
        config.resume = latest is not None or config.resume is True
        config.load_from = latest or config.get("load_from")
    runner = kind.from_cfg(config)
    prepared.report(runner)
    return runner


@dataclass
class Prepared:
    """What :func:`prepare` changed in a config, as lines for the log."""

    changes: list[str]
    warnings: list[str]
    batch_size: int = 0
    """Batch size of the config before it was divided; 0 if it was not."""

    def report(self, runner: Runner) -> None:
        """Log what was changed, and train the vocabularies that the config needs."""
        if self.batch_size and runner.cfg.train_dataloader.batch_size < self.batch_size:
            self.warnings += describe_batch_statistics(runner, self.batch_size)
        for change in self.changes:
            runner.logger.info(change)
        for warning in self.warnings:
            runner.logger.warning(warning)
        train_vocabularies(runner.cfg)


def prepare(config: Config, micro_batch: int | None = None) -> Prepared:
    """Prepare a config for its runner, wherever it runs; on the CPU, start the process group that several processes need.

    Three things in the config are changed, each with a line in the log: what several processes need (:func:`distribute`), the
    input and strides of the model according to the weights that it starts from (:func:`follow_weights`) and, if asked for, how
    a step is divided (:func:`~clipbert_mm.engine.global_batch.keep_global_batch`). Vocabularies that the config needs are
    trained; see :func:`~clipbert_mm.datasets.train_vocabularies`.

    Args:
        config: A whole config; changed in place.
        micro_batch: As of :func:`build_runner`.

    Raises:
        CheckpointError: If a checkpoint of ``load_from`` cannot be read or is of no known format.
        OptionError: If the launcher did not start this process, a step cannot be divided so, a backend of the visualizer is
            not installed, a number is out of its range, or a setting would have no effect.
    """
    if type_name(config.get("model") or {}).startswith("mmpretrain."):
        compat.import_mmpretrain()
    if names_library(config, "mmaction"):
        compat.import_mmaction_package("Parts")
    compat.remember_config_layouts()
    drop_scope(config)
    check_unused(config)
    check_stages(config)
    check_numbers(config)
    check_averaging(config)
    check_backends(config.get("visualizer") or {})
    if (config.get("randomness") or {}).get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch requires it before the first matrix product
    launched = config.get("launcher", "none") != "none"
    changes = distribute(config) if launched else []
    batch = config.train_dataloader.batch_size if micro_batch is not None else 0
    if micro_batch is not None:
        processes = int(os.environ["WORLD_SIZE"]) if launched else 1
        changes.append(keep_global_batch(config, micro_batch, processes))
    return Prepared(changes, follow_weights(config), batch)


def distribute(config: Config) -> list[str]:
    """Change a config so that it runs in several processes, on GPUs or on CPUs, whatever started them.

    Returns:
        What was changed, as lines for the log.

    Raises:
        OptionError: If the launcher is unknown, or did not start this process.
    """
    changes = []
    if config.launcher == "pytorch" and "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_launcher()
    compat.start_processes(config.launcher, config.get("env_cfg", {}).get("dist_cfg", {}).get("timeout"))
    if config.launcher != "pytorch":
        changes.append(f"launcher is pytorch, whose environment variables are set from those of {config.launcher}.")
        config.launcher = "pytorch"
    backend = ((config.get("env_cfg") or {}).get("dist_cfg") or {}).get("backend", "gloo")
    if not torch.cuda.is_available() and backend != "gloo":
        changes.append(f"Processes talk by gloo, not by {backend} as env_cfg.dist_cfg says, since there is no GPU.")
    if not torch.cuda.is_available():
        default = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "find_unused_parameters": config.get("find_unused_parameters", False),
        }
        config.model_wrapper_cfg = {**default, **config.get("model_wrapper_cfg", {}), "device_ids": None}
        changes.append("model_wrapper_cfg has device_ids=None, since there is no GPU.")
    for name in ("val_evaluator", "test_evaluator"):
        for metric in metrics_of(config.get(name)):
            if isinstance(metric, dict) and "collect_device" not in metric:
                metric["collect_device"] = "gpu"  # over the process group; "cpu" means files in a shared folder
                changes.append(
                    f"{name}: {metric.get('type')} collects results over the process group, not through files."
                )
    return changes


def follow_weights(config: Config) -> list[str]:
    """Adapt the input and the strides of a config's model to the weights that it starts from or is resumed from.

    ``own_input=True`` of CheckpointCompatibilityHook leaves the config as it is.

    Returns:
        What was changed, as lines for the log.

    Raises:
        CheckpointError: If a checkpoint cannot be read or is of no known format.
    """
    latest, _ = find_resumed(config.get("resume"), config)
    paths = latest or config.get("load_from")
    hooks = [*(config.get("default_hooks") or {}).values(), *(config.get("custom_hooks") or [])]
    changes: list[str] = []
    if any(isinstance(hook, Mapping) and hook.get("own_input") for hook in hooks):
        return changes
    for path in [paths] if isinstance(paths, str) else paths or ():
        spec = read_source(path).input_spec
        if spec is not None and foreign_model(config) is None:
            changes += [f"{path} changes {change}." for change in adapt_to_weights(config.model, spec)]
    if changes:
        changes.append("To keep what the config says, set default_hooks.checkpoint_fit.own_input=True.")
    return changes


def check_backends(visualizer: dict[str, Any]) -> None:
    """Check that the packages that the visualizer's backends need are installed.

    Raises:
        OptionError: If one is not.
    """
    needed = {"TensorboardVisBackend": "tensorboard", "WandbVisBackend": "wandb"}
    for backend in visualizer.get("vis_backends") or ():
        package = needed.get(type_name(backend).removeprefix("mmengine."))
        if package and importlib.util.find_spec(package) is None:
            raise OptionError(
                f"The visualizer's {type_name(backend)} needs {package}, which is not installed: pip install {package}"
            )


def adapt_to_weights(model: dict[str, Any], spec: InputSpec) -> list[str]:
    """Adapt the input and the strides of a model's config to its weights.

    Args:
        model: Config of a ClipBert; changed in place.
        spec: The preprocessing and strides that the weights were trained with.

    Returns:
        What was changed.
    """
    preprocessor, backbone = model["data_preprocessor"], model["backbone"]
    settings = spec.to_dict()
    style = settings.pop("style")
    mean, std = tuple(preprocessor["mean"]), tuple(preprocessor["std"])
    before = InputSpec(mean, std, preprocessor.get("to_bgr", False), None)
    changes = []
    if not before.agrees(spec):
        preprocessor.update(
            {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}
        )
        changes.append(f"the input from {before} to {InputSpec(**settings, style=None)}")
    if style is not None and type_name(backbone) == "mmpretrain.ResNet" and backbone.get("style", "pytorch") != style:
        changes.append(f"the strides of the ResNet from {backbone.get('style', 'pytorch')}'s style to {style}'s")
        backbone["style"] = style
    return changes


def use_amp(config: Config, dtype: str = "auto") -> None:
    """Change a config to train in mixed precision.

    Args:
        config: The config; its optimizer wrapper is changed.
        dtype: "fp16" (with loss scaling), "bf16", or "auto": the config's, or fp16 on a GPU and bf16 on a CPU.

    Raises:
        OptionError: If the config has another optimizer wrapper than ours, or this machine cannot compute in ``dtype``.
    """
    mixed = "AmpAccumulatingOptimWrapper"
    wrapper = type_name({"type": mixed, **config.optim_wrapper})
    if NAMES_IN_CONFIGS.get(wrapper, wrapper) not in ("AccumulatingOptimWrapper", mixed):
        raise OptionError(
            f"--amp replaces AccumulatingOptimWrapper by {mixed}, but optim_wrapper.type of the config is {wrapper}. Set mixed "
            "precision in the config."
        )
    config.optim_wrapper.type = mixed
    chosen = compat.half_precision(config.optim_wrapper.get("dtype", dtype) if dtype == "auto" else dtype)
    config.optim_wrapper.dtype = str(chosen).removeprefix("torch.")


def use_amp_in_test(config: Config, dtype: str = "auto") -> None:
    """Change a config to test in mixed precision; the arguments are those of :func:`use_amp`.

    Raises:
        OptionError: If this machine cannot compute in ``dtype``.
    """
    chosen = compat.half_precision(dtype)
    if type_name(config.test_cfg) == "RetrievalTestLoop":
        config.test_cfg.precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}[chosen]
        return
    config.test_cfg.fp16 = True  # MMEngine's name for half precision of any type
    torch.set_autocast_dtype("cuda" if torch.cuda.is_available() else "cpu", chosen)
