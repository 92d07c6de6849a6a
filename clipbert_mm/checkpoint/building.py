"""Building a model from what a checkpoint says of it, with no more time and memory than its weights account for."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from clipbert_mm.errors import CheckpointError, ClipBertError, printable, quoted
from clipbert_mm.registry import MODELS

SPARE_BYTES = 2**26
"""What a model may take beside its weights while it is built, for buffers and a try with three words."""
TIMES = 3
"""How many times its weights a model may take, whose tensors are made, initialized and moved."""
USUAL = 4096
"""Largest number in a config of a small model, such as the side of a frame in pixels."""
SPARE_OPERATIONS = 1500
OPERATIONS_A_TENSOR = 20
"""Operations of torch that initialize a tensor, counted freely. A BERT-base with a ResNet-50 takes 5, models of timm 8."""


def build_model(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str) -> nn.Module:
    """Build the model of a checkpoint, for its weights: those that would be initialized at random are zeros.

    Args:
        config: Config of the model, checked by :mod:`clipbert_mm.trusted`.
        tensors: The checkpoint's tensors.
        path: The checkpoint.

    Raises:
        CheckpointError: If the config does not make a model, or one that is larger than the checkpoint's.
    """
    size = sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
    bounded = Bounded(TIMES * size + SPARE_BYTES, OPERATIONS_A_TENSOR * len(tensors) + SPARE_OPERATIONS)
    with damaged_metadata(path):
        _check_numbers(config, max((side for tensor in tensors.values() for side in tensor.shape), default=0))
        try:
            with bounded, WithoutInitialization(), DefaultScope.overwrite_default_scope("clipbert_mm"):
                return MODELS.build(config)
        finally:
            bounded.check()  # a class may have put the error into words of its own


def _check_numbers(config: Any, largest: int) -> None:  # noqa: ANN401
    """See that no number of a config is larger than what the sides of the weights and usual settings account for."""
    inner = config.values() if isinstance(config, Mapping) else config if isinstance(config, (list, tuple)) else ()
    for value in inner:
        _check_numbers(value, largest)
    if isinstance(config, (int, float)) and abs(config) > max(largest, USUAL):
        raise CheckpointError(
            f"the model that it describes is larger than the weights account for (a size of {quoted(config)}; the largest side "
            f"of a tensor is {largest:,}). It is damaged or forged; take another copy."
        )


@contextmanager
def damaged_metadata(path: str) -> Iterator[None]:
    """Take what fails within for a fault of a checkpoint's contents.

    Raises:
        CheckpointError: What failed, with the name of the checkpoint.
    """
    try:
        yield
    except CheckpointError as error:
        if printable(path) in str(error):
            raise
        raise CheckpointError(f"{printable(path)}: {error}") from error
    # classes of several libraries are given settings from the file, and each fails in a way of its own
    except Exception as error:
        reason = str(error) if isinstance(error, ClipBertError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{printable(path)} does not say how its model is built, or that is damaged: {quoted(reason)}. Take another copy, "
            "or give its config (.py) with the checkpoint as weights."
        ) from error


class WithoutInitialization(TorchDispatchMode):
    """While it is active, tensors that would be filled with random numbers in this thread are filled with zeros.

    For models whose weights are loaded next: all else that their constructors compute, such as buffers that no checkpoint
    holds, is as ever. Random generators stay as they were.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:  # noqa: ANN401
        """Do an operation, or fill with zeros."""
        if torch.Tag.nondeterministic_seeded in func.tags and func._schema.name.endswith("_"):  # in place
            return args[0].zero_()
        return func(*args, **(kwargs or {}))


class Bounded(TorchDispatchMode):
    """While it is active, torch makes no more tensors in this thread than it may; each operation is first done without memory.

    Args:
        most_bytes: Bytes of all tensors that are made, those that are let go again included.
        most_operations: Operations on tensors.
    """

    def __init__(self, most_bytes: int, most_operations: int) -> None:
        super().__init__()
        self.bytes = self.most_bytes = most_bytes
        self.operations = self.most_operations = most_operations

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:  # noqa: ANN401
        """Do an operation, if what it makes is within the bounds.

        Raises:
            CheckpointError: If it is not.
        """
        options = kwargs or {}
        self.operations -= 1
        self.bytes -= self._size(func, args, options)
        self.check()
        return func(*args, **options)

    def check(self) -> None:
        """See that the bounds were held.

        Raises:
            CheckpointError: If they were not.
        """
        if self.operations < 0 or self.bytes < 0:
            what = f"{self.most_bytes:,} bytes" if self.bytes < 0 else f"{self.most_operations:,} operations"
            raise CheckpointError(
                f"the model that it describes is larger than the weights account for (more than {what} to build it). It is "
                "damaged or forged; take another copy."
            )

    @staticmethod
    def _size(func: Any, args: tuple, options: dict[str, Any]) -> int:  # noqa: ANN401
        """Return the bytes of what an operation makes anew."""
        if any(result.alias_info is not None for result in func._schema.returns):
            return 0  # a view, or changed in place
        with suppress(Exception):  # what cannot be done without memory depends on values, and gives single ones
            on_meta = tree_map_only(Tensor, lambda value: value.to("meta"), (args, options))
            if any(argument.name == "device" for argument in func._schema.arguments):
                on_meta[1]["device"] = torch.device("meta")
            made = func(*on_meta[0], **on_meta[1])
            return sum(math.prod(each.shape) * each.itemsize for each in tree_iter(made) if isinstance(each, Tensor))
        return 0
