"""Animated GIFs: the frames and the rate that PyAV finds; what is cut is named."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image
from video_files import decode

from clipbert_mm.datasets.transforms import BrokenMediaError, DecodeClips, LoadImage, OpenVideo, SampleClips
from clipbert_mm.media.images import decode_image


def write_gif(path: Path, count: int, milliseconds: int | list[int], **options: Any) -> None:
    """Write an animated GIF in which a square moves; three pixels are transparent."""
    pictures = []
    for i in range(count):
        pixels = np.full((40, 60, 4), (10, 20, 30, 255), np.uint8)
        pixels[5 + i : 15 + i, 10 + 2 * i : 20 + 2 * i, :3] = (200, 40 * (i % 6), 90)
        pixels[0, :3, 3] = 0
        pictures.append(Image.fromarray(pixels))
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=milliseconds, loop=0, **options)


@pytest.mark.parametrize(
    ("count", "milliseconds", "fps"),
    [
        (12, 100, 10),
        (12, 40, 25),
        (6, 20, 50),
        (3, 5000, 0.2),
        (5, [100, 200, 50, 300, 100], 5 / 0.75),
        (2, 100, 10),
        (1, 100, 10),
        (1, 0, 10),  # without a delay a frame is shown for a tenth of a second
        (6, 0, 10),
    ],
)
@pytest.mark.parametrize("disposal", [1, 2])
def test_a_gif_is_a_video(
    tmp_path: Path, decode_with_pyav, count: int, milliseconds: int | list[int], fps: float, disposal: int
):
    write_gif(tmp_path / "a.gif", count, milliseconds, disposal=disposal)
    wanted = decode_with_pyav(tmp_path / "a.gif")
    results = OpenVideo().transform(dict(path=str(tmp_path / "a.gif")))
    assert (
        (results["total_frames"], results["avg_fps"])
        == (count, pytest.approx(fps))
        == (len(wanted), pytest.approx(fps))
    )
    if milliseconds:
        with av.open(str(tmp_path / "a.gif")) as container:
            assert results["avg_fps"] == pytest.approx(float(container.streams.video[0].average_rate))
    inds = [count - 1, *range(count), 0]
    assert np.array_equal(decode(tmp_path / "a.gif", inds), wanted[inds])
    assert np.array_equal(decode_image(str(tmp_path / "a.gif")), wanted[0])


def test_a_gif_goes_through_the_pipeline_of_videos(tmp_path: Path, decode_with_pyav):
    write_gif(tmp_path / "a_gif", 12, 100, format="GIF")  # without an ending, as in an LMDB
    results = OpenVideo().transform(dict(path=str(tmp_path / "a_gif")))
    results = SampleClips(num_clips=2, num_frames=2, clip_seconds=0.4, mode="uniform").transform(results)
    assert results["frame_inds"].tolist() == [1, 3, 9, 11]
    frames = DecodeClips().transform(results)["frames"]
    (tmp_path / "a_gif").rename(tmp_path / "a.gif")
    assert np.array_equal(frames.reshape(4, 40, 60, 3), decode_with_pyav(tmp_path / "a.gif")[[1, 3, 9, 11]])


def test_a_gif_of_pyav_is_read(tmp_path: Path, decode_with_pyav):
    with av.open(str(tmp_path / "a.gif"), "w") as container:
        stream = container.add_stream("gif", rate=20, width=32, height=24, pix_fmt="rgb8")
        for i in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((24, 32, 3), 50 * i, np.uint8), "rgb24")))
        container.mux(stream.encode())
    (tmp_path / "b.gif").write_bytes((tmp_path / "a.gif").read_bytes() + b"bytes after the end")
    for name in ("a.gif", "b.gif"):
        assert np.array_equal(decode(tmp_path / name, range(5)), decode_with_pyav(tmp_path / "a.gif"))


@pytest.mark.parametrize("kept", [6, 12, 20, 100, 300, 500, 900, -40, -2])
def test_a_cut_gif_is_named(tmp_path: Path, kept: int):
    write_gif(tmp_path / "a.gif", 12, 100)
    data = (tmp_path / "a.gif").read_bytes()
    assert len(data) > 950
    (tmp_path / "a.gif").write_bytes(data[:kept])
    for opener in (OpenVideo, LoadImage):
        with pytest.raises(BrokenMediaError, match=r"cannot read .*a\.gif: a GIF that is cut short or damaged"):
            opener().transform(dict(path=str(tmp_path / "a.gif")))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a" + bytes(6) + b"\0" + b"\x3b", "."),  # no picture
        (b"GIF89a" + b"\x77" * 500, "a GIF that is cut short or damaged"),
    ],
)
def test_a_gif_without_pictures_is_named(tmp_path: Path, data: bytes, reason: str):
    (tmp_path / "a.gif").write_bytes(data)
    with pytest.raises(BrokenMediaError, match=rf"cannot read .*a\.gif: {reason}"):
        decode(tmp_path / "a.gif", [0])
