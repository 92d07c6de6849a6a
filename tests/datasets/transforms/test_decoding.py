"""Decoding: the very frames of a full sequential decode by another library; broken files are named."""

import re
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from clipbert_mm.datasets.shapes import Scene, ShapeObject, write_video
from clipbert_mm.datasets.transforms import BrokenMediaError, DecodeClips, LoadImage, OpenVideo, SampleClips


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


def test_a_grey_image_has_three_channels(tmp_path: Path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((4, 5), 77, np.uint8))
    assert (LoadImage().transform(dict(path=str(tmp_path / "a.png")))["frames"] == np.full((1, 1, 4, 5, 3), 77)).all()


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
