"""Packing and encoding anew: what comes out is what went in, also when the tool was killed on its way."""

import multiprocessing
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import av
import cv2
import lmdb
import numpy as np
import pytest
from video_files import decode, turn

from clipbert_mm.errors import BusyFolderError, OptionError, StorageError
from clipbert_mm.media.reencoding import Encoding, reencode

forks = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="the killed process is a fork")


@pytest.fixture
def pack(tool: Callable) -> ModuleType:
    return tool("dataset_converters/pack_lmdb.py")


@pytest.fixture(scope="session")
def encode(tool: Callable) -> Callable[..., int]:
    main = tool("dataset_converters/reencode_videos.py").main
    return lambda *arguments: main([*map(str, arguments), "--workers=2"])


def read_all(path: Path) -> dict[str, bytes]:
    """Read an LMDB as any other program would."""
    with lmdb.open(str(path), readonly=True, lock=False) as environment, environment.begin() as transaction:
        return {key.decode(): value for key, value in transaction.cursor()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of files of 0 to 40,000 bytes."""
    rng = np.random.default_rng(0)
    for i in range(60):
        file = tmp_path / "folder" / ("sub" if i % 3 else "") / f"{i:03d}.{'mp4' if i % 2 else 'avi'}"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(rng.bytes(int(rng.integers(0, 40_000))))
    (tmp_path / "folder" / ".hidden").write_text("no")
    return tmp_path / "folder"


def wanted(folder: Path, keep_ending: bool = False) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name[0] != "."]
    names = {path: path.relative_to(folder) for path in files}
    return {str(name if keep_ending else name.with_suffix("")): path.read_bytes() for path, name in names.items()}


@pytest.mark.parametrize("keep_ending", [False, True])
def test_packing_keeps_every_byte(pack: ModuleType, folder: Path, capsys, keep_ending: bool):
    out = folder.parent / "a.lmdb"
    options = ["--keep-ending"] if keep_ending else []
    assert pack.main([str(folder), str(out), *options]) == 0
    assert read_all(out) == wanted(folder, keep_ending)
    assert "packed 60 files" in capsys.readouterr().out
    assert pack.main([str(folder), str(out), "--check", *options]) == 0
    assert "60 files, 0 differences" in capsys.readouterr().out
    assert sorted(path.name for path in folder.parent.iterdir()) == ["a.lmdb", "folder"]


def test_packing_again_adds_what_is_new_or_of_another_size(pack: ModuleType, folder: Path, capsys):
    out = folder.parent / "a.lmdb"
    pack.main([str(folder), str(out)])
    (folder / "new.mp4").write_bytes(b"new" * 100_000)
    (folder / "000.avi").write_bytes(b"longer" * 50_000)
    capsys.readouterr()
    assert pack.main([str(folder), str(out)]) == 0
    assert f"packed 2 files (0.00 GB), 59 were there: {out}" in capsys.readouterr().out
    assert read_all(out) == wanted(folder)


def test_checking_names_what_differs(pack: ModuleType, folder: Path, capsys):
    out = folder.parent / "a.lmdb"
    pack.main([str(folder), str(out)])
    file = folder / "000.avi"
    file.write_bytes(bytes(file.stat().st_size))  # other bytes of the same size
    (folder / "new.mp4").touch()
    (folder / "003.mp4").unlink()
    capsys.readouterr()
    assert pack.main([str(folder), str(out), "--check"]) == 1
    said = capsys.readouterr().out.splitlines()
    assert said == [
        f"000: not the bytes of {file}",
        "new: missing",
        "003: of no file in the folder",
        "60 files, 3 differences",
    ]


@forks
def test_packing_that_is_killed_at_any_point_goes_on(
    pack: ModuleType, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(pack, "BATCH", 30_000)  # so that a killed run has something to go on from
    out = folder.parent / "a.lmdb"
    part = folder.parent / "a.lmdb.part" / "data.mdb"
    left = []
    for kills in range(1, 9):
        child = multiprocessing.get_context("fork").Process(target=pack.main, args=([str(folder), str(out)],))
        child.start()
        while child.is_alive() and not (part.exists() and part.stat().st_size > kills * 120_000):
            time.sleep(0.0005)
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        if out_was_whole := out.exists():
            break
        left.append(len(read_all(part.parent)))
    assert left == sorted(left)
    assert 0 < left[-1] < 60, "it was killed in the midst of it"
    assert pack.main([str(folder), str(out)]) == 0
    there = 60 if out_was_whole else left[-1]
    assert f"{there} were there" in capsys.readouterr().out
    assert read_all(out) == wanted(folder)
    assert not part.parent.exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none", "a.lmdb"], r"Expected a folder of files, got .*none: none\."),
        (["empty", "a.lmdb"], r"empty holds no files\."),
        (["folder", "a.db"], r"Expected a new folder or an LMDB that is named \*\.lmdb, got .*a\.db\."),
        (["folder", "text.lmdb"], r"Expected a new folder or an LMDB that is named \*\.lmdb, got .*text\.lmdb\."),
        (["folder", "folder/a.lmdb"], r"folder/a\.lmdb lies in the folder that is to be packed"),
        (["twice", "a.lmdb"], r"a\.avi and .*a\.mp4 would have one key\. Pack them with --keep-ending\."),
        (["long", "a.lmdb"], r"an LMDB's keys have up to 511 bytes, got 600\."),
        (["folder", "a.lmdb", "--check"], r"There is no LMDB .*a\.lmdb\."),
    ],
)
def test_what_cannot_be_packed_is_refused(pack: ModuleType, folder: Path, arguments: list[str], message: str):
    root = folder.parent
    for name in (
        "empty/.hidden",
        "twice/a.avi",
        "twice/a.mp4",
        f"long/{'a' * 200}/{'b' * 200}/{'c' * 198}",
        "text.lmdb",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    with pytest.raises((OptionError, StorageError), match=message):
        pack.main([*(str(root / name) for name in arguments[:2]), *arguments[2:]])
    assert not list(root.glob("a.*"))


def write_video(path: Path, count: int = 60, size: tuple[int, int] = (320, 180), codec: str = "libx264") -> Path:
    """Write a video of 20 frames a second whose brightness says which frame it is: 20 + 3 times its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=20, width=size[0], height=size[1], pix_fmt="yuv420p")
        stream.gop_size = 250
        for i in range(count):
            pixels = np.full((size[1], size[0], 3), 20 + 3 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())
    return path


def look(path: Path) -> tuple[av.VideoStream, list[int], list[float], list[int]]:
    """Return the stream, the numbers of the frames by their brightness, their times, and which are key frames."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = list(container.decode(stream))
        numbers = [round((float(frame.to_ndarray(format="rgb24").mean()) - 20) / 3) for frame in frames]
        times = [float(frame.pts * frame.time_base) for frame in frames]
        keys = [i for i, frame in enumerate(frames) if frame.key_frame]
        return stream, numbers, times, keys


def seconds(stream: av.VideoStream) -> float:
    return float(stream.duration * stream.time_base)


@pytest.mark.parametrize(
    ("size", "height", "expected"),
    [
        ((320, 180), 90, (160, 90)),
        ((180, 320), 90, (90, 160)),
        ((320, 180), 101, (180, 100)),
        ((320, 180), 240, (320, 180)),
        ((322, 182), 182, (322, 182)),
    ],
)
def test_videos_become_smaller_and_keep_their_frames(tmp_path: Path, size: tuple, height: int, expected: tuple):
    source = write_video(tmp_path / "a.mp4", size=size)
    assert reencode((str(source), str(tmp_path / "b.mp4"), Encoding(height=height, keyframes=7))) == ""
    stream, numbers, times, keys = look(tmp_path / "b.mp4")
    assert (stream.width, stream.height) == expected
    assert (stream.codec_context.name, stream.pix_fmt) == ("h264", "yuv420p")
    assert numbers == list(range(60))
    assert times == pytest.approx([i / 20 for i in range(60)])
    assert seconds(stream) == pytest.approx(3, abs=0.001)
    assert max(np.diff([*keys, 60])) <= 7


def test_pictures_stay_what_they_are(world: Path, tmp_path: Path, decode_with_pyav):
    for source in sorted((world / "videos").iterdir())[:5]:
        assert reencode((str(source), str(tmp_path / "b.mp4"), Encoding(height=100))) == ""
        before, after = decode_with_pyav(source), decode_with_pyav(tmp_path / "b.mp4")
        height, width = after.shape[1:3]
        assert len(before) == len(after)
        assert min(height, width) == 100
        scaled = np.stack([cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in before])
        assert 10 * np.log10(255**2 / np.mean((scaled.astype(float) - after) ** 2)) > 28  # decibels


@pytest.mark.parametrize(("fps", "expected"), [(5, 15), (20, 60), (30, 90), (12.5, 38)])
def test_another_frame_rate_shows_the_frame_of_that_time(tmp_path: Path, fps: float, expected: int):
    source = write_video(tmp_path / "a.mp4")
    assert reencode((str(source), str(tmp_path / "b.mp4"), Encoding(fps=fps))) == ""
    stream, numbers, times, _ = look(tmp_path / "b.mp4")
    assert times == pytest.approx([i / fps for i in range(expected)])
    assert numbers == [int(i * Fraction(20) / Fraction(fps)) for i in range(expected)]
    assert seconds(stream) == pytest.approx(3, abs=1 / fps)


def test_frames_keep_their_own_times(tmp_path: Path):
    times = [0, 40, 60, 200, 900, 950, 2000]  # in milliseconds
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("libx264", rate=25, width=64, height=48, pix_fmt="yuv420p", options={"bf": "0"})
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, time_of_frame in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 20 + 3 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = time_of_frame + 500, Fraction(1, 1000)  # it does not begin at 0
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    assert reencode((str(tmp_path / "a.mkv"), str(tmp_path / "b.mp4"), Encoding())) == ""
    _, numbers, found, _ = look(tmp_path / "b.mp4")
    assert found == pytest.approx([each / 1000 for each in times], abs=0.001)
    assert numbers == list(range(7))
    assert reencode((str(tmp_path / "a.mkv"), str(tmp_path / "c.mp4"), Encoding(fps=5))) == ""
    assert look(tmp_path / "c.mp4")[1][:10] == [0, 3, 3, 3, 3, 5, 5, 5, 5, 5]


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_a_turned_video_becomes_upright(world: Path, tmp_path: Path, decode_with_pyav, degrees: int):
    source = next(
        path for path in sorted((world / "videos").iterdir()) if decode_with_pyav(path).shape[1:3] == (120, 160)
    )
    (tmp_path / "a.mp4").write_bytes(source.read_bytes())
    turn(tmp_path / "a.mp4", degrees)
    assert reencode((str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), Encoding(crf=5))) == ""
    before, after = decode_with_pyav(source), decode_with_pyav(tmp_path / "b.mp4")
    upright = np.rot90(before, degrees // 90, axes=(1, 2))  # PyAV does not turn videos by itself
    assert after.shape == upright.shape
    assert np.abs(after.astype(int) - upright).mean() < 3
    for path in (tmp_path / "a.mp4", tmp_path / "b.mp4"):
        assert np.abs(decode(path, [5])[0].astype(int) - upright[5]).mean() < 3


@pytest.mark.parametrize(("standard", "full"), [("ITU709", False), ("ITU709", True), ("ITU601", False)])
def test_colors_stay_what_they_are(tmp_path: Path, standard: str, full: bool):
    colors = np.array([(220, 30, 40), (30, 200, 60), (40, 60, 230), (240, 230, 200)], np.uint8)
    pixels = np.broadcast_to(colors.repeat(100, axis=0), (300, 400, 3))
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream(
            "libx264", rate=10, width=400, height=300, pix_fmt="yuvj420p" if full else "yuv420p"
        )
        stream.codec_context.colorspace = {"ITU709": 1, "ITU601": 5}[standard]
        stream.codec_context.color_range = 2 if full else 1
        for _ in range(5):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            into = dict(dst_colorspace=standard, dst_color_range="JPEG" if full else "MPEG")
            container.mux(stream.encode(frame.reformat(format=stream.pix_fmt, **into)))
        container.mux(stream.encode())
    assert reencode((str(tmp_path / "a.mp4"), str(tmp_path / "b.mp4"), Encoding(crf=5))) == ""
    for path in (tmp_path / "a.mp4", tmp_path / "b.mp4"):
        frame = decode(path, [2])[0].astype(int)
        middle = frame[frame.shape[0] // 2, [int(frame.shape[1] * place) for place in (0.12, 0.37, 0.62, 0.87)]]
        assert np.abs(middle - colors).max() <= 6


def test_a_folder_is_encoded_and_its_broken_files_are_named(encode: Callable, tmp_path: Path, break_file, capsys):
    folder, out = tmp_path / "videos", tmp_path / "out"
    for name in (
        "a.mp4",
        "sub/b.avi",
        "cut.mp4",
        "cut in the data.mp4",
        "zeros in the data.mp4",
        "empty.mp4",
        "text.mp4",
    ):
        write_video(folder / name, codec="mpeg4" if name.endswith("avi") else "libx264")
    for how in ("cut", "cut in the data", "zeros in the data", "empty", "text"):
        break_file(folder / f"{how}.mp4", how)
    with av.open(str(folder / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode())
    assert encode(folder, out, "--height", 90) == 1
    said = capsys.readouterr().out
    damaged = r"frame \d+ cannot be decoded: damaged, or cut short|cut short, \d+ of 60 frames can be decoded"
    for name, reason in {
        "cut.mp4": "not a video, or cut short",
        "cut in the data.mp4": "not a video, or cut short",
        "zeros in the data.mp4": damaged,
        "empty.mp4": r"the file is empty \(0 bytes\)",
        "text.mp4": "not a video, or cut short",
        "sound.mp4": "it has no video stream",
    }.items():
        assert re.search(rf"^broken: {folder}/{name}: ({reason})$", said, re.MULTILINE), said
    assert f"2 of 8 videos are in {out}, 6 are broken" in said
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.*")) == [".reencoded.json", "a.mp4", "sub/b.mp4"]
    _, numbers, times, _ = look(out / "sub" / "b.mp4")
    assert numbers == look(folder / "sub" / "b.avi")[1]
    assert times == pytest.approx([i / 20 for i in range(60)])


def test_what_is_done_is_not_done_again(encode: Callable, tmp_path: Path, capsys):
    folder, out = tmp_path / "videos", tmp_path / "out"
    for name in ("a.mp4", "b.mp4"):
        write_video(folder / name, count=20)
    assert encode(folder, out) == 0
    assert f"2 of 2 videos are in {out}, 0 are broken" in capsys.readouterr().out
    before = (out / "a.mp4").stat().st_mtime_ns
    write_video(folder / "b.mp4", count=30)  # a newer one
    os.utime(out / "b.mp4", (1, 1))
    assert encode(folder, out) == 0
    assert "1 of 2 are done already" in capsys.readouterr().out
    assert (out / "a.mp4").stat().st_mtime_ns == before
    assert len(look(out / "b.mp4")[1]) == 30
    with pytest.raises(
        ValueError, match=r"out holds videos written with \{'height': 240, .*expected \{'height': 100, "
    ):
        encode(folder, out, "--height", 100)


def descendants(pid: int) -> list[int]:
    """The processes that a process started, and those that they did."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for path in lists for child in path.read_text().split()]
    return [*children, *(each for child in children for each in descendants(child))]


def test_encoding_that_is_killed_goes_on(encode: Callable, root: Path, tmp_path: Path, capsys):
    folder, out = tmp_path / "videos", tmp_path / "out"
    for i in range(12):
        write_video(folder / f"{i}.mp4", count=40)
    tool = [sys.executable, root / "tools" / "dataset_converters" / "reencode_videos.py"]
    child = subprocess.Popen([*tool, folder, out, "--workers", "1"], env=os.environ | {"PYTHONPATH": str(root)})
    while child.poll() is None and len(list(out.glob("*.mp4"))) < 3:
        time.sleep(0.01)
    with pytest.raises(BusyFolderError, match=rf"^{out} is in use: process {child.pid} on .* writes to it"):
        encode(folder, out)
    workers = [os.pidfd_open(pid) for pid in descendants(child.pid)]
    child.kill()
    child.wait()
    for worker in workers:
        assert select.select([worker], [], [], 60)[0], "its workers end with it"
        os.close(worker)
    done = list(out.glob("*.mp4"))
    assert 3 <= len(done) < 12, "it was killed in the midst of it"
    for path in done:
        assert look(path)[1] == list(range(40)), "what has its name is whole"
    (out / "sub").mkdir()
    (out / "sub" / ".clipbert-0123abcd.part").write_bytes(b"what a killed worker leaves")
    capsys.readouterr()
    assert encode(folder, out) == 0
    assert f"{len(done)} of 12 are done already" in capsys.readouterr().out
    assert sorted(path.name for path in out.rglob("*.*")) == sorted(
        [".reencoded.json", *(f"{i}.mp4" for i in range(12))]
    )
    assert all(look(path)[1] == list(range(40)) for path in out.glob("*.mp4"))


def test_videos_that_would_get_one_name_are_refused(encode: Callable, tmp_path: Path):
    for name in ("a.avi", "a.mp4"):
        (tmp_path / "videos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "videos" / name).touch()
    with pytest.raises(ValueError, match=r"a\.avi and a\.mp4 of .*videos would become one .*a\.mp4"):
        encode(tmp_path / "videos", tmp_path / "out")
    with pytest.raises(OptionError, match=r"There is no folder or LMDB .*none with files in it"):
        encode(tmp_path / "none", tmp_path / "out")


@pytest.mark.parametrize("wrong", [dict(height=1), dict(fps=0), dict(keyframes=0), dict(crf=52), dict(crf=-1)])
def test_an_encoding_out_of_range_is_refused(wrong: dict):
    with pytest.raises(
        ValueError, match=r"Encoding expects height >= 2, fps > 0, keyframes >= 1 and 0 <= crf <= 51, got "
    ):
        Encoding(**wrong)
