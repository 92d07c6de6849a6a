"""Build the Runner of a config, wherever it runs: in one process or several, on GPUs or on the CPU."""

import importlib.util
import os
from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from clipbert_mm import compat
from clipbert_mm.checkpoint import InputSpec, find_latest, read_source
from clipbert_mm.datasets import train_vocabularies
from clipbert_mm.deprecation import NAMES_IN_CONFIGS
from clipbert_mm.engine.config import foreign_model
from clipbert_mm.engine.global_batch import describe_batch_statistics, keep_global_batch
from clipbert_mm.engine.hooks.checkpoint_hook import checkpoint_folders
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.engine.signals import end_with_launcher
from clipbert_mm.errors import OptionError


def build_runner(config: Config, *, micro_batch: int | None = None) -> Runner:
    """Build the Runner; on the CPU, start the process group that several processes need.

    Three things in the config are changed, each with a line in the log: what several processes need (:func:`distribute`), the
    input and strides of the model according to the weights that it starts from (:func:`follow_weights`) and, if asked for, how
    a step is divided (:func:`~clipbert_mm.engine.global_batch.keep_global_batch`). Vocabularies that the config needs are
    trained; see :func:`~clipbert_mm.datasets.train_vocabularies`.

    Args:
        config: A whole config, with ``launcher``.
        micro_batch: Items that a process computes at a time, 0 for the config's, so that a step has as many items as the
            learning rate is for; None for the config's batch size and accumulation.

    Raises:
        CheckpointError: If a checkpoint of ``load_from`` cannot be read or is of no known format.
        OptionError: If the launcher did not start this process, a step cannot be divided so, or a backend of the visualizer is
            not installed.
    """
    if str(config.get("model", {}).get("type", "")).startswith("mmpretrain."):
        compat.import_mmpretrain()
    compat.remember_config_layouts()
    check_backends(config.get("visualizer") or {})
    if config.get("randomness", {}).get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # torch requires it before the first matrix product
    launched = config.get("launcher", "none") != "none"
    changes = distribute(config) if launched else []
    batch = config.train_dataloader.batch_size if micro_batch is not None else 0
    if micro_batch is not None:
        processes = int(os.environ["WORLD_SIZE"]) if launched else 1
        changes.append(keep_global_batch(config, micro_batch, processes))
    warnings = follow_weights(config)
    runner = ClipBertRunner.from_cfg(config)
    if micro_batch is not None and config.train_dataloader.batch_size < batch:
        warnings += describe_batch_statistics(runner, batch)
    for change in changes:
        runner.logger.info(change)
    for warning in warnings:
        runner.logger.warning(warning)
    train_vocabularies(config)
    return runner


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
    if not torch.cuda.is_available():
        default = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "find_unused_parameters": config.get("find_unused_parameters", False),
        }
        config.model_wrapper_cfg = {**default, **config.get("model_wrapper_cfg", {}), "device_ids": None}
        changes.append("model_wrapper_cfg has device_ids=None, since there is no GPU.")
    for name in ("val_evaluator", "test_evaluator"):
        metrics = config.get(name) or []
        for metric in [metrics] if isinstance(metrics, dict) else metrics:
            if "collect_device" not in metric:
                metric["collect_device"] = "gpu"  # over the process group; "cpu" means files in a shared folder
                changes.append(
                    f"{name}: {metric.get('type')} collects results over the process group, not through files."
                )
    return changes


def follow_weights(config: Config) -> list[str]:
    """Adapt the input and the strides of a config's model to the weights that it starts from or is resumed from.

    Returns:
        What was changed, as lines for the log.

    Raises:
        CheckpointError: If a checkpoint cannot be read or is of no known format.
    """
    paths = config.get("load_from")
    if paths is None and config.get("resume"):
        paths, _ = find_latest(*checkpoint_folders(config.work_dir, config))
    changes = []
    for path in [paths] if isinstance(paths, str) else paths or ():
        spec = read_source(path).input_spec
        if spec is not None and foreign_model(config) is None:
            changes += [f"{path} changes {change}." for change in adapt_to_weights(config.model, spec)]
    return changes


def check_backends(visualizer: dict[str, Any]) -> None:
    """Check that the packages that the visualizer's backends need are installed.

    Raises:
        OptionError: If one is not.
    """
    needed = {"TensorboardVisBackend": "tensorboard", "WandbVisBackend": "wandb"}
    for backend in visualizer.get("vis_backends") or ():
        package = needed.get(backend.get("type"))
        if package and importlib.util.find_spec(package) is None:
            raise OptionError(
                f"The visualizer's {backend['type']} needs {package}, which is not installed: pip install {package}"
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
    if style is not None and backbone["type"] == "mmpretrain.ResNet" and backbone.get("style", "pytorch") != style:
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
    wrapper = config.optim_wrapper.get("type", mixed)
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
    if config.test_cfg.get("type") == "RetrievalTestLoop":
        config.test_cfg.precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}[chosen]
        return
    config.test_cfg.fp16 = True  # MMEngine's name for half precision of any type
    torch.set_autocast_dtype("cuda" if torch.cuda.is_available() else "cpu", chosen)
