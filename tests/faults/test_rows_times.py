"""Faults of times and lengths, and of the tools that go over whole folders, row by row."""

import errno
import json
import math
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
from scanning import probe
from video_files import cut_without_encoding, decode_whole, moving_frames, write_file

from clipbert_mm.apis.page.playback import PlayableMedia
from clipbert_mm.datasets.ledger import ledger_path, read_exclusions
from clipbert_mm.datasets.transforms import DecodeClips, OpenVideo, ResizePad, SampleClips
from clipbert_mm.errors import StorageError
from clipbert_mm.index import Entry
from clipbert_mm.media.media_file import read_media
from clipbert_mm.media.reencoding import Encoding, reencode

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
    assert list(read_exclusions(ledger)) == [ledger_path(str(folder / name))]
    assert ledger.read_bytes().decode("utf-8").count("\\udce9") == 1, "it is UTF-8, and JSON"


UNEVEN = [0, 40, 80, 120, 160, 200, 3000, 3040, 6000, 6040, 9000, 9520, 10000, 10520, 11000, 11520, 12000]
"""Times in milliseconds of a screen recording: a frame where something changes."""
KINDS = {
    "mkv": "libx264",
    "webm": "libvpx",
    "flv": "flv",
    "ts": "mpeg2video",
    "wmv": "wmv2",
    "mov": "libx264",
    "mp4": "libx264",
    "gif": "gif",
}
"""A codec for each container."""


@pytest.fixture(scope="module", params=KINDS)
def uneven(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    """A video of uneven frames and their times in seconds, as a full decode has them, of one container."""
    path = tmp_path_factory.mktemp("uneven") / f"a.{request.param}"
    fixed = request.param in ("ts", "wmv")  # their encoders take times that are multiples of a frame's
    with av.open(str(path), "w") as container:
        stream = container.add_stream(KINDS[request.param], rate=25, width=64, height=48)
        stream.pix_fmt = "rgb8" if request.param == "gif" else "yuv420p"
        tick = stream.codec_context.time_base = Fraction(1, 25 if fixed else 100)
        for i, pixels in enumerate(moving_frames(len(UNEVEN), 64, 48)):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = int(Fraction(UNEVEN[i], 1000) / tick), tick
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path, frame_times(path)


def frame_times(path: Path) -> np.ndarray:
    """When each frame appears, in seconds after the first, by a full decode."""
    with av.open(str(path)) as container:
        stream = container.streams.best("video")
        times = [frame.pts * stream.time_base for frame in container.decode(stream)]
    return np.array([float(time - times[0]) for time in times])


def on_screen(times: np.ndarray, wanted: np.ndarray) -> list[int]:
    """Which frame is on screen at a time, by counting."""
    return [max(i for i, time in enumerate(times) if time <= at + 1e-9) for at in wanted]


def test_m1_clips_show_what_is_on_screen_then(uneven: tuple[Path, np.ndarray]):
    path, times = uneven
    assert times == pytest.approx([each / 1000 for each in UNEVEN], abs=0.001)
    video = OpenVideo().transform(dict(path=str(path)))
    video["video_reader"].close()
    assert 12 < video["duration"] < 12.6  # few containers say when the last frame ends
    found = SampleClips(num_clips=12, num_frames=2, mode="uniform").transform(video)
    wanted = [start + share for start in np.linspace(0, video["duration"] - 1, 12) for share in (0.25, 0.75)]
    assert found["frame_inds"].tolist() == on_screen(times, np.array(wanted))
    assert found["clip_times"][-1] == pytest.approx([video["duration"] - 1, video["duration"]])


def test_m1_lengths_are_those_of_the_time_stamps(uneven: tuple[Path, np.ndarray]):
    path, _ = uneven
    found = probe((str(path), json.dumps(dict(type="OpenVideo"))))
    assert 12 < found["seconds"] < 12.6
    assert found["fps"] == pytest.approx(found["frames"] / found["seconds"], abs=1e-3)
    steps = [OpenVideo(), SampleClips(num_clips=3, num_frames=1, mode="uniform"), DecodeClips(), ResizePad(size=32)]
    media = read_media(steps, str(path))
    assert media.seconds == pytest.approx(found["seconds"], abs=1e-3)
    assert media.clip_times[-1, 1] == media.seconds


def test_m1_the_released_rule_stays_one_of_numbers(uneven: tuple[Path, np.ndarray]):
    path, _ = uneven
    video = OpenVideo().transform(dict(path=str(path)))
    options = dict(num_clips=4, num_frames=2, mode="uniform", compat="official")
    found = SampleClips(**options).transform(dict(video))
    by_number = SampleClips(**options).transform(video | dict(frame_times=None))
    assert found["frame_inds"].tolist() == by_number["frame_inds"].tolist()
    assert found["clip_times"][0, 0] == 0
    assert found["clip_times"][-1, 1] <= video["duration"]


def test_m1_encoding_anew_keeps_the_times(uneven: tuple[Path, np.ndarray], tmp_path: Path):
    path, times = uneven
    assert reencode((str(path), str(tmp_path / "b.mp4"), Encoding())) == ""
    assert frame_times(tmp_path / "b.mp4") == pytest.approx(times, abs=1e-5)
    lengths = [OpenVideo().transform(dict(path=str(each)))["duration"] for each in (path, tmp_path / "b.mp4")]
    assert lengths[1] == pytest.approx(lengths[0], abs=1e-3)
    assert reencode((str(path), str(tmp_path / "c.mp4"), Encoding(fps=5))) == ""
    before, after = decode_whole(path), decode_whole(tmp_path / "c.mp4")
    assert len(after) == math.ceil(lengths[0] * 5 - 1e-6)
    nearest = [int(np.abs(before.astype(int) - frame).mean(axis=(1, 2, 3)).argmin()) for frame in after]
    assert nearest == on_screen(times, np.arange(len(after)) / 5)


def test_m2_a_clip_cut_without_encoding_is_encoded_anew(run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "videos").mkdir()
    whole = write_file(tmp_path / "ten.mp4", count=250, keyframes=250)
    cut = cut_without_encoding(whole, tmp_path / "videos" / "cut.mp4", 3.0)
    assert run("reencode", tmp_path / "videos", "--crf=1") == 0
    assert "1 of 1 videos are in" in capsys.readouterr().out
    shown, written = decode_whole(cut), decode_whole(tmp_path / "out" / "cut.mp4")
    assert len(shown) == len(written) == 175
    assert np.abs(shown.astype(int) - written).mean() < 4


def test_m9_the_longest_names_do_not_end_an_encoding(run: Callable, tmp_path: Path, capsys: pytest.CaptureFixture):
    folder, out = tmp_path / "videos", tmp_path / "out"
    folder.mkdir()
    write_file(folder / "a.mp4", count=5)
    names = ["b" * length + end for length, end in ((247, ".mp4"), (251, ".mp4"), (252, ".ts"), (255, ""))]
    for name in names:
        os.link(folder / "a.mp4", folder / name)
    assert [len(name) for name in names] == [251, 255, 255, 255]
    assert run("reencode", folder) == 1
    said = capsys.readouterr().out
    assert f"3 of 5 videos are in {out}, 2 are broken" in said
    for name in names[2:]:
        assert f"broken: {folder / name}: the name of the new file is too long: " in said
    assert sorted(path.name for path in out.glob("*.mp4")) == sorted(["a.mp4", *names[:2]])
    run("scan", folder)
    assert "ok: 0" in capsys.readouterr().out
    assert len(read_exclusions(out / "ledger.jsonl", ["too_short"])) == 5


def test_m3_a_cover_before_the_video_is_not_written_in_its_place(tmp_path: Path):
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1, width=32, height=32, pix_fmt="yuvj420p")
        video = container.add_stream("libx264", rate=25, width=96, height=64, pix_fmt="yuv420p")
        container.mux(cover.encode(av.VideoFrame(32, 32, "yuvj420p")))
        for stream, frames in ((cover, []), (video, moving_frames(30, 96, 64))):
            for pixels in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    assert reencode((str(path), str(tmp_path / "b.mp4"), Encoding())) == ""
    assert decode_whole(tmp_path / "b.mp4").shape == (30, 64, 96, 3)


def playable(path: Path, gallery: Path) -> str:
    """Return the file that the page plays for a video."""
    found = path.stat()
    entry = Entry(str(path), found.st_size, found.st_mtime_ns, 2.0, None, (1, 1))
    return PlayableMedia(SimpleNamespace(by_key={entry.key: entry}.get, folder=gallery)).find(entry.key).path


@pytest.mark.parametrize(("name", "codec"), [("a.webm", "libvpx"), ("a.mp4", "libx264")])
def test_m1_the_player_of_the_page_counts_from_the_first_frame(name: str, codec: str, tmp_path: Path):
    times = [40 * i for i in range(30)]
    early = write_file(tmp_path / name, codec, count=30, milliseconds=times)
    late = write_file(tmp_path / f"late_{name}", codec, count=30, milliseconds=[10_000 + time for time in times])
    with av.open(str(late)) as container:
        assert next(container.decode(video=0)).time == pytest.approx(10), "where a browser shows it"
    assert playable(early, tmp_path / "gallery") == str(early)
    with av.open(playable(late, tmp_path / "gallery")) as container:
        assert [frame.time for frame in container.decode(video=0)] == pytest.approx([time / 1000 for time in times])


def test_m3_the_page_plays_the_video_that_is_read(tmp_path: Path):
    path = tmp_path / "two.mp4"
    with av.open(str(path), "w") as container:
        sizes = ((64, 64), (96, 64))
        streams = [container.add_stream("libx264", rate=25, width=w, height=h, pix_fmt="yuv420p") for w, h in sizes]
        for stream, size in zip(streams, sizes, strict=True):
            for pixels in moving_frames(20, *size):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
    read = OpenVideo().transform(dict(path=str(path)))["video_reader"]
    size = next(read.read([0]))[1].shape[:2]
    assert decode_whole(Path(playable(path, tmp_path / "gallery"))).shape[1:3] == size
