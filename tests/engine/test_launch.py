"""From a config to a runner: mixed precision by one option, several processes where they can work."""

import pytest
import torch
from mmengine.config import Config

from clipbert_mm.compat import CpuAmpOptimWrapper
from clipbert_mm.engine.launch import build_runner, use_amp


@pytest.mark.parametrize(("gpu", "wrapper"), [(False, "CpuAmpOptimWrapper"), (True, "AmpOptimWrapper")])
def test_amp_chooses_by_the_machine(runner_config: Config, monkeypatch: pytest.MonkeyPatch, gpu: bool, wrapper: str):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    use_amp(runner_config)
    assert runner_config.optim_wrapper.type == wrapper
    assert runner_config.optim_wrapper.get("loss_scale") == ("dynamic" if gpu else None)
    assert runner_config.optim_wrapper.optimizer.lr == 1e-3


def test_amp_on_the_cpu_trains(runner_config: Config):
    use_amp(runner_config)
    runner = build_runner(runner_config)
    seen = set()
    runner.model.encoder.register_forward_hook(lambda module, inputs, states: seen.add(states.dtype))
    runner.train()
    assert isinstance(runner.optim_wrapper, CpuAmpOptimWrapper)
    losses = runner.message_hub.get_scalar("train/loss").data[0]
    assert all(0 < loss < 2 for loss in losses)
    assert len(losses) == 6
    linear = runner.model.head.classifier[0].weight
    assert linear.dtype == torch.float32, "the weights stay in single precision"


def test_amp_keeps_its_hands_off_other_wrappers(runner_config: Config):
    runner_config.optim_wrapper.type = "ApexOptimWrapper"
    with pytest.raises(ValueError, match="--amp replaces OptimWrapper, but the config has ApexOptimWrapper"):
        use_amp(runner_config)


def test_only_one_launcher_works_without_gpus(runner_config: Config):
    runner_config.launcher = "slurm"
    with pytest.raises(ValueError, match=r"Without a GPU only --launcher pytorch works, got slurm\."):
        build_runner(runner_config)
