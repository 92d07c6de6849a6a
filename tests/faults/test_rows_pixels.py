"""Faults of names, storage and pictures, row by row."""

import errno
import os
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import av
import cv2
import lmdb
import numpy as np
import pytest
from PIL import Image
from scanning import folder_files

from clipbert_mm.datasets.transforms import DecodeClips, LoadImage, OpenFrames, OpenVideo, ResizePad
from clipbert_mm.errors import BackendError, BrokenMediaError, StorageError
from clipbert_mm.media.listing import list_names, missing_media
from clipbert_mm.media.readers import BACKENDS, check_backend
from clipbert_mm.media.storage import read_bytes

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
            StorageError, match=f"cannot be opened as an LMDB: it is cut short: {whole // 2:,} of {whole:,} bytes"
        ):
            read()


def test_l4_a_damaged_lmdb_is_named(tmp_path: Path):
    packed = pack(tmp_path / "a.lmdb", {f"{i:04d}": bytes(50) for i in range(1000)})
    data = bytearray((packed / "data.mdb").read_bytes())
    for page in range(2, len(data) // 4096):
        data[4096 * page + 16 : 4096 * page + 100] = b"\xff" * 84  # where its nodes are
    (packed / "data.mdb").write_bytes(data)
    with pytest.raises(
        StorageError, match=r"The LMDB .*a\.lmdb is damaged: its page \d+ does not match the page that refers to it"
    ):
        read_bytes(f"{packed}/0500")


PEAK = """
import sys, numpy as np
from mmengine.dataset import Compose
from clipbert_mm.datasets.transforms import DecodeClips, OpenVideo, ResizePad, SampleClips
steps = Compose([OpenVideo(), SampleClips(num_clips=8, num_frames=2, mode="uniform"), DecodeClips(), ResizePad(size=448)])
steps(dict(path=sys.argv[1]))
def peak():
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM")) / 1024
before = peak()
result = steps(dict(path=sys.argv[2]))["frames"].nbytes
print(peak() - before - result / 2**20)
"""


def write_video(path: Path, size: tuple[int, int], count: int, vary: int = 5) -> Path:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10, width=size[0], height=size[1], pix_fmt="yuv420p")
        stream.options = dict(preset="ultrafast", crf="35")
        for i in range(count):
            picture = np.full((size[1], size[0], 3), vary * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return path


def test_m10_a_4k_video_takes_little_more_memory_than_its_result(world: Path, tmp_path: Path, root: Path):
    video = write_video(tmp_path / "4k.mp4", (3840, 2160), 20)
    small = world / "videos" / "train_00000.mp4"
    command = [sys.executable, "-c", PEAK, str(small), str(video)]
    run = subprocess.run(
        command, check=True, capture_output=True, text=True, env=os.environ | dict(PYTHONPATH=str(root))
    )
    assert float(run.stdout) < 150, "MiB above the result"


def test_m10_frames_made_small_as_they_come_are_the_same(tmp_path: Path):
    video = write_video(tmp_path / "a.mp4", (322, 178), 30, vary=8)
    results = OpenVideo().transform(dict(path=str(video)))
    sampled = dict(frame_inds=np.array([20, 3, 3, 7, 29, 0]), num_clips=3, clip_len=2)
    whole = DecodeClips().transform(results | sampled)["frames"]
    results = OpenVideo().transform(dict(path=str(video)))
    small = ResizePad(size=96).transform(DecodeClips().transform(results | sampled))
    assert small["content_shape"] == (53, 96)
    for k, t in np.ndindex(3, 2):
        wanted = np.zeros((96, 96, 3), np.uint8)
        wanted[:53] = cv2.resize(whole[k, t], (96, 53), interpolation=cv2.INTER_LINEAR)
        assert np.array_equal(small["frames"][k, t], wanted)


GIF_HEAD = b"GIF89a%b\x80\0\0\0\0\0\xff\xff\xff"
GIF_FRAME = b"\x21\xf9\x04\x04\x0a\0\0\0" + b"\x2c\0\0\0\0\1\0\1\0\0" + b"\2\2\x4c\1\0"


def bomb(path: Path, side: int, frames: int = 1) -> Path:
    """Write a picture of few bytes and many pixels, by the ending of its name."""
    if path.suffix == ".gif":
        path.write_bytes(GIF_HEAD % struct.pack("<HH", side, side) + GIF_FRAME * frames + b"\x3b")
    else:
        picture = Image.new("1", (side, side))
        picture.save(path)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.gif", "a.jpg", "a.bmp", "a.tiff"])
def test_m10_pictures_of_few_bytes_and_many_pixels_are_refused(tmp_path: Path, name: str):
    path = bomb(tmp_path / name, 9000)
    for opener in (LoadImage(), OpenVideo()) if name == "a.gif" else (LoadImage(),):
        with pytest.raises(BrokenMediaError, match="its frames have 9000 x 9000 pixels, more than the 67,108,864"):
            opener.transform(dict(path=str(path)))


def test_m10_a_picture_of_which_no_head_is_read_is_refused(tmp_path: Path):
    """Pillow itself refuses what is larger still."""
    with pytest.raises(BrokenMediaError, match="it has more than 67,108,864 pixels, the largest size"):
        LoadImage().transform(dict(path=str(bomb(tmp_path / "a.png", 16000))))


def test_m10_gifs_of_too_many_frames_for_their_size_are_refused(tmp_path: Path):
    reason = "its 600 frames of 8,192 x 8,192 pixels are more than the 34,359,738,368 pixels that are decoded"
    with pytest.raises(BrokenMediaError, match=reason):
        OpenVideo().transform(dict(path=str(bomb(tmp_path / "a.gif", 8192, frames=600))))
    assert OpenVideo().transform(dict(path=str(bomb(tmp_path / "b.gif", 64, frames=600))))["total_frames"] == 600


@pytest.mark.parametrize(("colors", "channels"), [(3, 1), (2, 3)])
def test_m12_no_flipped_bit_in_a_png_ends_the_process(tmp_path: Path, colors: int, channels: int):
    """The checksum is right, so that the damage reaches the decoder; OpenCV's was seen to end the process at such files."""

    def part(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = b"\x89PNG\r\n\x1a\n" + part(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, colors, 0, 0, 0))
    head += part(b"PLTE", bytes(768)) if colors == 3 else b""
    data = zlib.compress((b"\0" + bytes(64 * channels)) * 64)
    named = 0
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        (tmp_path / "a.png").write_bytes(head + part(b"IDAT", bytes(flipped)) + part(b"IEND", b""))
        try:
            assert LoadImage().transform(dict(path=str(tmp_path / "a.png")))["frames"].shape == (1, 1, 64, 64, 3)
        except BrokenMediaError:
            named += 1
    assert named > 4 * len(data), "half of them at least"


def test_m13_a_gif_without_its_last_byte_is_read(tmp_path: Path):
    pictures = [Image.new("RGB", (60, 44), (80 * i, 20, 90)) for i in range(3)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=[100, 300, 200])
    whole = OpenVideo().transform(dict(path=str(tmp_path / "a.gif")))
    (tmp_path / "b.gif").write_bytes((tmp_path / "a.gif").read_bytes()[:-1])
    cut = OpenVideo().transform(dict(path=str(tmp_path / "b.gif")))
    assert (cut["total_frames"], cut["duration"]) == (whole["total_frames"], whole["duration"]) == (3, 0.6)
    assert cut["frame_times"].tolist() == [0.0, 0.1, 0.4]
    clip = dict(frame_inds=np.array([0, 1, 2]), num_clips=1, clip_len=3)
    assert np.array_equal(*(DecodeClips().transform(each | clip)["frames"] for each in (whole, cut)))


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
