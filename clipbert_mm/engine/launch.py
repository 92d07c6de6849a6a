"""From a config to a Runner, wherever it runs: one process or several, on GPUs or on the CPU."""

import torch
from mmengine.config import Config
from mmengine.runner import Runner

from clipbert_mm import compat


def build_runner(config: Config) -> Runner:
    """Build MMEngine's Runner; on the CPU, start the process group that several processes need.

    Args:
        config: A whole config, with ``launcher``.
    """
    for name, loader in config.items():
        if name.endswith("_dataloader") and isinstance(loader, dict) and not loader.get("num_workers"):
            loader.pop("persistent_workers", None)  # torch refuses it where there is no worker
    launcher = config.get("launcher", "none")
    if launcher != "none" and not torch.cuda.is_available():
        compat.start_gloo(launcher)
        wrapper = config.get("model_wrapper_cfg", {"type": "MMDistributedDataParallel"})
        config.model_wrapper_cfg = {**wrapper, "device_ids": None}
    return Runner.from_cfg(config)


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
