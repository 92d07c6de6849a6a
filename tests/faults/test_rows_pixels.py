"""Faults of names, storage and pictures, row by row."""

import errno
import os
from pathlib import Path

import pytest

from clipbert_mm.datasets.scanning import folder_files
from clipbert_mm.datasets.transforms.storage import list_names
from clipbert_mm.errors import StorageError


def test_m9_a_link_to_a_parent_folder_gives_each_video_once(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list_names(str(tmp_path)) == ["a.mp4"]


def test_l3_a_folder_that_cannot_be_listed_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.mp4").write_bytes(b"x")
    real = os.scandir

    def scandir(path: str) -> object:
        if os.path.basename(path) == "disk":  # as a disk that is gone
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        StorageError, match=f"The folder {tmp_path}/disk cannot be listed: Transport endpoint is not connected"
    ):
        folder_files(str(tmp_path))
