"""A second device without a GPU: torch's meta device, on which tensors have shapes and no values.

On a machine without a GPU nothing notices a tensor that was left on the CPU. Under :class:`OneDevice` tensors of the meta
device behave as those of a GPU do: an operation on tensors of both devices fails, and what needs values gets ones.
"""

from typing import Any

import torch
from torch import Tensor
from torch.fx.experimental import _config
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

ATEN = torch.ops.aten
COPIES = {ATEN._to_copy.default, ATEN.copy_.default}
"""Operations that may read from one device and write to the other."""
INDEXING = {ATEN.index.Tensor, ATEN.index_put_.default, ATEN.index_put.default}
"""Operations in which a GPU takes indices of the CPU."""


class OneDevice(TorchDispatchMode):
    """Let the meta device stand for a GPU.

    Raises:
        RuntimeError: If an operation has tensors of the meta device and of the CPU, except for numbers without a dimension.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        """Do an operation on one device."""
        kwargs = kwargs or {}
        tensors = [each for each in tree_leaves((args, kwargs)) if isinstance(each, Tensor)]
        on_meta = any(each.is_meta for each in tensors)
        if func is ATEN._local_scalar_dense.default and on_meta:
            return torch.ones((), dtype=tensors[0].dtype).item()
        if func is ATEN._to_copy.default and on_meta and torch.device(kwargs.get("device") or "meta").type == "cpu":
            return torch.ones(tensors[0].shape, dtype=kwargs.get("dtype") or tensors[0].dtype)
        compared = tensors[:1] if func in INDEXING else [each for each in tensors if each.ndim]
        compared += [each for each in tensors if each.is_meta]
        if func not in COPIES and len({each.device for each in compared}) > 1:
            raise RuntimeError(
                f"{func} has tensors on {' and '.join(sorted({str(each.device) for each in compared}))}."
            )
        with _config.patch(meta_nonzero_assume_all_nonzero=True):  # a mask of bools keeps everything
            return func(*args, **kwargs)
