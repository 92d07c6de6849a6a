"""Stand-ins for what numpy's arrays are pickled by; they build arrays of numbers or letters and nothing else.

numpy's own take the flags of a type from the file, so that a forged one reads memory at addresses that the file chooses.
"""

import math
import pickle
from typing import Any

import numpy as np

MOST_AXES = 32
"""Axes of an array, as numpy 1 has them."""


class PlainType:
    """Stands for ``numpy.dtype``: notes which type a file names."""

    def __init__(self, code: str, *flags: bool) -> None:
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple) -> None:
        self.order = state[1] if state[1] in ("<", ">") else "="

    def resolve(self) -> np.dtype:
        """Return the type.

        Raises:
            pickle.UnpicklingError: If it is not one of numbers or letters.
        """
        if not isinstance(self.code, str) or self.code[:1] not in "biufcSU" or not self.code[1:].isdigit():
            raise pickle.UnpicklingError(f"ARRAY of {self.code}")
        return np.dtype(self.code) if self.order == "=" else np.dtype(self.order + self.code)


class PlainArray(np.ndarray):
    """Stands for ``numpy.ndarray``: empty until it gets its state, which is checked. It is pickled as any other."""

    def __new__(cls, *arguments: Any) -> "PlainArray":  # noqa: ANN401, D102
        raise pickle.UnpicklingError("ARRAY of a size without values")

    def __setstate__(self, state: tuple) -> None:
        _, shape, plain_type, fortran, data = state
        dtype = plain_type.resolve()
        data = data.encode("latin1") if isinstance(data, str) else data  # bytes of Python 2
        if len(shape) > MOST_AXES:
            raise pickle.UnpicklingError(f"ARRAY of {len(shape)} axes")
        if not isinstance(data, bytes) or len(data) != math.prod(shape) * dtype.itemsize or min(shape, default=0) < 0:
            raise pickle.UnpicklingError(f"ARRAY of {plain_type.code} whose size is another than its shape")
        super().__setstate__((1, shape, dtype, bool(fortran), data))  # type: ignore[arg-type]

    def __reduce_ex__(self, protocol: Any) -> Any:  # noqa: ANN401
        return np.array(self, subok=False).__reduce_ex__(protocol)


def reconstruct(*arguments: Any) -> PlainArray:  # noqa: ANN401
    """Stand for numpy's ``_reconstruct``: an empty array, which is given its state next."""
    return np.ndarray.__new__(PlainArray, (0,), np.uint8)


def from_buffer(data: bytes, plain_type: PlainType, shape: tuple[int, ...], order: str, *more: Any) -> np.ndarray:  # noqa: ANN401
    """Stand for numpy's ``_frombuffer``, which protocol 5 has instead."""
    return np.frombuffer(bytes(data), plain_type.resolve()).reshape(shape, order="F" if order == "F" else "C").copy()


def scalar(plain_type: PlainType, data: bytes | str) -> np.generic:
    """Stand for numpy's ``scalar``: one number."""
    data = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(data, plain_type.resolve())[0]


STAND_INS: dict[str, Any] = {"numpy.ndarray": PlainArray, "numpy.dtype": PlainType} | {
    f"numpy.{core}.{name}": stand_in  # numpy 1 and 2 name them by other modules
    for core in ("core", "_core")
    for name, stand_in in (
        ("multiarray._reconstruct", reconstruct),
        ("multiarray.scalar", scalar),
        ("numeric._frombuffer", from_buffer),
    )
}
"""What takes the place of numpy's names in a pickle."""
