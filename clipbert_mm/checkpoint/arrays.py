"""Replacements for the functions that numpy's arrays are pickled with; they build only arrays of numbers or text.

numpy's own functions take the flags of a type from the file, so that a forged file reads memory at addresses of its choice.
"""

import math
import pickle
from typing import Any

import numpy as np

MAX_AXES = 32
"""Most axes of an array, as in numpy 1."""


class PlainType:
    """Replace ``numpy.dtype``: store the type that a file names."""

    def __init__(self, code: str, *flags: bool) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def resolve(self) -> np.dtype:
        """Return the type.

        Raises:
            pickle.UnpicklingError: If it is not a type of numbers or text.
        """
        if not isinstance(self.code, str) or self.code[:1] not in "biufcSU" or not self.code[1:].isdigit():
            raise pickle.UnpicklingError(f"ARRAY of {self.code}")
        return np.dtype(self.code) if self.order == "=" else np.dtype(self.order + self.code)


class PlainArray(np.ndarray):
    """Replace ``numpy.ndarray``: empty until it gets its state, which is checked. It is pickled like any other array."""

    def __new__(cls, *arguments: Any) -> "PlainArray":  # noqa: ANN401, D102
        raise pickle.UnpicklingError("ARRAY of a size without values")

    def __setstate__(self, state: tuple) -> None:
        _, shape, plain_type, fortran, data = state
        dtype = plain_type.resolve()
        data = data.encode("latin1") if isinstance(data, str) else data  # bytes of Python 2
        if len(shape) > MAX_AXES:
            raise pickle.UnpicklingError(f"ARRAY of {len(shape)} axes")
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
            raise pickle.UnpicklingError(f"ARRAY of {plain_type.code} whose size differs from its shape")
        super().__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401
        return np.array(self, subok=False).__reduce_ex__(protocol)


def reconstruct(*arguments: Any) -> PlainArray:  # noqa: ANN401
    """Replace numpy's ``_reconstruct``: return an empty array, whose state is set next."""
    return np.ndarray.__new__(PlainArray, (0,), np.uint8)


def from_buffer(data: bytes, plain_type: PlainType, shape: tuple[int, ...], order: str, *more: Any) -> np.ndarray:  # noqa: ANN401
    """Replace numpy's ``_frombuffer``, which pickle's protocol 5 uses."""
    return np.frombuffer(bytes(data), plain_type.resolve()).reshape(shape, order="F" if order == "F" else "C").copy()


def scalar(plain_type: PlainType, data: bytes | str) -> np.generic:
    """Replace numpy's ``scalar``: return one number."""
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, plain_type.resolve())[0]


STAND_INS: dict[str, Any] = {"numpy.ndarray": PlainArray, "numpy.dtype": PlainType} | {
    f"numpy.{core}.{name}": stand_in  # their modules have different names in numpy 1 and 2
    for core in ("core", "_core")
    for name, stand_in in (
        ("multiarray._reconstruct", reconstruct),
        ("multiarray.scalar", scalar),
        ("numeric._frombuffer", from_buffer),
    )
}
"""The replacement of each of numpy's names in a pickle."""
