"""The reader that decodes least: whatever the file, its frames are those of decoding all of it, bit for bit."""

import os
import random
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from video_files import cut_without_encoding, decode_whole, turn, write_file

from clipbert_mm.media.readers.pyav_reader import PyAVReader
from clipbert_mm.media.readers.video_source import Source

UNEVEN = [500 + 40 * i + (17 * i % 31) + 400 * (i // 20) for i in range(75)]
KINDS: dict[str, dict[str, Any]] = {
    "b.mp4": {},
    "no_b.mp4": dict(options={"bf": "0"}),
    "many_b.mp4": dict(options={"x264-params": "bframes=16:b-pyramid=normal:b-adapt=0:ref=8"}),
    "strict_b.mp4": dict(options={"x264-params": "bframes=5:b-pyramid=strict:weightp=2:direct=temporal"}),
    "open_gop.mp4": dict(options={"x264-params": "open-gop=1:bframes=5:keyint=12:min-keyint=5"}),
    "intra_refresh.mp4": dict(options={"x264-params": "intra-refresh=1:keyint=20"}),
    "interlaced.mp4": dict(options={"x264-params": "interlaced=1"}),
    "cavlc_slices.mp4": dict(options={"x264-params": "cabac=0:slices=4"}),
    "key_frames_alone.mp4": dict(keyframes=1),
    "uneven_times.mp4": dict(milliseconds=UNEVEN),
    "uneven_times.mkv": dict(milliseconds=UNEVEN),
    "late_start.ts": dict(milliseconds=[5000 + 40 * i for i in range(75)]),
    "odd_size.mp4": dict(size=(97, 63), pix_fmt="yuv444p"),
    "ten_bits.mp4": dict(pix_fmt="yuv420p10le"),
    "fragments.mp4": dict(container_options={"movflags": "frag_keyframe+empty_moov"}),
    "first_fragment_listed.mp4": dict(container_options={"movflags": "dash+global_sidx"}),
    "open_gop.mkv": dict(options={"x264-params": "open-gop=1:bframes=5"}),
    "a.flv": {},
    "h264.avi": {},
    "mpeg4.avi": dict(codec="mpeg4"),
    "mpeg4_b.avi": dict(codec="mpeg4", options={"bf": "3"}),
    "mpeg4_b.mp4": dict(codec="mpeg4", options={"bf": "3"}),
    "mpeg2_b.mpg": dict(codec="mpeg2video", options={"bf": "2"}),
    "hevc.mp4": dict(codec="libx265", options={"x265-params": "log-level=error:bframes=4"}),
    "hevc_layers.mp4": dict(codec="libx265", options={"x265-params": "log-level=error:temporal-layers=1"}),
    "vp8.webm": dict(codec="libvpx"),
    "vp9.webm": dict(codec="libvpx-vp9", options={"deadline": "realtime", "cpu-used": "8"}),
    "av1.mp4": dict(codec="libsvtav1", options={"preset": "12"}),
}
"""Options of :func:`write_file` for each name."""


def assert_frames(path: Path, wanted: np.ndarray, draws: int = 8) -> None:
    """Compare each frame alone, sets of frames and all of them with a full decode."""
    count, draw = len(wanted), random.Random(0)
    chosen = [[i] for i in sorted(draw.sample(range(count), 12))]
    chosen += [sorted(draw.sample(range(count), draw.randint(2, 16))) for _ in range(draws)]
    for inds in [*chosen, list(range(count))]:
        reader = PyAVReader(str(path))
        assert reader.total_frames == count
        found = {i: picture.copy() for i, picture in reader.read(inds)}
        assert sorted(found) == inds
        wrong = [i for i in inds if not np.array_equal(found[i], wanted[i])]
        assert not wrong, f"{path.name}: frames {wrong} of {inds}"
        reader.close()


@pytest.mark.parametrize("name", KINDS)
def test_frames_are_those_of_decoding_the_whole_file(tmp_path: Path, name: str):
    path = write_file(tmp_path / name, **KINDS[name])
    wanted = decode_whole(path)
    assert len(wanted) == 75
    assert (np.abs(np.diff(wanted.astype(int), axis=0)).max(axis=(1, 2, 3)) > 20).all(), "a wrong frame would show"
    assert_frames(path, wanted)


@pytest.mark.parametrize("degrees", [90, 180, 270])
def test_pictures_are_upright(tmp_path: Path, degrees: int):
    path = write_file(tmp_path / "a.mp4")
    before = decode_whole(path)
    turn(path, degrees)
    assert_frames(path, np.rot90(before, degrees // 90, axes=(1, 2)), draws=1)


def test_what_an_edit_list_hides_does_not_count(tmp_path: Path):
    source = write_file(tmp_path / "a.mp4", keyframes=30, options={"bf": "0"})
    path = cut_without_encoding(source, tmp_path / "cut.mp4", 1.6)  # frame 40, of the group that begins with 30
    whole = decode_whole(source)
    assert PyAVReader(str(path)).index.shown.tolist()[-1] == 35
    assert_frames(path, whole[40:], draws=4)


def test_an_edit_list_may_hide_the_end(tmp_path: Path):
    path = write_file(tmp_path / "a.mp4")
    whole = decode_whole(path)
    data = bytearray(path.read_bytes())
    place = data.index(b"elst") + 4 + 4 + 4
    assert int.from_bytes(data[place : place + 4], "big") == 3000  # milliseconds
    data[place : place + 4] = (2000).to_bytes(4, "big")
    path.write_bytes(data)
    wanted = decode_whole(path)
    assert 50 <= len(wanted) < 60
    assert np.array_equal(wanted[:50], whole[:50])
    assert_frames(path, wanted, draws=4)


def test_frames_are_skipped_and_files_passed_over_only_where_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    path = write_file(tmp_path / "a.mp4", options={"x264-params": "bframes=3:b-adapt=0:b-pyramid=normal:scenecut=0"})
    read = []
    real = PyAVReader.decode
    monkeypatch.setattr(PyAVReader, "decode", lambda self, packets, times: _note(read, real(self, packets, times)))
    reader = PyAVReader(str(path))
    assert reader.index.starts.tolist() == [0, 25, 50, 75]
    assert [i for i, _ in reader.read([60])] == [60]
    # I P B b b P ...: of 25 to 60 in a full decode; the key frame at 50 leads to frames 54, 58, 62, to 56 and 60 between
    # them, and no others.
    assert 0 < len(read) <= 7
    assert all(frame.pts >= 50 * 512 for frame in read)


def _note(read: list, frames: Any) -> Any:
    for frame in frames:
        read.append(frame)
        yield frame


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.webm", "fragments.mp4"])
def test_count_and_rate_are_known_without_decoding(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    codec = "libvpx" if name == "a.webm" else "libx264"
    fragments = {"movflags": "frag_keyframe+empty_moov"} if name.startswith("frag") else None
    path = write_file(tmp_path / name, codec, container_options=fragments)
    with av.open(str(path)) as container:
        assert (container.streams.video[0].frames == 0) == (name != "a.mp4"), "its header does not say"
    decoded = []
    monkeypatch.setattr(PyAVReader, "decode", lambda *args: decoded.append(args))
    reader = PyAVReader(str(path))
    assert (reader.total_frames, reader.avg_fps) == (75, pytest.approx(25, rel=1e-3))
    assert not decoded


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.ts", "a.flv", "a.mov", "fragments.mp4"])
@pytest.mark.parametrize("b_frames", ["0", "3"])
def test_uneven_times_are_those_of_the_frames(tmp_path: Path, name: str, b_frames: str):
    fragments = {"movflags": "frag_keyframe+empty_moov"} if name.startswith("frag") else None
    path = write_file(tmp_path / name, milliseconds=UNEVEN, options={"bf": b_frames}, container_options=fragments)
    timing = PyAVReader(str(path))
    assert np.abs(timing.frame_times - (np.array(UNEVEN) - UNEVEN[0]) / 1000).max() < 1.1e-3
    assert timing.duration == pytest.approx((UNEVEN[-1] - UNEVEN[0]) / 1000 + 0.04, abs=0.06)
    assert timing.avg_fps == 75 / timing.duration


def test_a_reader_can_be_asked_again(tmp_path: Path):
    path = write_file(tmp_path / "a.mp4")
    wanted, reader = decode_whole(path), PyAVReader(str(path))
    for inds in ([70], [3, 40], [70, 71], [0]):
        for i, picture in reader.read(inds):
            assert np.array_equal(picture, wanted[i])


def test_more_threads_give_the_same(tmp_path: Path):
    path = write_file(tmp_path / "a.mp4", size=(192, 128))
    wanted = decode_whole(path)
    for i, picture in PyAVReader(str(path), num_threads=3).read([5, 30, 44, 74]):
        assert np.array_equal(picture, wanted[i])


def test_a_frame_that_is_not_there_is_named(tmp_path: Path):
    reader = PyAVReader(str(write_file(tmp_path / "a.mp4")))
    with pytest.raises(IndexError, match="expected 75 frames, frame 75 cannot be decoded"):
        list(reader.read([3, 75, 99]))


def test_a_file_is_closed_when_nobody_holds_it(tmp_path: Path):
    write_file(tmp_path / "a.mp4")
    source = Source(str(tmp_path / "a.mp4"))
    descriptor = source.descriptor
    os.fstat(descriptor)
    del source
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
