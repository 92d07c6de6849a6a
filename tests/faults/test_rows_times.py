"""Faults of times and lengths, and of the tools that go over whole folders, row by row."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from video_files import write_file

from clipbert_mm.datasets.scanning import absolute, left_out
from clipbert_mm.errors import StorageError

TOOLS = {
    "scan": ("analysis_tools/scan_videos.py", "--out"),
    "reencode": ("dataset_converters/reencode_videos.py", ""),
    "pack": ("dataset_converters/pack_lmdb.py", ""),
}
"""Tools that go over a folder, and the option by which each is told where to write."""


@pytest.fixture
def run(tool: Callable, tmp_path: Path) -> Callable[..., int | None]:
    """Run a tool over a folder; it writes to ``out`` beside it."""

    def run_tool(name: str, folder: Path, *more: str) -> int | None:
        file, option = TOOLS[name]
        out = str(tmp_path / ("out.lmdb" if name == "pack" else "out"))
        return tool(file).main([str(folder), *filter(None, [option]), out, "--workers=2", *more])

    return run_tool


@pytest.mark.parametrize("name", TOOLS)
def test_l3_a_folder_that_cannot_be_listed_ends_the_tool(
    run: Callable, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    folder, real = tmp_path / "videos", os.scandir
    (folder / "disk").mkdir(parents=True)
    write_file(folder / "a.mp4", count=5)

    def scandir(path: str) -> object:
        if os.path.basename(path) == "disk":  # as a disk that is gone; root may list what is there
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match=f"The folder {folder}/disk cannot be listed: Transport endpoint is not"):
        run(name, folder)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["videos"], "nothing is written"


def test_m9_a_name_that_is_not_utf8_is_in_the_ledger(run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder, name = tmp_path / "videos", os.fsdecode(b"caf\xe9.mp4")
    folder.mkdir()
    (folder / name).write_text("no video")
    run("scan", folder)
    assert rf"  unreadable: {folder}/caf\xe9.mp4: not a video, or cut short" in capsys.readouterr().out
    ledger = tmp_path / "out" / "ledger.jsonl"
    assert list(left_out(ledger)) == [absolute(str(folder / name))]
    assert ledger.read_bytes().decode("utf-8").count("\\udce9") == 1, "it is UTF-8, and JSON"
