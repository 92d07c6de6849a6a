"""Folders of frames: the same as the video that they are from; what is no video is named."""

from pathlib import Path

import cv2
import lmdb
import numpy as np
import pytest
from mmengine.dataset import Compose

from clipbert_mm.datasets.transforms import BrokenMediaError, DecodeClips, OpenFrames, OpenVideo, SampleClips
from clipbert_mm.registry import TRANSFORMS


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
        (["1.png", "2.png"], None, r"its frame rate is not known; set fps of OpenFrames, or add a fps\.txt to"),
        (["1.png", "2.png"], "fast", r"fps\.txt: expected the frames per second, such as 25 or 30000/1001, got 'fast'"),
        (["1.png", "2.png"], "0", "got '0'"),
        (["1.png", "2.png"], "1/0", "got '1/0'"),
        (
            ["1.png", "2.png", "4.png"],
            "25",
            "expected one frame for each number from 1 to 4; the first mismatch is at 3",
        ),
        (
            ["1.png", "01.png", "2.png"],
            "25",
            "expected one frame for each number from 1 to 2; the first mismatch is at 2",
        ),
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
        pipeline(dict(path=str(tmp_path), rng=np.random.default_rng(0)))["frames"]


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
        BrokenMediaError, match=r"cannot read .*frames/000002\.png: not an image, or damaged at its begin"
    ):
        DecodeClips().transform(results | dict(frame_inds=np.arange(3), num_clips=1, clip_len=3))["frames"]


def test_frames_need_a_rate_above_zero():
    with pytest.raises(ValueError, match=r"OpenFrames expects fps > 0, got 0\."):
        TRANSFORMS.build(dict(type="OpenFrames", fps=0))
