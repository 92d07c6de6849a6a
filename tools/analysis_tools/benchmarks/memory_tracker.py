"""How much memory a step's tensors take, counted where they are made; also of steps that nobody computes."""

import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, each memory once, and their peak.

    It is what ``torch.cuda.max_memory_allocated`` reports, but for the work space that a library's kernels take for themselves
    and for the allocator's rounding.

    Args:
        tensors: What is there before.
    """

    def __init__(self, *tensors: Tensor) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()
        for tensor in tensors:
            self.note(tensor)

    def note(self, tensor: Tensor) -> Tensor:
        """Count a tensor's memory, until it is freed."""
        storage = tensor.untyped_storage()
        if storage not in self.known:
            self.known.add(storage)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._free, storage.nbytes())
        return tensor

    def _free(self, size: int) -> None:
        self.now -= size

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        """Run an operator and note what it returns."""
        return tree_map_only(Tensor, self.note, func(*args, **(kwargs or {})))


@contextmanager
def without_computing(model: nn.Module, device: str) -> Iterator[None]:
    """Let tensors have shapes, types and a device, but no memory: steps of any size in seconds, on a device that is not there.

    Packing of pairs (``pack_pairs``) needs the lengths of the texts, so it is switched off: such a model takes less.

    Args:
        model: A model, whose weights are lost.
        device: The device's type, "cpu" or "cuda".
    """
    with FakeTensorMode(allow_non_fake_inputs=True):
        model.to_empty(device=device)
        model.pack_pairs = False
        yield
