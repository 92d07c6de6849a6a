"""From a config to a Runner, wherever it runs: one process or several, on GPUs or on the CPU."""

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
from clipbert_mm.engine.hooks.checkpoint_hook import checkpoint_folders
from clipbert_mm.engine.runner import ClipBertRunner
from clipbert_mm.engine.signals import end_with_launcher
from clipbert_mm.errors import OptionError


def build_runner(config: Config) -> Runner:
    """Build the Runner; on the CPU, start the process group that several processes need.

    Vocabularies that the config asks for are trained; see :func:`~clipbert_mm.datasets.train_vocabularies`.

    Args:
        config: A whole config, with ``launcher``. What of the model follows from the weights it starts from is changed.

    Raises:
        CheckpointError: If a checkpoint of ``load_from`` cannot be read or is of no known kind.
    """
    for name, loader in config.items():
        if name.endswith("_dataloader") and isinstance(loader, dict) and not loader.get("num_workers"):
            loader.pop("persistent_workers", None)  # torch refuses it where there is no worker
    if str(config.get("model", {}).get("type", "")).startswith("mmpretrain."):
        compat.import_mmpretrain()
    check_backends(config.get("visualizer") or {})
    if config.get("randomness", {}).get("deterministic"):
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which torch asks for before the first product
    if config.get("launcher", "none") != "none":
        distribute(config)
    paths = config.get("load_from")
    if paths is None and config.get("resume"):
        paths, _ = find_latest(*checkpoint_folders(config.work_dir, config))
    changes, is_foreign = {}, foreign_model(config) is not None
    for path in [paths] if isinstance(paths, str) else paths or ():
        convention = read_source(path).convention
        changes[path] = [] if convention is None or is_foreign else follow(config.model, convention)
    runner = ClipBertRunner.from_cfg(config)
    train_vocabularies(config)
    for path, changed in changes.items():
        if changed:
            runner.logger.warning(f"{path} changes the {' and the '.join(changed)}.")
    return runner


def distribute(config: Config) -> None:
    """Let a config run in several processes, on GPUs or on CPUs, whatever started them.

    Raises:
        OptionError: If the launcher is unknown, or did not start this process.
    """
    if config.launcher == "pytorch" and "TORCHELASTIC_RUN_ID" in os.environ:
        end_with_launcher()
    compat.start_processes(config.launcher, config.get("env_cfg", {}).get("dist_cfg", {}).get("timeout"))
    config.launcher = "pytorch"
    if not torch.cuda.is_available():
        default = {
            "type": "MMDistributedDataParallel",
            "broadcast_buffers": False,
            "find_unused_parameters": config.get("find_unused_parameters", False),
        }
        config.model_wrapper_cfg = {**default, **config.get("model_wrapper_cfg", {}), "device_ids": None}
    for name in ("val_evaluator", "test_evaluator"):
        metrics = config.get(name) or []
        for metric in [metrics] if isinstance(metrics, dict) else metrics:
            # Over the network; "cpu" stands for files in a folder that all machines share.
            metric.setdefault("collect_device", "gpu")


def check_backends(visualizer: dict[str, Any]) -> None:
    """See that what the visualizer writes to is installed.

    Raises:
        OptionError: If it is not.
    """
    needed = {"TensorboardVisBackend": "tensorboard", "WandbVisBackend": "wandb"}
    for backend in visualizer.get("vis_backends") or ():
        package = needed.get(backend.get("type"))
        if package and importlib.util.find_spec(package) is None:
            raise OptionError(
                f"The visualizer's {backend['type']} needs {package}, which is missing: pip install {package}"
            )


def follow(model: dict[str, Any], convention: InputSpec) -> list[str]:
    """Let the input and the strides of a model's config follow from the weights that it starts from.

    Args:
        model: Config of a ClipBert; changed in place.
        convention: What the weights take for granted.

    Returns:
        What was changed.
    """
    frames, backbone = model["data_preprocessor"], model["backbone"]
    wanted = convention.to_dict()
    style = wanted.pop("style")
    frames_now = InputSpec(tuple(frames["mean"]), tuple(frames["std"]), frames.get("to_bgr", False), None)
    changes = []
    if not frames_now.agrees(convention):
        frames.update({key: list(value) if isinstance(value, tuple) else value for key, value in wanted.items()})
        changes.append(f"input from {frames_now} to {InputSpec(**wanted, style=None)}")
    if style is not None and backbone["type"] == "mmpretrain.ResNet" and backbone.get("style", "pytorch") != style:
        changes.append(f"strides of the ResNet from {backbone.get('style', 'pytorch')}'s style to {style}'s")
        backbone["style"] = style
    return changes


def use_amp(config: Config, dtype: str = "auto") -> None:
    """Let a config train in mixed precision.

    Args:
        config: The config; its optimizer wrapper is changed.
        dtype: "fp16" (with loss scaling), "bf16", or "auto": what the config says, else fp16 on a GPU and bf16 on a CPU.

    Raises:
        OptionError: If the config has an optimizer wrapper of its own kind, or this machine cannot compute in ``dtype``.
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
    """Let a config test in mixed precision; arguments as of :func:`use_amp`.

    Raises:
        OptionError: If this machine cannot compute in ``dtype``.
    """
    chosen = compat.half_precision(dtype)
    if config.test_cfg.get("type") == "RetrievalTestLoop":
        config.test_cfg.precision = {torch.float16: "fp16", torch.bfloat16: "bf16"}[chosen]
        return
    config.test_cfg.fp16 = True  # MMEngine's word for half precision of any type
    torch.set_autocast_dtype("cuda" if torch.cuda.is_available() else "cpu", chosen)
