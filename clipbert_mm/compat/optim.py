"""Work-arounds for the optimiser wrappers of upstream releases."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper

from clipbert_mm.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class CpuAmpOptimWrapper(OptimWrapper):
    """Mixed precision on the CPU, in bfloat16.

    For MMEngine 0.10.7, whose AmpOptimWrapper refuses CPUs. bfloat16 has float32's range, so no loss scaling is needed.
    Arguments are those of MMEngine's OptimWrapper.
    """

    @contextmanager
    def optim_context(self, model: torch.nn.Module) -> Iterator[None]:
        """Run the forward pass of a step in bfloat16 autocast."""
        with super().optim_context(model), torch.autocast("cpu", dtype=torch.bfloat16):
            yield
