"""Build a model from the metadata of a checkpoint, within the time and memory that its weights justify."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, ClassVar

import torch
from mmengine.registry import DefaultScope
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter, tree_map_only

from clipbert_mm.errors import CheckpointError, ClipBertError, printable, quoted
from clipbert_mm.registry import MODELS

SPARE_BYTES = 2**26
"""Bytes that building a model may take in addition to its weights, for buffers and a trial with three tokens."""
MAX_COPIES = 3
"""Copies of the weights that building a model may make, since its tensors are created, initialized and moved."""
USUAL_SIZE = 4096
"""Largest number that is allowed in the config of any model, however small, such as the side of a frame in pixels."""
SPARE_OPERATIONS = 1500
"""Operations of torch that building a model may take in addition to those for its tensors."""
MAX_KNOWN_SIZES = 10_000
"""Operations whose results' sizes are remembered; layers of a model do the same on tensors of the same shapes."""
OPERATIONS_PER_TENSOR = 20
"""Operations of torch that may initialize a tensor. A BERT-base with a ResNet-50 takes 5, models of timm 8."""


def build_model(config: Mapping[str, Any], tensors: Mapping[str, Tensor], path: str) -> nn.Module:
    """Build the model of a checkpoint, ready to load its weights; until then, they are zeros instead of random.

    Args:
        config: Config of the model, checked by :mod:`clipbert_mm.trusted`.
        tensors: The checkpoint's tensors.
        path: The checkpoint.

    Raises:
        CheckpointError: If the config is not valid, or its model is larger than the checkpoint's tensors.
    """
    size = sum(tensor.numel() * tensor.itemsize for tensor in tensors.values())
    bounded = Bounded(MAX_COPIES * size + SPARE_BYTES, OPERATIONS_PER_TENSOR * len(tensors) + SPARE_OPERATIONS)
    with damaged_metadata(path):
        _check_numbers(config, max((side for tensor in tensors.values() for side in tensor.shape), default=0))
        try:
            with bounded, WithoutInitialization(), DefaultScope.overwrite_default_scope("clipbert_mm"):
                return MODELS.build(config)
        finally:
            bounded.check()  # a class may have replaced the error with its own


def _check_numbers(config: Any, largest: int) -> None:  # noqa: ANN401
    """Check that no number in a config is larger than the largest dimension of a tensor, or than usual settings."""
    inner = config.values() if isinstance(config, Mapping) else config if isinstance(config, (list, tuple)) else ()
    for value in inner:
        _check_numbers(value, largest)
    if isinstance(config, (int, float)) and abs(config) > max(largest, USUAL_SIZE):
        raise CheckpointError(
            f"the model that it describes is larger than its weights (a size of {quoted(config)}; the largest dimension of a "
            f"tensor is {largest:,}). It is damaged or forged. Take another copy."
        )


@contextmanager
def damaged_metadata(path: str) -> Iterator[None]:
    """Report any error in this block as damaged metadata of a checkpoint.

    Raises:
        CheckpointError: The error, with the name of the checkpoint.
    """
    try:
        yield
    except CheckpointError as error:
        if printable(path) in str(error):
            raise
        raise CheckpointError(f"{printable(path)}: {error}") from error
    # classes of several libraries get settings from the file, and each raises errors of its own
    except Exception as error:
        reason = str(error) if isinstance(error, ClipBertError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"{printable(path)} does not say how its model is built, or its metadata is damaged: {quoted(reason)}. Take "
            "another copy, or give its config (.py) with the checkpoint as weights."
        ) from error


class WithoutInitialization(TorchDispatchMode):
    """Fill tensors with zeros instead of random numbers in this thread while the mode is active.

    It is for models whose weights are loaded next. Everything else that constructors compute is unchanged, such as buffers
    that no checkpoint has. The states of random generators do not change.
    """

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:  # noqa: ANN401
        """Run an operation, or fill its tensor with zeros."""
        if torch.Tag.nondeterministic_seeded in func.tags and func._schema.name.endswith("_"):  # in place
            return args[0].zero_()
        return func(*args, **(kwargs or {}))


class Bounded(TorchDispatchMode):
    """Limit the memory and the number of torch's operations in this thread while the mode is active.

    The size of each operation's results is computed on torch's meta device first, or known from the same operation before.

    Args:
        max_bytes: Bytes of all tensors that are created, including those that are freed again.
        max_operations: Number of operations.
    """

    known: ClassVar[dict[Any, int]] = {}
    """Bytes of results by operation and arguments, of all models that this process built."""

    def __init__(self, max_bytes: int, max_operations: int) -> None:
        super().__init__()
        self.bytes_left = self.max_bytes = max_bytes
        self.operations_left = self.max_operations = max_operations

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:  # noqa: ANN401
        """Run an operation, if it is within the limits.

        Raises:
            CheckpointError: If it is not.
        """
        options = kwargs or {}
        self.operations_left -= 1
        self.bytes_left -= self._known_bytes(func, args, options)
        self.check()
        return func(*args, **options)

    def check(self) -> None:
        """Check that the limits were kept.

        Raises:
            CheckpointError: If they were not.
        """
        if self.operations_left < 0 or self.bytes_left < 0:
            limit = f"{self.max_bytes:,} bytes" if self.bytes_left < 0 else f"{self.max_operations:,} operations"
            raise CheckpointError(
                f"the model that it describes is larger than its weights (building it takes more than {limit}). It is damaged "
                "or forged. Take another copy."
            )

    @classmethod
    def _known_bytes(cls, func: Any, args: tuple, options: dict[str, Any]) -> int:  # noqa: ANN401
        """Return the bytes of the tensors that an operation creates, which are computed once for arguments of the same form."""
        try:
            form = func, torch.get_default_dtype(), _form(args), _form(tuple(options.items()))
            return cls.known[form]
        except TypeError:  # an argument that has no hash
            return cls._result_bytes(func, args, options)
        except KeyError:
            if len(cls.known) >= MAX_KNOWN_SIZES:
                cls.known.clear()
            return cls.known.setdefault(form, cls._result_bytes(func, args, options))

    @staticmethod
    def _result_bytes(func: Any, args: tuple, options: dict[str, Any]) -> int:  # noqa: ANN401
        """Return the bytes of the tensors that an operation creates."""
        if any(result.alias_info is not None for result in func._schema.returns):
            return 0  # a view, or in place
        devices = [value.device for value in tree_iter((args, options)) if isinstance(value, Tensor)]
        if torch.device("meta") in (options.get("device"), *devices):
            return 0  # it has a shape only
        with suppress(Exception):  # what depends on values has no result on the meta device; it is a single value
            on_meta = tree_map_only(Tensor, lambda value: value.to("meta"), (args, options))
            if any(argument.name == "device" for argument in func._schema.arguments):
                on_meta[1]["device"] = torch.device("meta")
            results = func(*on_meta[0], **on_meta[1])
            return sum(math.prod(each.shape) * each.itemsize for each in tree_iter(results) if isinstance(each, Tensor))
        return 0


def _form(value: Any) -> Any:  # noqa: ANN401
    """Return what the shapes and types of an operation's results depend on in an argument, which may have no hash."""
    if isinstance(value, Tensor):
        return Tensor, value.shape, value.dtype, value.device
    if isinstance(value, (list, tuple)):
        return type(value), tuple(map(_form, value))
    return type(value), value
