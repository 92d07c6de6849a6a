"""A file is checked again when anything of it changes, and its members have to lie as torch writes them."""

import os
import shutil
import zipfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch

from clipbert_mm.checkpoint import CheckpointError, read_checkpoint, verify_checkpoint


def damage(path: Path) -> None:
    """Change one bit of a tensor, in place."""
    with open(path, "r+b") as file:
        data = file.read()
        file.seek(data.index(bytes(4000)) + 2000)
        file.write(b"\4")


def keep_time(change: Callable[[Path], None], path: Path) -> None:
    """Change a file, but not its modification time."""
    written = path.stat().st_mtime_ns
    change(path)
    os.utime(path, ns=(written, written))


def put_in_place(path: Path) -> None:
    """Put a damaged copy of the same size in the place of a file."""
    shutil.copy2(path, path.with_name("copy"))
    damage(path.with_name("copy"))
    os.replace(path.with_name("copy"), path)


def change_time(path: Path) -> None:
    """Damage a file, and set its time to the next nanosecond."""
    written = path.stat().st_mtime_ns
    damage(path)
    os.utime(path, ns=(written + 1, written + 1))


@pytest.mark.parametrize(
    "change",
    [partial(keep_time, lambda path: os.truncate(path, 3000)), partial(keep_time, put_in_place), change_time],
    ids=["size", "file", "time"],
)
def test_a_file_that_changed_is_checked_again(tmp_path: Path, change: Callable[[Path], None]):
    path = tmp_path / "a.pth"
    torch.save({"head.weight": torch.zeros(2000)}, path)
    verify_checkpoint(path)
    read_checkpoint(str(path))
    change(path)
    with pytest.raises(CheckpointError, match=r"a\.pth .*(is damaged|is not)"):
        read_checkpoint(str(path))
    if path.stat().st_size > 3000:  # otherwise it is no archive, which has no checksums
        with pytest.raises(CheckpointError, match=r"a\.pth .* is damaged: Bad CRC-32"):
            verify_checkpoint(path)


def test_members_may_touch_but_not_overlap(tmp_path: Path):
    # zipfile leaves no byte between members; the directory says where each begins.
    torch.save({"head.weight": torch.zeros(50), "head.bias": torch.ones(3)}, tmp_path / "a.pth")
    path = tmp_path / "b.pth"
    with zipfile.ZipFile(tmp_path / "a.pth") as source, zipfile.ZipFile(path, "w") as packed:
        for member in source.infolist():
            packed.writestr(member.filename, source.read(member))
        first, second = packed.infolist()[:2]
        assert second.header_offset == 30 + len(first.filename) + first.file_size
    assert read_checkpoint(str(path))["state_dict"]["head.bias"].tolist() == [1, 1, 1]
    data = path.read_bytes()
    entry = data.index(b"PK\1\2", data.index(b"PK\1\2") + 4)  # of the second member in the directory
    place = entry + 42
    assert int.from_bytes(data[place : place + 4], "little") == second.header_offset
    path.write_bytes(data[:place] + (second.header_offset - 1).to_bytes(4, "little") + data[place + 4 :])
    with pytest.raises(CheckpointError, match=r"b\.pth is refused: its member .* overlaps another, or is not at its"):
        read_checkpoint(str(path))
