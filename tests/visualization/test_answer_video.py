"""Videos and images with an answer below them, and the backends that get them."""

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import cv2
import numpy as np
import pytest
from mmengine.visualization import LocalVisBackend, TensorboardVisBackend, WandbVisBackend
from PIL import Image, ImageSequence
from video_files import write_file

from clipbert_mm.datasets.transforms import OpenFrames, OpenVideo, ResizePad
from clipbert_mm.errors import BrokenMediaError
from clipbert_mm.media.encoding import encode_gif, write_video
from clipbert_mm.visualization.answer_video import BEST, INSIDE, MAX_FPS, TIME, Drawing, draw_answer, opener_of
from clipbert_mm.visualization.backends import GIF_WIDTH, add_video, read_frames

LINES = ("a red circle, then a $blue$ ring", "rank 1 of 9, score 2.25: right")
SPANS = ((0.0, 1.0, -0.5), (1.0, 2.0, 2.5), (2.0, 3.0, 1.0))


def decode(path: Path) -> tuple[np.ndarray, float, float]:
    """Frames, (N, H, W, 3), frames per second, and seconds of a file."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        frames = np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])
        return frames, float(stream.average_rate), float(stream.duration * stream.time_base)


def near(pixels: np.ndarray, color: tuple[int, ...], tolerance: int = 40) -> np.ndarray:
    """Which pixels, (..., 3), have a color, but for what encoding changes."""
    return (np.abs(pixels.astype(int) - color) < tolerance).all(axis=-1)


def test_a_video_has_its_frames_the_time_and_the_best_clip(tmp_path: Path):
    source = write_file(tmp_path / "a.mp4")  # 3 seconds, 25 frames each
    target = draw_answer(Drawing("b", str(source), LINES, True, SPANS), tmp_path / "out")
    frames, fps, seconds = decode(target)
    assert target == tmp_path / "out" / "b.mp4"
    assert (len(frames), fps) == (36, MAX_FPS)
    assert seconds == pytest.approx(3.0, abs=0.01)
    above, panel = frames[:, :320], frames[:, 320:]  # 96 x 64 pixels, five times as large
    original = np.stack([frame.to_ndarray(format="rgb24") for frame in av.open(str(source)).decode(video=0)])
    for i, time in enumerate((np.arange(36) + 0.5) / 12):
        shown = cv2.resize(original[int(time * 25)], (480, 320), interpolation=cv2.INTER_AREA)
        assert np.abs(above[i, 20:-20, 20:-20].astype(int) - shown[20:-20, 20:-20]).mean() < 6
        edge = near(above[i, :2, 50:-50], INSIDE, 60).mean()
        assert (edge > 0.8) == (1 <= time < 2)
    marked = near(panel[:, 60:-3], TIME, 70).sum(axis=1)  # (36, columns)
    columns = marked.argmax(axis=1)
    assert (np.diff(columns) > 0).all()
    green = near(panel[0], tuple(int(BEST[i : i + 2], 16) for i in (1, 3, 5)), 40)
    bar = np.flatnonzero(green[70:].any(axis=0))  # below the text
    assert bar.min() == pytest.approx(columns[12] - 6, abs=6)
    assert bar.max() == pytest.approx(columns[23] + 6, abs=6)


def test_few_frames_and_tall_videos(tmp_path: Path):
    source = write_file(tmp_path / "a.mp4", count=3, size=(64, 200), milliseconds=[0, 100, 2000])
    target = draw_answer(Drawing("b", str(source), LINES, False, SPANS[:1]), tmp_path)
    frames, _, seconds = decode(target)
    with av.open(str(source)) as container:
        first, *_, last = (frame.to_ndarray(format="rgb24") for frame in container.decode(video=0))
    assert frames.shape[2] == 480
    assert near(frames[0, 10:470, 10:150], (0, 0, 0)).all(), "black beside it"
    for frame, original in ((frames[0], first), (frames[-1], last)):
        left = (480 - 154) // 2
        shown = cv2.resize(original, (154, 480), interpolation=cv2.INTER_AREA)
        assert np.abs(frame[10:470, left + 8 : left + 146].astype(int) - shown[10:470, 8:146]).mean() < 12
    assert seconds == pytest.approx(OpenVideo().transform(dict(path=str(source)))["duration"], rel=0.01)


def test_an_image_has_no_time(tmp_path: Path):
    picture = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    target = draw_answer(Drawing("b", str(tmp_path / "a.png"), LINES, True, ()), tmp_path)
    drawn = cv2.imread(str(target))
    assert np.array_equal(drawn[:320], cv2.resize(picture, (480, 320), interpolation=cv2.INTER_AREA))
    assert drawn.shape[0] == 320 + 38
    assert target.name == "b.png"


def test_a_broken_video_is_named(tmp_path: Path):
    (tmp_path / "a.mp4").write_bytes(b"no video")
    with pytest.raises(BrokenMediaError, match=r"a\.mp4"):
        draw_answer(Drawing("b", str(tmp_path / "a.mp4"), LINES, True, SPANS), tmp_path)
    assert not (tmp_path / "b.mp4").exists()


def test_the_transform_that_opens_is_used(tmp_path: Path):
    opener = OpenFrames(fps=5)
    assert opener_of([opener, ResizePad(size=8)]) is opener
    assert opener_of([ResizePad(size=8)]) is None
    (tmp_path / "frames").mkdir()
    for i in range(10):
        cv2.imwrite(str(tmp_path / "frames" / f"{i:03d}.jpg"), np.full((48, 64, 3), 20 * i, np.uint8))
    target = draw_answer(Drawing("b", str(tmp_path / "frames"), LINES, True, ((0.0, 1.0, 1.0),)), tmp_path, opener)
    frames, fps, _ = decode(target)
    assert fps == 5
    assert frames[:, 100, 100, 0].tolist() == pytest.approx([20 * i for i in range(10)], abs=4)


# Encoding, and backends


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """3 seconds of 400 x 200 pixels that become lighter, 12 frames each."""
    path = tmp_path / "video.mp4"
    write_video(path, (np.full((200, 400, 3), 5 * i, np.uint8) for i in range(36)), 12)
    return path


def test_frames_are_encoded(video: Path):
    frames, fps, seconds = decode(video)
    assert (len(frames), fps, seconds) == (36, 12, 3)
    assert np.abs(frames[:, 50, 50].astype(int) - 5 * np.arange(36)[:, None]).max() <= 3
    few, rate = read_frames(video, 6, 100)
    assert (len(few), rate) == (18, 6)
    assert len(read_frames(video, 6, 4)[0]) == 4
    gif = Image.open(io.BytesIO(encode_gif(few, rate)))
    assert [frame.info["duration"] for frame in ImageSequence.Iterator(gif)] == [160] * 18  # in hundredths of a second


def test_backends_get_videos(video: Path, tmp_path: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logged: dict[str, Any] = {}

    class Offline(WandbVisBackend):
        experiment = SimpleNamespace(Video=lambda path, format: (path, format), log=logged.update)

    backends = dict(
        local=LocalVisBackend(str(tmp_path / "local")),
        tensorboard=TensorboardVisBackend(str(tmp_path / "tensorboard")),
        wandb=Offline(str(tmp_path / "wandb")),
        frames=SimpleNamespace(
            add_video=lambda name, frames, step, fps: logged.update(frames=(frames.shape, step, fps))
        ),
        image=SimpleNamespace(add_image=lambda name, frame, step: logged.update(image=(frame.shape, step))),
    )
    add_video(SimpleNamespace(_vis_backends=backends), "answer", video, 3)
    assert (tmp_path / "local" / "vis_video" / "answer_3.mp4").read_bytes() == video.read_bytes()
    assert logged["answer"] == (str(video), "mp4")
    assert logged["frames"] == ((18, 200, 400, 3), 3, 6)
    assert logged["image"] == ((200, 400, 3), 3)
    backends["tensorboard"].close()
    (events,) = (tmp_path / "tensorboard").glob("events.*")
    (written,) = EventAccumulator(str(events)).Reload().Images("answer")
    gif = Image.open(io.BytesIO(written.encoded_image_string))
    assert (gif.format, gif.size, gif.n_frames, written.step) == ("GIF", (GIF_WIDTH, 160), 18, 3)


def test_backends_get_images(tmp_path: Path):
    picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    add_video(
        SimpleNamespace(_vis_backends=dict(local=LocalVisBackend(str(tmp_path / "local")))), "b", tmp_path / "a.png"
    )
    assert np.array_equal(cv2.imread(str(tmp_path / "local" / "vis_image" / "b_0.png")), picture)
