"""From a config to a Runner, wherever it runs: one process or several, on GPUs or on the CPU."""

from typing import Any

import torch
from mmengine.config import Config
from mmengine.runner import Runner, find_latest_checkpoint

from clipbert_mm import compat
from clipbert_mm.checkpoint import Convention, read_source
from clipbert_mm.engine.runner import ClipBertRunner


def build_runner(config: Config) -> Runner:
    """Build the Runner; on the CPU, start the process group that several processes need.

    Args:
        config: A whole config, with ``launcher``. What of the model follows from the weights it starts from is changed.

    Raises:
        CheckpointError: If a checkpoint of ``load_from`` cannot be read or is of no known kind.
    """
    for name, loader in config.items():
        if name.endswith("_dataloader") and isinstance(loader, dict) and not loader.get("num_workers"):
            loader.pop("persistent_workers", None)  # torch refuses it where there is no worker
    launcher = config.get("launcher", "none")
    if launcher != "none" and not torch.cuda.is_available():
        compat.start_gloo(launcher)
        wrapper = config.get("model_wrapper_cfg", {"type": "MMDistributedDataParallel"})
        config.model_wrapper_cfg = {**wrapper, "device_ids": None}
    paths = config.get("load_from")
    if paths is None and config.get("resume"):
        paths = find_latest_checkpoint(config.work_dir)
    changes = {}
    for path in [paths] if isinstance(paths, str) else paths or ():
        convention = read_source(path).convention
        changes[path] = [] if convention is None else follow(config.model, convention)
    runner = ClipBertRunner.from_cfg(config)
    for path, changed in changes.items():
        if changed:
            runner.logger.warning(f"{path} changes the {' and the '.join(changed)}.")
    return runner


def follow(model: dict[str, Any], convention: Convention) -> list[str]:
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
    frames_now = Convention(tuple(frames["mean"]), tuple(frames["std"]), frames.get("to_bgr", False), None)
    changes = []
    if not frames_now.agrees(convention):
        frames.update({key: list(value) if isinstance(value, tuple) else value for key, value in wanted.items()})
        changes.append(f"input from {frames_now} to {Convention(**wanted, style=None)}")
    if style is not None and backbone["type"] == "mmpretrain.ResNet" and backbone.get("style", "pytorch") != style:
        changes.append(f"strides of the ResNet from {backbone.get('style', 'pytorch')}'s style to {style}'s")
        backbone["style"] = style
    return changes


def use_amp(config: Config) -> None:
    """Change the optimiser wrapper of a config to mixed precision: fp16 with loss scaling on a GPU, bfloat16 on a CPU.

    Raises:
        ValueError: If the config has an optimiser wrapper of its own kind.
    """
    wrapper = config.optim_wrapper.get("type", "OptimWrapper")
    if wrapper not in ("OptimWrapper", "AmpOptimWrapper", "CpuAmpOptimWrapper"):
        raise ValueError(
            f"--amp replaces OptimWrapper, but the config has {wrapper}. Set mixed precision in the config."
        )
    if torch.cuda.is_available():
        config.optim_wrapper.type = "AmpOptimWrapper"
        config.optim_wrapper.setdefault("loss_scale", "dynamic")
    else:
        config.optim_wrapper.type = "CpuAmpOptimWrapper"
