"""Faults of names, storage and pictures, row by row."""

import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import lmdb
import numpy as np
import pytest

from clipbert_mm.datasets.scanning import folder_files
from clipbert_mm.datasets.transforms import DecodeClips, LoadImage, OpenFrames, OpenVideo
from clipbert_mm.datasets.transforms.readers import BACKENDS, check_backend
from clipbert_mm.datasets.transforms.storage import list_names, missing_media, read_bytes
from clipbert_mm.errors import BackendError, BrokenMediaError, StorageError

NAMES = (
    "12:30 talk.mp4",
    "-y.mp4",
    "file:x.mp4",
    "concat:a|b.mp4",
    "http:x.mp4",
    "100%d.mp4",
    "img%03d.png",
    "caf\udce9.mp4",
    f"{'a' * 251}.mp4",
)
CLIP = dict(frame_inds=np.array([3, 0]), num_clips=1, clip_len=2)


def usable_backends() -> Iterator[str]:
    for backend in BACKENDS:
        try:
            check_backend(backend)
        except BackendError:  # torchcodec where there is no FFmpeg
            continue
        yield backend


def pack(path: Path, values: dict[str, bytes]) -> Path:
    with lmdb.open(str(path), map_size=1 << 26) as environment, environment.begin(write=True) as writing:
        for key, value in values.items():
            writing.put(key.encode(), value)
    return path


def test_m9_names_of_all_kinds_are_read_by_all_backends(world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    source = world / "videos" / "train_00000.mp4"
    for name in NAMES:
        shutil.copy(source, name)
    for backend in usable_backends():
        opener = OpenVideo(backend=backend)
        wanted = DecodeClips().transform(opener.transform(dict(path=str(source))) | CLIP)["frames"]
        for name in NAMES:
            found = DecodeClips().transform(opener.transform(dict(path=name)) | CLIP)["frames"]
            assert np.array_equal(found, wanted), (backend, name)


@pytest.mark.parametrize("name", ["a" * 5000, "nul\0.mp4", "half \ud800.mp4", f"{'folder/' * 800}a.mp4"])
def test_m9_names_that_no_file_can_have_are_no_files(name: str):
    with pytest.raises(BrokenMediaError, match="there is no such file"):
        OpenVideo().transform(dict(path=name))
    assert missing_media([name]) == [name]


def test_m9_a_link_to_a_parent_folder_gives_each_video_once(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"x")
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list_names(str(tmp_path)) == ["a.mp4"]


@pytest.mark.parametrize("opener", [OpenVideo, LoadImage])
def test_l1_pipes_and_devices_are_refused_unopened(tmp_path: Path, opener: type):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "link.mp4").symlink_to(tmp_path / "pipe.mp4")
    for path in (str(tmp_path / "pipe.mp4"), str(tmp_path / "link.mp4"), "/dev/zero"):
        with pytest.raises(BrokenMediaError, match="expected a file, got a pipe, socket or device"):
            opener().transform(dict(path=path))


def test_l3_a_folder_that_cannot_be_listed_is_not_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "disk").mkdir()
    (tmp_path / "a.mp4").write_bytes(b"x")
    real = os.scandir

    def scandir(path: str) -> object:
        if os.path.basename(path) == "disk":  # as a disk that is gone
            raise OSError(errno.ENOTCONN, "Transport endpoint is not connected", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    reason = f"The folder {tmp_path}/disk cannot be listed: Transport endpoint is not connected"
    with pytest.raises(StorageError, match=reason):
        folder_files(str(tmp_path))


def test_l4_an_lmdb_cut_short_is_named(world: Path, tmp_path: Path):
    picture = (world / "images" / "00000.jpg").read_bytes()
    packed = pack(tmp_path / "a.lmdb", {f"{video}/{i:06d}.jpg": picture for video in "ab" for i in range(100)})
    whole = os.path.getsize(packed / "data.mdb")
    assert len(OpenFrames(fps=5).transform(dict(path=f"{packed}/a"))["video_reader"].paths) == 100
    os.truncate(packed / "data.mdb", whole // 2)
    for read in (
        lambda: read_bytes(f"{packed}/b/000099.jpg"),
        lambda: list_names(str(packed)),
        lambda: missing_media([f"{packed}/a"]),
        lambda: OpenFrames(fps=5).transform(dict(path=f"{packed}/a")),
        lambda: OpenVideo().transform(dict(path=f"{packed}/a")),
    ):
        with pytest.raises(
            StorageError, match=f"is expected to be an LMDB, .* it is cut short: {whole // 2:,} of {whole:,} bytes"
        ):
            read()


def test_l4_a_damaged_lmdb_is_named(tmp_path: Path):
    packed = pack(tmp_path / "a.lmdb", {f"{i:04d}": bytes(50) for i in range(1000)})
    data = bytearray((packed / "data.mdb").read_bytes())
    for page in range(2, len(data) // 4096):
        data[4096 * page + 16 : 4096 * page + 100] = b"\xff" * 84  # where its nodes are
    (packed / "data.mdb").write_bytes(data)
    with pytest.raises(
        StorageError, match=r"The LMDB .*a\.lmdb is damaged: its page \d+ is not what the pages above it say"
    ):
        read_bytes(f"{packed}/0500")


@pytest.mark.parametrize(("videos", "calls"), [(1, 1), (50, 3)])
def test_e_start_up_asks_once_for_a_video_with_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, videos: int, calls: int
):
    """Count what asks the file system; a folder of many is listed."""
    paths = [str(tmp_path / f"{i}.mp4") for i in range(videos)]
    for path in paths:
        Path(path).touch()
    asked = []
    for name in ("stat", "scandir"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *args, real=real, **options: asked.append(args) or real(*args, **options))
    assert missing_media(paths) == []
    assert len(asked) == calls
