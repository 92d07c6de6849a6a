"""FLOPs: fvcore and torch agree on what both count, forward and backward by hand."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from benchmarks.flops import ModuleFlops, step_flops
from torch import nn

from clipbert_mm.engine.config import load_config
from clipbert_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[3]
RETRIEVAL = str(ROOT / "configs/shapes/clipbert_tiny_1xb16-2x2-4e_shapes-retrieval.py")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_both_counters_agree(attention: str):
    config = load_config(RETRIEVAL, {"model.encoder.attention": attention})
    flops = ModuleFlops(MODELS.build(config.model), clips=2, frames=2, size=64, length=11)
    assert flops.by_torch() == pytest.approx(flops.multiplications, rel=0.01)
    assert flops.multiplications < flops.total < 1.05 * flops.multiplications, "normalizations are few"
    assert sum(flops.by_part().values()) == pytest.approx(flops.total, rel=1e-6)
    assert {"backbone", "projection", "encoder", "head"} <= set(flops.by_part())


def test_attention_of_a_step_is_counted_forward_and_backward():
    query, key, value = (torch.randn(2, 3, 5, 8, requires_grad=True) for _ in range(3))
    with step_flops() as counter:
        out = nn.functional.scaled_dot_product_attention(query, key, value)
        assert counter.get_total_flops() == 2 * 2 * (2 * 3 * 5 * 5 * 8), "q·k and weights·v, a multiply-add is two"
        out.sum().backward()
    # Backward: the weights once more, and two products for each of the two forward.
    assert counter.get_total_flops() == (2 + 5) * 2 * (2 * 3 * 5 * 5 * 8)


def test_frozen_parts_cost_no_backward_pass(model_config: dict, make_batch: Callable):
    def counted(**options: object) -> tuple[int, int]:
        model = MODELS.build(model_config | options).train()
        prepared = model.data_preprocessor(make_batch())
        with step_flops() as counter:
            loss, _ = model.parse_losses(model(**prepared, mode="loss"))
            forward = counter.get_total_flops()
            loss.backward()
        return forward, counter.get_total_flops() - forward

    forward, backward = counted()
    assert 1.8 * forward < backward < 2.3 * forward
    frozen = counted(frozen=["visual_encoder"])
    assert frozen[0] == forward
    assert frozen[1] < backward
    assert counted(clip_sequential=True)[1] == pytest.approx(backward + forward / 2, rel=0.02), "one of two clips again"
