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
    launcher = config.get("launcher", "none")
    if launcher != "none" and not torch.cuda.is_available():
        compat.start_gloo(launcher)
        config.model_wrapper_cfg = dict(type="MMDistributedDataParallel", device_ids=None)
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
