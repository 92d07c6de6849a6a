"""Decoding: the very frames of a full sequential decode by another library; broken files are named."""

import re
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import lmdb
import numpy as np
import pytest
from mmengine.dataset import Compose
from PIL import Image, ImageOps

from clipbert_mm.datasets.shapes import Scene, ShapeObject, write_video
from clipbert_mm.datasets.transforms import BrokenMediaError, DecodeClips, LoadImage, OpenVideo, SampleClips
from clipbert_mm.datasets.transforms.decoding import OpenFrames
from clipbert_mm.registry import TRANSFORMS


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """An H.264 file with several key frames, in which something moves all the time."""
    first = ShapeObject("star", "red", "large", (0.2, 0.5), (0.3, 0.2))
    second = ShapeObject("ring", "blue", "small", (0.8, 0.1), (-0.2, 0.3))
    scenes = (Scene((first,), "black", 4.0), Scene((second,), "white", 3.92))
    write_video(tmp_path / "a.mp4", scenes, (176, 144), 12.5)
    return tmp_path / "a.mp4"


def decode(path: Path, inds: list[int]) -> np.ndarray:
    """Decode frames as one clip, (T, H, W, 3)."""
    results = OpenVideo().transform(dict(path=str(path)))
    results |= dict(frame_inds=np.array(inds), num_clips=1, clip_len=len(inds))
    return DecodeClips().transform(results)["frames"][0]


def test_frames_are_those_of_a_sequential_decode(video: Path, decode_with_pyav):
    wanted = decode_with_pyav(video)
    found = decode(video, list(range(len(wanted))))
    assert np.abs(found.astype(int) - wanted).max() <= 2  # two conversions from YUV to RGB
    # Frames one apart do differ by more than that, so a wrong one would show.
    assert (np.abs(np.diff(wanted.astype(int), axis=0)).max(axis=(1, 2, 3)) > 2).mean() > 0.9


def test_scattered_frames_come_in_the_order_asked_for(video: Path, decode_with_pyav):
    wanted = decode_with_pyav(video)
    inds = [len(wanted) - 1, 3, 61, 3, 0, 31, 30, 29]
    assert np.abs(decode(video, inds).astype(int) - wanted[inds]).max() <= 2


def test_sampled_clips_show_their_time_of_the_video(video: Path, decode_with_pyav):
    wanted = decode_with_pyav(video)
    results = OpenVideo().transform(dict(path=str(video)))
    assert (results["total_frames"], results["avg_fps"]) == (len(wanted), 12.5)
    results = SampleClips(num_clips=3, num_frames=2, mode="uniform").transform(results)
    inds = results["frame_inds"].reshape(3, 2)
    frames = DecodeClips().transform(results)["frames"]
    for k in range(3):
        for t in range(2):
            assert np.abs(frames[k, t].astype(int) - wanted[inds[k, t]]).max() <= 2


def test_each_frame_is_decoded_once(video: Path):
    class Counting:
        """Stands for the reader and notes what is asked of it."""

        def __init__(self, reader) -> None:
            self.reader, self.asked = reader, []

        def get_batch(self, inds):
            self.asked.extend(int(i) for i in inds)
            return self.reader.get_batch(inds)

    results = OpenVideo().transform(dict(path=str(video)))
    reader = results["video_reader"] = Counting(results["video_reader"])
    results |= dict(frame_inds=np.array([5, 5, 2, 9, 2, 5]), num_clips=3, clip_len=2)
    frames = DecodeClips().transform(results)["frames"]
    assert reader.asked == [2, 5, 9]
    assert "video_reader" not in results, "an open reader cannot leave a worker"
    assert np.array_equal(frames.reshape(6, 144, 176, 3), decode(video, [5, 5, 2, 9, 2, 5]))


def test_a_video_needs_no_ending(video: Path):
    wanted = decode(video, [7])
    assert np.array_equal(decode(video.rename(video.with_name("a_video")), [7]), wanted)


def test_other_containers_and_codecs(tmp_path: Path, decode_with_pyav):
    rng = np.random.default_rng(0)
    noise = cv2.resize(rng.integers(0, 256, (12, 9, 11, 3)).astype(np.uint8).reshape(12, 9, -1), (64, 48))
    frames = noise.reshape(48, 64, 11, 3).transpose(2, 0, 1, 3)
    for name, codec in (("a.avi", "mpeg4"), ("a.mkv", "libx264"), ("a.webm", "libvpx")):
        with av.open(str(tmp_path / name), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(10), width=64, height=48, pix_fmt="yuv420p")
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
            container.mux(stream.encode())
        wanted = decode_with_pyav(tmp_path / name)
        assert len(wanted) == 11
        assert np.abs(decode(tmp_path / name, [0, 4, 10]).astype(int) - wanted[[0, 4, 10]]).max() <= 2, name


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", r"the file is empty \(0 bytes\)"),
        ("text", "^not a video, or cut short$"),
        ("cut", "^not a video, or cut short$"),
        ("cut in the data", "^not a video, or cut short$"),
        ("zeros in the data", "^Check failed: avcodec_send_packet"),  # without the paths of decord's build machine
        ("no head", "^not a video, or cut short$"),
    ],
)
def test_a_broken_video_is_named_with_what_is_wrong(video: Path, break_file, how: str, reason: str):
    path = break_file(video, how)
    with pytest.raises(BrokenMediaError) as caught:
        decode(video, list(range(99)))
    assert caught.value.path == path
    assert str(caught.value) == f"cannot read {path}: {caught.value.reason}"
    assert re.search(reason, caught.value.reason)


def test_a_file_without_a_video_stream_is_named(tmp_path: Path):
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    with pytest.raises(BrokenMediaError, match=r"cannot read .*sound\.mp4: ."):
        decode(tmp_path / "sound.mp4", [0])


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_an_image_is_a_video_of_one_frame_in_rgb(tmp_path: Path, name: str):
    pixels = np.zeros((32, 16, 3), np.uint8)
    pixels[..., 0], pixels[16:, :, 2] = 200, 90  # red, violet below; 16 pixels are a block of JPEG's
    cv2.imwrite(str(tmp_path / name), pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 100])
    frames = LoadImage().transform(dict(path=str(tmp_path / name)))["frames"]
    assert frames.shape == (1, 1, 32, 16, 3)
    assert np.abs(frames[0, 0].astype(int) - pixels).mean() <= (0 if name == "a.png" else 1)


@pytest.fixture
def picture() -> Image.Image:
    """A picture without symmetry, smooth enough for JPEG."""
    noise = np.random.default_rng(0).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(cv2.resize(noise, (64, 48)))


def load(path: Path) -> np.ndarray:
    return LoadImage().transform(dict(path=str(path)))["frames"][0, 0]


@pytest.mark.parametrize(
    ("mode", "name"),
    [
        ("L", "a.png"),
        ("L", "a.jpg"),
        ("1", "a.png"),
        ("LA", "a.png"),
        ("P", "a.png"),
        ("RGB", "a.png"),
        ("RGB", "a.jpg"),
        ("RGB", "a.bmp"),
        ("RGB", "a.webp"),
        ("RGBA", "a.png"),
        ("CMYK", "a.jpg"),
        ("P", "a.gif"),
        ("L", "a.gif"),
    ],
)
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, picture: Image.Image, mode: str, name: str):
    picture.convert(mode).save(tmp_path / name)
    wanted = np.array(Image.open(tmp_path / name).convert("RGB"))
    assert np.abs(load(tmp_path / name).astype(int) - wanted).max() <= 1


@pytest.mark.parametrize("name", ["a.jpg", "a.png"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_is_turned_as_its_camera_says(tmp_path: Path, picture: Image.Image, name: str, orientation: int):
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture.save(tmp_path / name, exif=exif)
    wanted = np.array(ImageOps.exif_transpose(Image.open(tmp_path / name)))
    assert wanted.shape == ((48, 64, 3) if orientation < 5 else (64, 48, 3))
    assert np.array_equal(load(tmp_path / name), wanted)


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
    assert np.array_equal(load(tmp_path / "a.gif"), wanted[0])


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


@pytest.mark.parametrize("kept", [6, 12, 20, 100, 300, 500, 900, -40, -1])
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


def write_frames(folder: Path, frames: np.ndarray, name: str = "{:06d}.png", start: int = 1) -> Path:
    folder.mkdir(parents=True)
    for i, frame in enumerate(frames, start=start):
        cv2.imwrite(str(folder / name.format(i)), frame[..., ::-1])
    return folder


@pytest.mark.parametrize(
    ("name", "start"), [("{:06d}.png", 1), ("{}.png", 0), ("img_{:05d}.png", 1), ("frame{}.bmp", 95), ("{:03d}.PNG", 7)]
)
def test_a_folder_of_frames_is_a_video(video: Path, tmp_path: Path, decode_with_pyav, name: str, start: int):
    frames = decode_with_pyav(video)
    folder = write_frames(tmp_path / "frames", frames, name, start)
    (folder / "fps.txt").write_text("25/2\n")
    sampler = SampleClips(num_clips=3, num_frames=2, mode="random")
    found = []
    for opener, path in ((OpenVideo(), str(video)), (OpenFrames(), f"{folder}/")):
        results = sampler.transform(opener.transform(dict(path=path, rng=np.random.default_rng(1))))
        found.append(DecodeClips().transform(results))
    assert np.array_equal(found[1]["frame_inds"], found[0]["frame_inds"])
    assert np.array_equal(found[1]["clip_times"], found[0]["clip_times"])
    assert np.array_equal(found[1]["frames"].reshape(6, 144, 176, 3), frames[found[1]["frame_inds"]])


def test_frames_may_lie_in_an_lmdb(tmp_path: Path, decode_with_pyav, video: Path):
    folder = write_frames(tmp_path / "frames", decode_with_pyav(video)[:5], "{:06d}.png")
    with lmdb.open(str(tmp_path / "a.lmdb"), map_size=1 << 26) as environment, environment.begin(write=True) as writing:
        for i in range(1, 6):
            writing.put(f"v1/{i:06d}".encode(), (folder / f"{i:06d}.png").read_bytes())
            writing.put(f"v1.x/{i:06d}".encode(), b"another's")
        writing.put(b"v1/fps", b"4")
    for path, opener in ((str(folder), OpenFrames(fps=4)), (f"{tmp_path}/a.lmdb/v1", OpenFrames(fps=99))):
        results = opener.transform(dict(path=path))
        assert (results["total_frames"], results["avg_fps"]) == (5, 4.0)
        results |= dict(frame_inds=np.array([4, 0]), num_clips=1, clip_len=2)
        assert np.array_equal(DecodeClips().transform(results)["frames"][0], decode_with_pyav(video)[[4, 0]])


@pytest.mark.parametrize(
    ("names", "fps_file", "reason"),
    [
        ([], None, "there is no such folder of frames, or it is empty"),
        (["a.txt"], "25", r"expected frames 000001\.jpg, 000002\.jpg, \.\.\., got 2 other files"),
        (["1.png", "2.png"], None, r"its frame rate is not known; set fps of OpenFrames or put a fps\.txt there"),
        (["1.png", "2.png"], "fast", r"fps\.txt: expected the frames a second, such as 25 or 30000/1001, got 'fast'"),
        (["1.png", "2.png"], "0", "got '0'"),
        (["1.png", "2.png"], "1/0", "got '1/0'"),
        (["1.png", "2.png", "4.png"], "25", "expected one frame for each number from 1 to 4; see 3"),
        (["1.png", "01.png", "2.png"], "25", "expected one frame for each number from 1 to 2; see 2"),
        (["a1.png", "b2.png"], "25", "got names that begin with 'a' and 'b'"),
        (["1.png", "2.png", "3.png"], "25", r"3\.png: expected the size of .*1\.png, 8 x 6 pixels, got 9 x 6"),
    ],
)
def test_frames_that_are_no_video_are_named(tmp_path: Path, names: list[str], fps_file: str | None, reason: str):
    for name in names:
        width = 9 if name == "3.png" else 8
        (tmp_path / name).write_bytes(cv2.imencode(".png", np.zeros((6, width, 3), np.uint8))[1].tobytes())
    if fps_file is not None:
        (tmp_path / "fps.txt").write_text(fps_file)
    pipeline = Compose([dict(type="OpenFrames"), SampleClips(num_clips=1, num_frames=3), dict(type="DecodeClips")])
    with pytest.raises(BrokenMediaError, match=reason):
        pipeline(dict(path=str(tmp_path), rng=np.random.default_rng(0)))


def test_other_files_beside_frames_do_no_harm(tmp_path: Path):
    write_frames(tmp_path / "frames", np.zeros((3, 6, 8, 3), np.uint8))
    for name in ("1.txt", "notes.png", "000004.png.part", ".000004.png"):
        (tmp_path / "frames" / name).touch()
    assert OpenFrames(fps=2).transform(dict(path=str(tmp_path / "frames")))["total_frames"] == 3


def test_a_broken_frame_is_named(tmp_path: Path):
    folder = write_frames(tmp_path / "frames", np.zeros((3, 6, 8, 3), np.uint8))
    (folder / "000002.png").write_text("no image")
    results = OpenFrames(fps=10).transform(dict(path=str(folder)))
    with pytest.raises(
        BrokenMediaError, match=r"cannot read .*frames/000002\.png: not an image that OpenCV can decode"
    ):
        DecodeClips().transform(results | dict(frame_inds=np.arange(3), num_clips=1, clip_len=3))


def test_frames_need_a_rate_above_zero():
    with pytest.raises(ValueError, match=r"OpenFrames expects fps > 0, got 0\."):
        TRANSFORMS.build(dict(type="OpenFrames", fps=0))


@pytest.mark.parametrize("how", ["empty", "text", "cut", "no head"])
def test_a_broken_image_is_named_with_what_is_wrong(world: Path, tmp_path: Path, break_file, how: str):
    path = tmp_path / "a.jpg"
    path.symlink_to(world / "images" / "00000.jpg")
    break_file(path, how)
    reason = r"the file is empty \(0 bytes\)" if how == "empty" else "not an image that OpenCV can decode"
    with pytest.raises(BrokenMediaError, match=rf"^cannot read {path}: {reason}$"):
        LoadImage().transform(dict(path=str(path)))


def test_an_error_that_torch_passes_on_from_a_worker_keeps_its_text():
    # torch.utils.data makes the same class anew from the worker's whole text.
    assert str(BrokenMediaError("Caught BrokenMediaError in DataLoader worker process 0.")) == (
        "Caught BrokenMediaError in DataLoader worker process 0."
    )
