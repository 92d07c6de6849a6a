"""A pickle is read up to its limits, which are named, and not beyond."""

import codecs
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from clipbert_mm.checkpoint import CheckpointError, read_checkpoint
from clipbert_mm.checkpoint.pickles import BoundedUnpickler, Reader


def saved(value: Any, path: Path) -> str:
    """Write a value beside a tensor."""
    torch.save({"state_dict": {"a.weight": torch.ones(2)}, "x": value}, path)
    return str(path)


def test_containers_are_nested_a_hundred_times_and_may_hold_themselves(tmp_path: Path):
    value: list = []
    for _ in range(99):  # in the list x, in the file's dict
        value = [value]
    assert read_checkpoint(saved(value, tmp_path / "a.pth"))["x"] == value
    with pytest.raises(CheckpointError, match=r"a\.pth \(\d+ bytes\) is refused: more than 100 containers are nested"):
        read_checkpoint(saved([value], tmp_path / "a.pth"))
    value = [1]
    value.append(value)
    found = read_checkpoint(saved(value, tmp_path / "a.pth"))["x"]
    assert found[0] == 1
    assert found[1] is found


class Encoded:
    """Bytes as Python 3 writes them in Python 2's protocol: as a call with the text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __reduce__(self) -> tuple:
        return codecs.encode, (self.text, "latin1")


def test_calls_take_eight_times_the_file_and_one_mebibyte(tmp_path: Path):
    text = "a" * 2**22
    for count, fits in ((8, True), (9, False)):
        content = {"model": {"a.weight": np.ones(3)}, "x": [Encoded(text) for _ in range(count)]}
        (tmp_path / "a.pkl").write_bytes(pickle.dumps(content, 2))
        if fits:
            assert read_checkpoint(str(tmp_path / "a.pkl"))["x"] == [text.encode()] * count
        else:
            with pytest.raises(CheckpointError, match="repeats values until they need far more memory than the file"):
                read_checkpoint(str(tmp_path / "a.pkl"))


@pytest.mark.parametrize("length", [0, 1, 4094, 4095, 4096, 10_000])
def test_lines_of_any_length_are_read_to_their_end(length: int):
    data = b"first\n" + b"x" * length + b"\nrest"
    reader, theirs = Reader(data), io.BytesIO(data)
    for _ in range(2):
        assert reader.readline() == theirs.readline()
    assert reader.read(4) == b"rest"
    with pytest.raises(pickle.UnpicklingError, match="a value of 1 bytes, and 0 are left"):
        reader.read(1)
    with pytest.raises(pickle.UnpicklingError, match="a line without an end"):
        reader.readline()


@pytest.mark.parametrize(
    ("operation", "name"),
    [(b"(i__builtin__\nset\n", "0x69"), (b"(c__builtin__\nset\no", "0x6f"), (b"\x82\x01", "0x82"), (b"\x83\x01\x00", "0x83"),
     (b"\x84\x01\x00\x00\x00", "0x84"), (b"Pname\n", "0x50"), (b"\x8b\x01\x00\x00\x00\x01", "0x8b"), (b"\x97", "0x97"),
     (b"\x98", "0x98"), (b")}\x92", "0x92")],
)  # fmt: skip
def test_operations_that_weights_do_not_need_are_refused(operation: bytes, name: str):
    class Sets(BoundedUnpickler):
        names = {"__builtin__.set": set}  # noqa: RUF012

    assert Sets(Reader(b"\x80\x02c__builtin__\nset\n)R.")).load() == set()
    with pytest.raises(pickle.UnpicklingError, match=f"an operation {name}, which files of weights do not need"):
        Sets(Reader(b"\x80\x02c__builtin__\nset\n" * name.endswith("92") + operation + b".")).load()


def test_a_byte_array_is_read():
    value = bytearray(b"abc" * 100)
    assert BoundedUnpickler(Reader(pickle.dumps([value, {"k": value}], 5))).load() == [value, {"k": value}]
