"""Storage: a file is the same file wherever it lies, and what is not there is named."""

import errno
import multiprocessing
import os
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import av
import lmdb
import numpy as np
import pytest
from mmengine.fileio.backends import BaseStorageBackend, register_backend

from clipbert_mm.datasets.transforms import DecodeClips, LoadImage, OpenVideo
from clipbert_mm.errors import BrokenMediaError, StorageError
from clipbert_mm.media import listing
from clipbert_mm.media.listing import list_names, missing_media, walk_files
from clipbert_mm.media.storage import read_bytes, split_lmdb, stamp_media

VIDEOS = ("train_00000", "train_00001", "test_00000")
IN_MEMORY: dict[str, bytes] = {}


@register_backend("in_memory", force=True, prefixes="memory")
class InMemoryBackend(BaseStorageBackend):
    """A user's own file backend."""

    def get(self, filepath: str) -> bytes:
        return IN_MEMORY[filepath]

    def get_text(self, filepath: str) -> str:
        return self.get(filepath).decode()

    def exists(self, filepath: str) -> bool:
        return filepath in IN_MEMORY

    def list_dir_or_file(self, dir_path: str, list_dir: bool, recursive: bool) -> Iterator[str]:
        yield from (path.removeprefix(f"{dir_path}/") for path in IN_MEMORY if path.startswith(f"{dir_path}/"))


def write_lmdb(path: Path, values: dict[str, bytes], subdir: bool = True) -> Path:
    """Write an LMDB as any other program would."""
    with lmdb.open(str(path), map_size=1 << 30, subdir=subdir) as environment, environment.begin(write=True) as writing:
        for key, value in values.items():
            writing.put(key.encode(), value)
    return path


@pytest.fixture(autouse=True)
def nothing_held() -> Iterator[None]:
    """Leave nothing in memory."""
    yield
    IN_MEMORY.clear()


@pytest.fixture
def server(world: Path) -> Iterator[str]:
    """Address of the world behind a web server."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *args) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(world))) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()


@pytest.fixture
def packed(world: Path, tmp_path: Path) -> Path:
    """An LMDB of three videos and an image under their names without endings, as the paper's release has them."""
    values = {name: (world / "videos" / f"{name}.mp4").read_bytes() for name in VIDEOS}
    return write_lmdb(tmp_path / "a.lmdb", values | {"picture": (world / "images" / "00000.jpg").read_bytes()})


def decode(path: str, inds: tuple[int, ...] = (0, 7, 3)) -> np.ndarray:
    results = OpenVideo().transform(dict(path=path))
    results |= dict(frame_inds=np.array(inds), num_clips=1, clip_len=len(inds))
    return DecodeClips().transform(results)["frames"]


def test_a_video_is_the_same_wherever_it_lies(world: Path, packed: Path, tmp_path: Path, server: str):
    file = world / "videos" / "train_00000.mp4"
    wanted = decode(str(file))
    assert np.array_equal(decode(f"{packed}/train_00000"), wanted)
    assert np.array_equal(decode(f"{packed}/train_00000.mp4"), wanted), "records may name files with their endings"
    single = write_lmdb(tmp_path / "one_file.lmdb", {"sub/a.mp4": file.read_bytes()}, subdir=False)
    assert single.is_file()
    assert np.array_equal(decode(f"{single}/sub/a.mp4"), wanted)
    assert np.array_equal(decode(f"{server}/videos/train_00000.mp4"), wanted)
    IN_MEMORY["memory://videos/a"] = file.read_bytes()
    assert np.array_equal(decode("memory://videos/a"), wanted)
    for path in (f"{packed}/train_00000", "memory://videos/a"):
        opened = OpenVideo().transform(dict(path=path))
        assert opened.keys() == {"path", "video_reader", "total_frames", "avg_fps", "duration", "frame_times"}
        assert opened["path"] == path


def test_an_image_is_the_same_wherever_it_lies(world: Path, packed: Path, server: str):
    wanted = LoadImage().transform(dict(path=str(world / "images" / "00000.jpg")))["frames"]
    for path in (f"{packed}/picture", f"{server}/images/00000.jpg"):
        assert np.array_equal(LoadImage().transform(dict(path=path))["frames"], wanted)


def test_a_file_comes_before_a_key_and_a_key_before_one_without_its_ending(tmp_path: Path):
    packed = write_lmdb(tmp_path / "a.lmdb", {"v": b"without", "v.mp4": b"with", "v.1": b"dot"})
    assert read_bytes(f"{packed}/v.mp4") == b"with"
    assert read_bytes(f"{packed}/v.avi") == b"without"
    assert read_bytes(f"{packed}/v.1") == b"dot"
    (packed / "v.mp4").write_bytes(b"a file")
    assert read_bytes(f"{packed}/v.mp4") == b"a file"


def test_an_lmdb_is_found_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    root = write_lmdb(tmp_path / "videos", {"a": b"1"})  # its name does not matter, its data.mdb does
    assert split_lmdb(f"{root}/sub/a.mp4") == (str(root), "sub/a.mp4")
    assert split_lmdb(f"{root}//a") == (str(root), "a")
    assert split_lmdb(f"{root}/") == (str(root), "")
    assert split_lmdb(str(tmp_path / "a.mp4")) is None
    monkeypatch.chdir(tmp_path)
    assert split_lmdb("videos/a") == ("videos", "a")
    assert read_bytes("videos/a") == b"1"


def test_an_lmdb_is_only_read_and_left_closed(packed: Path):
    before = {path.name: path.stat().st_mtime_ns for path in packed.iterdir()}
    files = len(os.listdir("/proc/self/fd"))
    for name in VIDEOS * 3:
        read_bytes(f"{packed}/{name}")
    assert {path.name: path.stat().st_mtime_ns for path in packed.iterdir()} == before
    assert len(os.listdir("/proc/self/fd")) == files


@pytest.mark.parametrize("method", sorted({"fork", "spawn", "forkserver"} & {*multiprocessing.get_all_start_methods()}))
def test_workers_read_what_their_parent_reads(packed: Path, method: str):
    wanted = [read_bytes(f"{packed}/{name}") for name in VIDEOS]
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(read_bytes, [f"{packed}/{name}" for name in VIDEOS * 4], chunksize=1)
    assert found == wanted * 4


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="counts a Linux process's open files")
@pytest.mark.parametrize("memory", [True, False])
def test_what_was_opened_is_closed_when_the_reader_goes(
    packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, memory: bool
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    if not memory:
        monkeypatch.delattr(os, "memfd_create")
    wanted = decode(f"{packed}/train_00000")
    before = len(os.listdir("/proc/self/fd"))
    readers = [OpenVideo().transform(dict(path=f"{packed}/train_00000")) for _ in range(5)]
    assert len(os.listdir("/proc/self/fd")) == before + 10, "the file, and FFmpeg's own of it"
    assert list((tmp_path / "temporary").iterdir()) == []
    clip = dict(frame_inds=np.array([0, 7, 3]), num_clips=1, clip_len=3)
    assert np.array_equal(DecodeClips().transform(readers.pop() | clip)["frames"], wanted)
    readers.clear()
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_cut_avi_in_an_lmdb_does_not_end_the_process(tmp_path: Path):
    rng = np.random.default_rng(0)
    with av.open(str(tmp_path / "a.avi"), "w") as container:
        stream = container.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for _ in range(30):
            noise = rng.integers(0, 256, (48, 64, 3), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    data = (tmp_path / "a.avi").read_bytes()
    packed = write_lmdb(tmp_path / "a.lmdb", {str(share): data[: len(data) * share // 10] for share in (2, 5, 9)})
    for share in (2, 5, 9):
        child = multiprocessing.get_context("fork").Process(target=_try, args=(f"{packed}/{share}",))
        child.start()
        child.join(60)
        assert child.exitcode == 0


def _try(path: str) -> None:
    with suppress(BrokenMediaError):
        decode(path)


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a.mp4", "there is no such file"),
        ("", "expected a file, got a folder; a folder of frames is opened by OpenFrames"),
        ("empty.mp4", r"the file is empty \(0 bytes\)"),
        ("a.lmdb/empty", r"the file is empty \(0 bytes\)"),
        ("a.lmdb/video9.mp4", "the LMDB has no key 'video9.mp4'; its first key is 'empty'"),
        ("none.lmdb/video0", "the LMDB has no key 'video0'; it is empty"),
        (f"a.lmdb/{'a' * 600}", "has no key 'aaa"),
        ("missing.lmdb/video0", "there is no such file"),
    ],
)
@pytest.mark.parametrize("opener", [OpenVideo, LoadImage])
def test_what_is_not_there_is_named(tmp_path: Path, path: str, reason: str, opener: Callable):
    (tmp_path / "empty.mp4").touch()
    write_lmdb(tmp_path / "a.lmdb", {"video0": b"1", "empty": b""})
    write_lmdb(tmp_path / "none.lmdb", {})
    with pytest.raises(BrokenMediaError, match=reason) as caught:
        opener().transform(dict(path=f"{tmp_path}/{path}"))
    assert caught.value.path == f"{tmp_path}/{path}"


def test_what_cannot_be_fetched_is_named(server: str):
    with pytest.raises(BrokenMediaError, match=rf"cannot read {server}/a.mp4: it cannot be fetched: HTTPError: .*404"):
        OpenVideo().transform(dict(path=f"{server}/a.mp4"))
    with pytest.raises(BrokenMediaError, match="memory://a: it cannot be fetched: KeyError"):
        LoadImage().transform(dict(path="memory://a"))


def test_a_storage_that_cannot_be_used_is_no_broken_file(tmp_path: Path):
    (tmp_path / "text.lmdb").write_text("this is no LMDB\n" * 999)
    with pytest.raises(StorageError, match=r"text\.lmdb cannot be opened as an LMDB: "):
        OpenVideo().transform(dict(path=f"{tmp_path}/text.lmdb/a"))
    with pytest.raises(StorageError, match="There is no file backend for nowhere://a: "):
        LoadImage().transform(dict(path="nowhere://a"))
    with pytest.raises(StorageError, match="The file backend of http://localhost cannot list"):
        list_names("http://localhost")


@pytest.mark.parametrize("look_up", [0, 10**9])
def test_missing_files_are_found_in_one_pass(world: Path, packed: Path, tmp_path: Path, monkeypatch, look_up: int):
    monkeypatch.setattr(listing, "LOOK_UP", look_up)  # an LMDB is asked for each key, or listed
    frames = write_lmdb(tmp_path / "frames.lmdb", {"v1/000001": b"1", "v10/000001.jpg": b"1", "sub/v2/000001": b"1"})
    (tmp_path / "dangling.mp4").symlink_to(tmp_path / "nowhere.mp4")
    IN_MEMORY["memory://v/a"] = b"1"
    there = [f"{world}/videos/{name}.mp4" for name in (*VIDEOS, "train_00002")] + [
        f"{packed}/{VIDEOS[0]}",
        f"{packed}/{VIDEOS[1]}.mp4",
    ]
    there += [f"{world}/videos", f"{frames}/v1", f"{frames}/v10", f"{frames}/sub/v2", f"{frames}/v10/000001.jpg"]
    there += ["memory://v/a", "http://localhost/believed.mp4", str(packed)]
    gone = [f"{world}/videos/none.mp4", f"{world}/none/a.mp4", f"{packed}/none", f"{packed}/train_0000", f"{frames}/v"]
    gone += [f"{frames}/sub/v3", f"{tmp_path}/dangling.mp4", "memory://v/b", f"{packed}/{'a' * 600}"]
    listed = []
    real = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: listed.append(str(path)) or real(path))
    assert missing_media([*gone, *there]) == gone
    assert listed == [str(world / "videos")], "a folder of many is listed once"
    monkeypatch.chdir(world)
    assert missing_media(["train.jsonl", "none.jsonl", "videos/train_00000.mp4"]) == ["none.jsonl"]


def test_names_are_listed_wherever_they_lie(tmp_path: Path):
    names = ["a/2.jpg", "a/1.jpg", "b.jpg", ".hidden", "a/.hidden/c.jpg", "ab/1.jpg"]
    for name in names:
        (tmp_path / "folder" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / name).touch()
        IN_MEMORY[f"memory://x/{name}"] = b"1"
    packed = write_lmdb(tmp_path / "a.lmdb", dict.fromkeys(names, b"1"))
    for root in (tmp_path / "folder", packed, "memory://x"):
        assert list_names(f"{root}") == ["a/1.jpg", "a/2.jpg", "ab/1.jpg", "b.jpg"]
        assert list_names(f"{root}/a") == ["1.jpg", "2.jpg"]
        assert list_names(f"{root}/none") == []


def make_files(folder: Path, names: Sequence[str]) -> Path:
    """Write files of one byte below a folder."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"1")
    return folder


def listed(folder: Path, **options: Any) -> list[str]:
    """Return what is below a folder, relative to it."""
    return [os.path.relpath(path, folder) for path in walk_files(str(folder), **options)]


def test_files_are_listed_folder_by_folder(tmp_path: Path):
    folder = make_files(tmp_path / "v", ["b/z.mp4", "b/c/x.mp4", "a/y.mp4", "w.mp4", ".git/config", "a/.y.mp4.part"])
    (folder / "empty").mkdir()
    assert listed(folder) == ["w.mp4", "a/y.mp4", "b/z.mp4", "b/c/x.mp4"]
    assert listed(folder, enter=lambda path: os.path.basename(path) != "b") == ["w.mp4", "a/y.mp4"]
    assert list(walk_files(f"{folder}/a")) == [f"{folder}/a/y.mp4"]


def test_a_real_folder_is_listed_once_by_its_own_name(tmp_path: Path):
    folder = make_files(tmp_path / "v", ["a.mp4", "z/b.mp4"])
    make_files(tmp_path / "disk", ["c.mp4", "below/d.mp4"])
    (folder / "loop").symlink_to(folder)
    (folder / "a_link").symlink_to(folder / "z")  # comes before what it leads to
    (folder / "z" / "up").symlink_to("..")
    for name in ("disk", "disk again"):
        (folder / name).symlink_to(tmp_path / "disk")
    (folder / "one.mp4").symlink_to(tmp_path / "disk" / "c.mp4")
    (folder / "gone.mp4").symlink_to(tmp_path / "nowhere.mp4")
    assert listed(folder) == ["a.mp4", "gone.mp4", "one.mp4", "z/b.mp4", "disk/c.mp4", "disk/below/d.mp4"]


def test_pipes_and_sockets_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = make_files(tmp_path / "v", ["a.mp4"])
    os.mkfifo(folder / "pipe.mp4")
    (folder / "device.mp4").symlink_to(os.devnull)
    with socket.socket(socket.AF_UNIX) as own:
        monkeypatch.chdir(folder)  # a socket's path is short
        own.bind("socket.mp4")
        assert listed(folder) == ["a.mp4"]


def test_names_that_are_not_utf8_are_listed(tmp_path: Path):
    name = os.fsdecode(b"caf\xe9.mp4")
    folder = make_files(tmp_path / "v", [name])
    assert listed(folder) == list_names(str(folder)) == [name]


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder, real = make_files(tmp_path / "v", ["a.mp4", "far/b.mp4"]), os.scandir

    def scandir(path: str) -> Any:
        if path.endswith("far"):  # as root may list every folder of this disk
            raise PermissionError(errno.EACCES, "Permission denied", path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(
        StorageError, match=f"The folder {folder}/far cannot be listed: Permission denied. Make it readable"
    ):
        list_names(str(folder))
    assert listed(folder, enter=lambda path: not path.endswith("far")) == ["a.mp4"]


def test_a_stamp_tells_what_has_changed(tmp_path: Path):
    packed = write_lmdb(tmp_path / "a.lmdb", {"a": b"123", "empty": b""})
    (tmp_path / "a.mp4").write_bytes(b"1234")
    os.utime(tmp_path / "a.mp4", (5, 5))
    os.utime(packed / "data.mdb", (7, 7))
    assert stamp_media(f"{tmp_path}/a.mp4") == (4, 5)
    assert stamp_media(f"{packed}/a.mp4") == (3, 7)
    for path in (f"{tmp_path}/none", f"{packed}/none", f"{packed}/empty", str(tmp_path), "memory://a"):
        assert stamp_media(path) is None
