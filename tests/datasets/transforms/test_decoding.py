"""Decoding: the very frames of a full sequential decode; broken files are named."""

import copy
import pickle
import re
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import decode, decode_whole

from clipbert_mm.datasets.transforms import BrokenMediaError, DecodeClips, OpenVideo, ResizePad, SampleClips
from clipbert_mm.datasets.transforms.decoding import UndecodedResults


def test_frames_are_those_of_a_sequential_decode(video: Path):
    wanted = decode_whole(video)
    assert np.array_equal(decode(video, list(range(len(wanted)))), wanted)
    # Frames one apart do differ, so a wrong one would show.
    assert (np.abs(np.diff(wanted.astype(int), axis=0)).max(axis=(1, 2, 3)) > 2).mean() > 0.9


def test_scattered_frames_come_in_the_order_asked_for(video: Path):
    wanted = decode_whole(video)
    inds = [len(wanted) - 1, 3, 61, 3, 0, 31, 30, 29]
    assert np.array_equal(decode(video, inds), wanted[inds])


def test_sampled_clips_show_their_time_of_the_video(video: Path):
    wanted = decode_whole(video)
    results = OpenVideo().transform(dict(path=str(video)))
    assert (results["total_frames"], results["avg_fps"]) == (len(wanted), 12.5)
    results = SampleClips(num_clips=3, num_frames=2, mode="uniform").transform(results)
    inds = results["frame_inds"].reshape(3, 2)
    frames = DecodeClips().transform(results)["frames"]
    for k in range(3):
        for t in range(2):
            assert np.array_equal(frames[k, t], wanted[inds[k, t]])


def test_each_frame_is_decoded_once(video: Path):
    results = OpenVideo().transform(dict(path=str(video)))
    reader, asked = results["video_reader"], []
    real = reader.read
    reader.read = lambda inds: asked.extend(inds) or real(inds)
    results |= dict(frame_inds=np.array([5, 5, 2, 9, 2, 5]), num_clips=3, clip_len=2)
    frames = DecodeClips().transform(results)["frames"]
    assert asked == [2, 5, 9]
    assert "video_reader" not in results, "an open reader cannot leave a worker"
    assert np.array_equal(frames.reshape(6, 144, 176, 3), decode(video, [5, 5, 2, 9, 2, 5]))


def test_a_video_needs_no_ending(video: Path):
    wanted = decode(video, [7])
    assert np.array_equal(decode(video.rename(video.with_name("a_video")), [7]), wanted)


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("empty", r"the file is empty \(0 bytes\)"),
        ("text", "^not a video, or cut short$"),
        ("cut", "^not a video, or cut short$"),
        ("cut in the data", "^not a video, or cut short$"),
        ("zeros in the data", "^damaged, or cut short$"),
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
    with pytest.raises(BrokenMediaError, match=r"cannot read .*sound\.mp4: it has no video stream"):
        decode(tmp_path / "sound.mp4", [0])


def test_an_error_that_torch_passes_on_from_a_worker_keeps_its_text():
    # torch.utils.data makes the same class anew from the worker's whole text.
    assert str(BrokenMediaError("Caught BrokenMediaError in DataLoader worker process 0.")) == (
        "Caught BrokenMediaError in DataLoader worker process 0."
    )


def undecoded(video: Path) -> UndecodedResults:
    results = OpenVideo().transform(dict(path=str(video)))
    results |= dict(frame_inds=np.array([1, 0]), num_clips=2, clip_len=1)
    return DecodeClips().transform(results)


def keep(results: dict) -> dict:
    return results


def turn(results: dict) -> dict:
    results["frames"] = results["frames"][..., ::-1]
    return results


LOOKS = {
    "a key": lambda results: results["frames"],
    "get": lambda results: results.get("frames"),
    "in": lambda results: "frames" in results and results["frames"],
    "|": lambda results: (results | dict(a=1))["frames"],
    "**": lambda results: {**results}["frames"],
    "dict": lambda results: dict(results)["frames"],
    "copy": lambda results: copy.copy(results)["frames"],
    "pop": lambda results: results.pop("frames"),
    "items": lambda results: {key: value for key, value in results.items()}["frames"],  # noqa: C416
    "update": lambda results: results.update(a=1) or results["frames"],
    "pickle": lambda results: pickle.loads(pickle.dumps(results))["frames"],
}


@pytest.mark.parametrize("look", LOOKS)
def test_however_a_step_looks_at_the_frames_they_are_there(video: Path, look: str):
    frames = LOOKS[look](undecoded(video))
    assert type(frames) is np.ndarray
    assert np.array_equal(frames[:, 0], decode_whole(video)[[1, 0]])


def test_steps_between_decoding_and_resizing_do_as_ever(video: Path):
    wanted = ResizePad(size=32).transform(dict(frames=undecoded(video)["frames"]))["frames"]
    assert np.array_equal(ResizePad(size=32).transform(undecoded(video))["frames"], wanted)
    for step in (keep, dict, lambda results: results | dict(a=1), lambda results: {**results}):
        assert np.array_equal(ResizePad(size=32).transform(step(undecoded(video)))["frames"], wanted)
    turned = ResizePad(size=32).transform(turn(undecoded(video)))["frames"]
    assert np.array_equal(turned, wanted[..., ::-1])
    other = undecoded(video)
    other["frames"] = np.zeros((1, 1, 8, 8, 3), np.uint8)
    assert ResizePad(size=32).transform(other)["frames"].shape == (1, 1, 32, 32, 3)


def test_frames_are_decoded_when_they_are_looked_at(video: Path):
    results = undecoded(video)
    results["a"] = results["path"]
    assert results.undecoded
    assert "frames" in results
    assert not results.undecoded
    with pytest.raises(KeyError, match="'b'"):
        results["b"]
