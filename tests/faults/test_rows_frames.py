"""Which frames a video has, when each is shown, and what is no video: the faults of media, each with what is right."""

import os
import random
import shutil
from pathlib import Path

import av
import numpy as np
import pytest
from odd_videos import (
    EVENT,
    MATRICES,
    claiming_mp4,
    copy_packets,
    decode_shown,
    not_coded,
    set_edits,
    set_matrix,
    write_alt_refs,
    write_sound,
    write_title,
    write_tracks,
)
from video_files import cut_without_encoding, decode, write_file

from clipbert_mm.datasets.transforms import BackendError, BrokenMediaError, OpenVideo
from clipbert_mm.media.readers import BACKENDS, check_backend
from clipbert_mm.media.readers.base import MAX_PIXELS

FRAME = 512
"""Ticks of a frame in the MP4 files here."""


def usable() -> list[str]:
    """Return the backends that can be used here."""
    found = []
    for backend in BACKENDS:
        try:
            check_backend(backend)
        except BackendError:
            continue
        found.append(backend)
    return found


def assert_as_decoded(path: Path | str, *, count: int | None = None, refusing: tuple[str, ...] = ()) -> np.ndarray:
    """See that each backend gives the frames of a full decode, in any order of asking, or refuses if it may."""
    wanted = decode_shown(path)
    assert count in (None, len(wanted))
    draw = random.Random(0)
    for backend in usable():
        some = sorted(draw.sample(range(len(wanted)), min(5, len(wanted))))
        for inds in ([len(wanted) - 1], some, list(range(len(wanted)))):
            found = try_to_decode(path, inds, backend)
            if isinstance(found, str):
                assert backend in refusing, found
                assert "use OpenVideo(backend='pyav')" in found
                break
            # Others than PyAV convert colors by releases of FFmpeg of their own.
            difference = np.abs(found.astype(int) - wanted[inds]).mean(axis=(1, 2, 3))
            assert difference.max() <= (0 if backend == "pyav" else 2), (backend, inds, difference)
        else:
            assert OpenVideo(backend=backend).transform(dict(path=str(path)))["total_frames"] == len(wanted)
    return wanted


def try_to_decode(path: Path | str, inds: list[int], backend: str) -> np.ndarray | str:
    """Return frames, (T, H, W, 3), or why they are refused."""
    try:
        return decode(path, inds, backend=backend)
    except BrokenMediaError as error:
        return error.reason


def refused(path: Path | str, reason: str) -> None:
    """See that each backend refuses a file with the same words."""
    for backend in usable():
        with pytest.raises(BrokenMediaError, match=reason):
            decode(path, [0], backend=backend)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.mp4", "libx264"),
        ("a.mkv", "libx264"),
        ("a.webm", "libvpx"),
        ("a.flv", "flv"),
        ("a.ts", "libx264"),
        ("a.wmv", "wmv2"),
        ("a.mov", "libx264"),
        ("a.avi", "mpeg4"),
    ],
)
def test_m1_frames_are_shown_when_their_time_stamps_say(tmp_path: Path, name: str, codec: str):
    options = {"bf": "0"} if codec == "libx264" else None  # B-frames: test_pyav_reader.py
    path = write_file(tmp_path / name, codec, count=len(EVENT), milliseconds=EVENT, options=options)
    results = OpenVideo().transform(dict(path=str(path)))
    assert results["total_frames"] == len(EVENT) == len(decode_shown(path))
    assert results["frame_times"] == pytest.approx(np.array(EVENT) / 1000, abs=0.021)
    assert results["duration"] == pytest.approx(12, abs=0.6)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.flv", "a.ts", "a.avi"])
def test_m1_a_constant_rate_has_no_times(tmp_path: Path, name: str):
    path = write_file(tmp_path / name, "mpeg4" if name == "a.avi" else "libx264")
    results = OpenVideo().transform(dict(path=str(path)))
    assert (results["frame_times"], results["avg_fps"], results["duration"]) == (None, 25, 3)


def test_m2_a_clip_cut_without_encoding_has_the_frames_that_it_shows(tmp_path: Path):
    source = write_file(tmp_path / "ten.mp4", keyframes=30, options={"bf": "0"})
    path = cut_without_encoding(source, tmp_path / "cut.mp4", 1.6)
    assert_as_decoded(path, count=35, refusing=("decord",))


def test_m3_one_rule_chooses_among_tracks(tmp_path: Path):
    others = ("decord", "opencv")
    path = write_tracks(tmp_path / "thumb_first.mp4", [(64, 48), (96, 64)], [1, 30])
    assert assert_as_decoded(path, count=30, refusing=others).shape[1:3] == (64, 96)
    for name in ("a.mp4", "a.mkv"):
        path = write_tracks(tmp_path / name, [(96, 64), (64, 48)], [30, 40])
        assert assert_as_decoded(path, refusing=others).shape == (30, 64, 96, 3)
    path = write_tracks(tmp_path / "picture_behind.mkv", [(96, 64), (128, 96)], [30, 1])
    assert_as_decoded(path, count=30, refusing=("decord",))


@pytest.mark.parametrize("name", ["song.mp3", "song.mp4"])
def test_m3_m6_a_cover_is_no_video(tmp_path: Path, name: str):
    refused(write_sound(tmp_path / name), "it has no video stream$")


def test_m4_pictures_that_are_never_shown_do_not_count(tmp_path: Path):
    path = write_alt_refs(tmp_path / "a.webm")
    with av.open(str(path)) as container:
        assert sum(packet.size > 0 for packet in container.demux(video=0)) == 45
    assert_as_decoded(path, count=40, refusing=("decord", "torchcodec"))


@pytest.mark.parametrize("name", ["a.avi", "a.mp4", "a.mkv"])
def test_m4_frames_that_are_not_coded_do_not_count(tmp_path: Path, name: str):
    plain = write_file(tmp_path / "plain.mp4", "mpeg4", count=40, keyframes=12)
    path = copy_packets(plain, tmp_path / name, after={i: not_coded(i) for i in (3, 13, 30)})
    assert_as_decoded(path, count=40, refusing=("decord", "torchcodec", "opencv"))


def test_m5_frames_that_an_avi_file_repeats_have_no_packet(tmp_path: Path):
    times = [40 * i for i in (*range(20), 30, 31, 60, 100)]
    path = write_file(tmp_path / "a.avi", "mpeg4", count=len(times), milliseconds=times)
    assert_as_decoded(path, count=len(times), refusing=("decord", "torchcodec"))
    assert OpenVideo().transform(dict(path=str(path)))["frame_times"] == pytest.approx(np.array(times) / 1000)


@pytest.mark.parametrize("b_frames", [0, 2])
@pytest.mark.parametrize(
    "edits",
    [
        [(2000, None, 1), (3000, 0, 1)],
        [(1000, 0, 1), (1000, 50, 1)],
        [(1000, 50, 1), (1000, 0, 1)],
        [(1000, 10, 1), (1000, 10, 1), (1000, 10, 1)],
        [(1000, 0, 1), (5000, None, 1), (1000, 40, 1)],
        [(6000, 0, 0.5)],
        [(1000, 33, 1)],
    ],
    ids=["delay", "middle cut out", "swapped", "repeated", "gap", "slow", "within a group"],
)
def test_m5_edit_lists_of_several_parts(tmp_path: Path, edits: list, b_frames: int):
    path = write_file(tmp_path / "a.mp4", options={"x264-params": f"bframes={b_frames}"})
    start = 0 if not b_frames else 2 * FRAME
    set_edits(path, [(length, -1 if at is None else at * FRAME + start, speed) for length, at, speed in edits])
    assert_as_decoded(path, refusing=("decord", "torchcodec"))


def test_m5_an_edit_list_that_shows_nothing_is_said(tmp_path: Path):
    path = set_edits(write_file(tmp_path / "a.mp4"), [(3000, 200 * FRAME, 1)])
    refused(path, "it shows no frame$")


@pytest.mark.parametrize("suffix", ["mp4", "mov", "mkv", "ts", "avi", "flv"])
def test_m5_what_no_key_frame_leads_to_does_not_count(tmp_path: Path, suffix: str):
    source = write_file(tmp_path / "whole.mp4", options={"bf": "0"})
    path = copy_packets(source, tmp_path / f"a.{suffix}", drop=5)
    assert_as_decoded(path, count=50, refusing=("decord", "torchcodec"))


def test_m5_a_file_without_a_key_frame_is_refused(tmp_path: Path):
    source = write_file(tmp_path / "whole.mp4", count=30, keyframes=400, options={"bf": "0"})
    for name in ("a.mp4", "a.mkv"):
        refused(copy_packets(source, tmp_path / name, drop=3), "it shows no frame$")


def test_m5_a_broadcast_that_begins_anywhere(tmp_path: Path):
    for name, codec in (("h264.ts", "libx264"), ("mpeg2.ts", "mpeg2video")):
        whole = write_file(tmp_path / name, codec, options={"bf": "2"}).read_bytes()
        packets = len(whole) // 188
        (tmp_path / name).write_bytes(whole[: 188 * 2] + whole[188 * (packets // 5) :])
        assert_as_decoded(tmp_path / name, refusing=("decord", "torchcodec"))


@pytest.mark.parametrize(("name", "codec"), [("a.h264", "libx264"), ("a.hevc", "libx265"), ("a.m2v", "mpeg2video")])
def test_m6_bare_streams_are_read(tmp_path: Path, name: str, codec: str):
    options = {"x265-params": "log-level=error"} if codec == "libx265" else None
    path = write_file(tmp_path / name, codec, count=40, keyframes=12, options=options)
    assert_as_decoded(path, count=40, refusing=("decord", "torchcodec"))


@pytest.mark.parametrize("params", ["intra-refresh=1:keyint=20", "open-gop=1:bframes=5:keyint=12:min-keyint=5"])
def test_m5_key_frames_that_need_others_mislead_nobody(tmp_path: Path, params: str):
    path = write_file(tmp_path / "a.mp4", options={"x264-params": params})
    assert_as_decoded(path, count=75, refusing=("decord", "torchcodec"))


@pytest.mark.parametrize("how", MATRICES)
def test_m7_frames_are_turned_and_mirrored_as_the_file_says(tmp_path: Path, how: str):
    path = write_file(tmp_path / "a.mp4", count=12)
    before = decode_shown(path)
    set_matrix(path, MATRICES[how])
    after = assert_as_decoded(path, refusing=("decord", "torchcodec"))
    # A matrix (a b; c d) puts what is at (x, y) to (a x + c y, b x + d y).
    a, b, c, d = (value >> 16 for value in MATRICES[how])
    wanted = before[:, :: (a + b), :: (c + d)] if a else before.swapaxes(1, 2)[:, ::b, ::c]
    wanted = before[:, :: d or 1, :: a or 1] if a else wanted
    assert np.array_equal(after, wanted)


@pytest.mark.parametrize(
    ("turn", "quarters"), [((0, 0, 0, 0), 0), ((114, 65536, -65536, 114), -1), ((2 << 16, 0, 0, 2 << 16), 0)]
)
def test_m7_odd_matrices_turn_as_ffmpeg_turns(tmp_path: Path, turn: tuple[int, ...], quarters: int):
    path = write_file(tmp_path / "a.mp4", count=12)
    before = decode_shown(path)
    set_matrix(path, turn)
    after = assert_as_decoded(path, refusing=("decord", "torchcodec"))
    assert np.array_equal(after, np.rot90(before, quarters, axes=(1, 2)))


def test_m8_tags_may_be_in_any_encoding(tmp_path: Path):
    assert_as_decoded(write_title(tmp_path / "a.avi"), count=12)


@pytest.mark.parametrize("name", [b"12:30 talk.mp4", b"caf\xe9.mp4", b"http:a.mp4", b"a%03d.mp4", b"-y.mp4"])
def test_m9_a_name_is_only_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: bytes):
    plain = write_file(tmp_path / "plain.mp4", count=12)
    wanted = decode_shown(plain)
    monkeypatch.chdir(tmp_path)
    shutil.copy(b"plain.mp4", name)
    for backend in usable():
        assert np.array_equal(decode(os.fsdecode(name), list(range(12)), backend=backend), wanted)


def test_m9_a_file_names_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_file(tmp_path / "secret.ts")
    write_file(tmp_path / "secret.mp4")
    monkeypatch.chdir(tmp_path)
    playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.ts\n#EXT-X-ENDLIST\n"
    for name, text in (("a.m3u8", playlist), ("a.mp4", "ffconcat version 1.0\nfile 'secret.mp4'\n")):
        (tmp_path / name).write_text(text)
        refused(tmp_path / name, "not a video, or cut short$")


def test_m10_frames_are_bounded_before_one_is_decoded(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(claiming_mp4(1, 9000, 9000))
    refused(tmp_path / "a.mp4", rf"its frames have 9000 x 9000 pixels, more than the {MAX_PIXELS:,} that are decoded$")


def test_m11_counts_are_compared_with_the_size_of_the_file(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(claiming_mp4(10_000_000))
    size = (tmp_path / "a.mp4").stat().st_size
    assert size < 700
    refused(tmp_path / "a.mp4", rf"it claims 10,000,000 frames and samples, its {size} bytes cannot hold so many$")
    (tmp_path / "b.mp4").write_bytes(claiming_mp4(30_000, payload=bytes(30_000)))
    refused(tmp_path / "b.mp4", "it claims 30,000 frames, its 30,[0-9]{3} bytes cannot hold so many$")


def test_m11_fragments_are_counted_too(tmp_path: Path):
    path = write_file(tmp_path / "a.mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    data = bytearray(path.read_bytes())
    place = data.index(b"trun") + 8
    assert int.from_bytes(data[place : place + 4], "big") == 25
    data[place : place + 4] = (200_000_000).to_bytes(4, "big")
    path.write_bytes(data)
    refused(path, "it claims 200,000,050 frames and samples, its [0-9,]+ bytes cannot hold so many$")


@pytest.mark.parametrize("suffix", ["flv", "mp4", "mkv", "ts", "avi"])
def test_m13_a_video_may_have_one_frame(tmp_path: Path, suffix: str):
    path = write_file(tmp_path / f"a.{suffix}", "mpeg4" if suffix == "avi" else "libx264", count=1)
    assert_as_decoded(path, count=1, refusing=("decord", "torchcodec"))
    assert OpenVideo().transform(dict(path=str(path)))["duration"] == pytest.approx(0.04, abs=0.021)


@pytest.mark.parametrize("codec", ["png", "mjpeg", "libwebp", "bmp"])
def test_m13_a_still_image_is_no_video(tmp_path: Path, codec: str):
    with av.open(str(tmp_path / "a.png"), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream(codec, rate=1, width=96, height=64)
        stream.pix_fmt = {"png": "rgb24", "mjpeg": "yuvj420p", "libwebp": "yuv420p", "bmp": "bgr24"}[codec]
        container.mux(stream.encode(av.VideoFrame(96, 64, "rgb24").reformat(format=stream.pix_fmt)))
        container.mux(stream.encode())
    shutil.copy(tmp_path / "a.png", tmp_path / "a.mp4")
    refused(tmp_path / "a.mp4", "a still image, no video$")


def test_e_unknown_codec_is_said(tmp_path: Path):
    path = write_file(tmp_path / "a.mp4", count=12)
    data = path.read_bytes()
    path.write_bytes(data.replace(b"avc1", b"zzzz"))
    refused(path, "FFmpeg has no decoder for its video stream$")
