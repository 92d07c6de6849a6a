"""FLOPs of a model by module, counted twice: by fvcore and by torch."""

import torch
from fvcore.nn import FlopCountAnalysis, flop_count_table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from clipbert_mm import compat
from clipbert_mm.models import ClipBert

MULTIPLICATIONS = ("conv", "addmm", "matmul", "linear", "bmm", "baddbmm", "einsum", "scaled_dot_product_attention")
"""Operators that torch's counter knows; fvcore counts normalizations too."""


class Pair(nn.Module):
    """Videos with texts, as a module of plain tensors that fvcore can trace."""

    def __init__(self, model: ClipBert) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensor, text_ids: Tensor, text_mask: Tensor, video_index: Tensor) -> Tensor:
        """Return clip logits, by the passes of training."""
        states = self.model.fuse(self.model.encode_video(frames), text_ids, text_mask, video_index)
        return self.model.head(self.model.encoder.pool(states))


class ModuleFlops:
    """Multiply-adds of one video of K clips of T frames with one text, in inference.

    Args:
        model: A ClipBert.
        clips: Clips K.
        frames: Frames T of a clip.
        size: Height and width of a frame, in pixels.
        length: Tokens L of the text.
    """

    def __init__(self, model: ClipBert, *, clips: int, frames: int, size: int, length: int) -> None:
        self.pair = Pair(model.eval())
        device = next(model.parameters()).device
        self.inputs = (
            torch.zeros(1, clips, frames, 3, size, size, device=device),
            torch.zeros(1, length, dtype=torch.long, device=device),
            torch.ones(1, length, dtype=torch.long, device=device),
            torch.zeros(1, dtype=torch.long, device=device),
        )
        self.analysis = FlopCountAnalysis(self.pair, self.inputs)
        self.analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        self.analysis.set_op_handle("aten::scaled_dot_product_attention", compat.count_attention)

    @property
    def total(self) -> float:
        """Multiply-adds by fvcore, of convolutions, matrix products, attention and normalizations."""
        return self.analysis.total()

    @property
    def multiplications(self) -> float:
        """Multiply-adds by fvcore of what torch's counter knows too, which is all but normalizations."""
        return sum(count for name, count in self.analysis.by_operator().items() if name in MULTIPLICATIONS)

    def by_part(self) -> dict[str, float]:
        """Return multiply-adds by part of the model."""
        counted = self.analysis.by_module()
        return {
            name: counted[f"model.{name}"] for name, _ in self.pair.model.named_children() if counted[f"model.{name}"]
        }

    def table(self, depth: int) -> str:
        """Return a table of multiply-adds and parameters by module."""
        return flop_count_table(self.analysis, max_depth=depth + 1)

    def by_torch(self) -> int:
        """Count multiply-adds with torch's own counter, which sees the operators as they run."""
        with torch.no_grad(), step_flops() as counter:
            self.pair(*self.inputs)
        return counter.get_total_flops() // 2


def step_flops() -> FlopCounterMode:
    """Return torch's counter of FLOPs (a multiply-add is two), to be entered around any passes, backward too.

    Attention on CPUs, which the counter of torch < 2.15 leaves out, is added to it.
    """
    operators = torch.ops.aten
    return FlopCounterMode(
        display=False,
        custom_mapping={
            operators._scaled_dot_product_flash_attention_for_cpu: _attention,
            operators._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        },
    )


def _attention(query: torch.Size, key: torch.Size, value: torch.Size, *rest: object, **options: object) -> int:
    return sdpa_flop_count(query, key, value)


def _attention_backward(
    gradient: torch.Size, query: torch.Size, key: torch.Size, value: torch.Size, *rest: object, **options: object
) -> int:
    return sdpa_backward_flop_count(gradient, query, key, value)
