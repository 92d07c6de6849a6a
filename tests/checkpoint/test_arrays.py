"""Arrays of numbers and text are read as numpy wrote them; no other array is built."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipbert_mm.checkpoint import CheckpointError, read_checkpoint

ARRAYS = {
    "big-endian": np.arange(6, dtype=">f4").reshape(2, 3),
    "little-endian": np.arange(6, dtype="<i8").reshape(3, 2),
    "Fortran order": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "C order": np.arange(6.0).reshape(2, 3),
    "bool": np.array([True, False]),
    "int8": np.array([-1, 2], np.int8),
    "uint16": np.array([1, 2**15], np.uint16),
    "complex": np.array([1 + 2j]),
    "bytes": np.array([b"abc", b"d"]),
    "text": np.array(["ab", "käse"]),
    "no axis": np.array(7.0),
    "32 axes": np.ones((1,) * 32),
    "number": np.float32(1.5),
    "big-endian number": np.arange(6, dtype=">f4")[5],
}


def read_beside_tensor(value: Any, path: Path, write: Any) -> Any:
    """Write a value beside a tensor, and read it again."""
    content = {"model": {"a.weight": np.ones(3, np.float32)}, "x": value}
    if write == "torch":
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, write))
    return read_checkpoint(str(path))["x"]


@pytest.mark.parametrize("write", [0, 2, 4, 5, "torch"])
@pytest.mark.parametrize("name", ARRAYS)
def test_arrays_are_what_they_were(tmp_path: Path, name: str, write: Any):
    wanted = ARRAYS[name]
    found = read_beside_tensor(wanted, tmp_path / "a", write)
    assert (found.shape, found.dtype.newbyteorder("=")) == (wanted.shape, wanted.dtype.newbyteorder("="))
    assert np.array_equal(found, wanted)
    again = pickle.loads(pickle.dumps(found))
    assert type(again) is type(wanted), "a saved copy needs nothing of ours"
    assert np.array_equal(again, wanted)


class Forged:
    """An array with a state that the file chooses."""

    def __init__(self, shape: tuple[int, ...], dtype: Any, data: bytes) -> None:
        self.state = (1, shape, dtype, False, data)

    def __reduce__(self) -> tuple:
        reconstruct, arguments, _ = np.empty(0).__reduce__()
        return reconstruct, arguments, self.state


@pytest.mark.parametrize(
    ("shape", "dtype", "data", "asked"),
    [
        ((1,) * 33, "f8", bytes(8), "ARRAY of 33"),
        ((3,), "f8", bytes(23), "ARRAY of f8"),
        ((3,), "f8", bytes(25), "ARRAY of f8"),
        ((-1, -1), "f8", bytes(8), "ARRAY of f8"),
        ((1,), "O", bytes(8), "ARRAY of O8"),
        ((1,), "M8[s]", bytes(8), "ARRAY of M8"),
        ((1,), [("a", "f8")], bytes(8), "ARRAY of V8"),
    ],
)
def test_arrays_of_other_sizes_and_types_are_refused(
    tmp_path: Path, shape: tuple[int, ...], dtype: Any, data: bytes, asked: str
):
    with pytest.raises(CheckpointError, match=rf"is refused: it asks for {asked}"):
        read_beside_tensor(Forged(shape, np.dtype(dtype), data), tmp_path / "a.pkl", 2)


@pytest.mark.parametrize("protocol", [4, 5])
def test_an_array_may_have_no_values(tmp_path: Path, protocol: int):
    assert read_beside_tensor(np.empty((0, 3), np.float32), tmp_path / "a.pkl", protocol).shape == (0, 3)
