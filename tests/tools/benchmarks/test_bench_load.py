"""What measures loading: its baselines read the same clips, its clock adds up, its report is whole."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
from benchmarks import bench_load, video_set
from benchmarks.load_baselines import read_as_released, read_plainly
from benchmarks.video_set import write_videos
from video_files import write_file

from clipbert_mm.datasets.transforms import ResizePad, SampleClips
from clipbert_mm.media.readers.pyav_reader import PyAVReader

CONFIG = "configs/shapes/clipbert_tiny_1xb16-2x2-4e_shapes-retrieval.py"


@pytest.fixture
def sampler() -> SampleClips:
    return SampleClips(num_clips=3, num_frames=2)


@pytest.fixture
def resize() -> ResizePad:
    return ResizePad(size=128)


def read(path: Path, sampler: SampleClips, resize: ResizePad) -> np.ndarray:
    found = bench_load.pipeline(sampler, resize)(dict(path=str(path), rng=np.random.default_rng(7)))
    return found["frames"].reshape(6, 128, 128, 3)


def test_the_baselines_read_what_we_read(tmp_path: Path, sampler: SampleClips, resize: ResizePad):
    pytest.importorskip("decord", reason="the plain reader is decord's")
    path = write_file(tmp_path / "a.mp4")
    wanted = read(path, sampler, resize)
    assert np.array_equal(read_plainly(str(path), sampler, 128, 7), wanted)
    released = read_as_released(str(path), sampler, 128, 7)
    assert released.dtype == torch.float32
    assert (released.permute(0, 2, 3, 1) - torch.from_numpy(wanted).float()).abs().max() <= 1  # float against uint8


def test_ways_are_compared_on_the_same_machine_in_turn(tmp_path: Path, sampler: SampleClips, resize: ResizePad):
    pytest.importorskip("decord", reason="the plain reader is decord's")
    paths = [str(write_file(tmp_path / name, count=30)) for name in ("a.mp4", "b.ts")]
    found = bench_load.compare(paths, sampler, resize, ["pyav", "decord"], repeats=2)
    assert set(found["ways"]) == {"pyav", bench_load.PLAIN, bench_load.RELEASED}
    assert found["ways"][bench_load.PLAIN]["times_plain_quartiles"] == [1, 1]
    for way in found["ways"].values():
        low, high = way["quartiles_ms"]
        assert 0 < low <= way["median_ms"] <= high
        assert way["videos_per_second"] == pytest.approx(1000 / way["mean_ms"])
    assert set(found["refused"]) == {"decord"}
    assert "decord takes wrong frames" in found["refused"]["decord"]


def test_ratios_are_of_the_same_round():
    found = bench_load._summary([1.0, 2.0, 4.0], [3.0, 2.0, 8.0])
    assert (found["median_ms"], found["mean_ms"]) == (2000, pytest.approx(7000 / 3))
    assert (found["times_plain"], found["times_plain_quartiles"]) == (2, [1.5, 2.5])
    assert "times_plain" not in bench_load._summary([1.0], None)


def test_a_clock_counts_the_inner_part_alone(monkeypatch: pytest.MonkeyPatch):
    now = [0.0]
    monkeypatch.setattr(time, "process_time", lambda: now[0])

    def work(seconds: float) -> None:
        now[0] += seconds

    def steps() -> object:
        for _ in range(2):
            work(1)
            yield clock.wrap("convert", work)
        work(4)

    clock = bench_load.Clock()
    with clock.part("rest"):
        work(10)
        for convert in clock.wrap_each("decode", steps)():
            work(100)
            convert(1000)
    assert clock.seconds == dict(open=0, read=0, decode=6, convert=2000, resize=0, rest=210)


def test_a_profile_adds_up_and_leaves_no_trace(tmp_path: Path, sampler: SampleClips, resize: ResizePad):
    path = write_file(tmp_path / "a.mp4")
    before = {name: vars(PyAVReader)[name] for name in ("__init__", "fetch", "decode", "convert")}
    started = time.process_time()
    parts = bench_load.profile([str(path)] * 2, sampler, resize, repeats=3)
    took = 1000 * (time.process_time() - started) / 6
    assert tuple(parts) == bench_load.PARTS
    assert all(milliseconds > 0 for milliseconds in parts.values())
    assert 0.5 * took < sum(parts.values()) <= took
    assert {name: vars(PyAVReader)[name] for name in before} == before


def test_one_core_is_one_core_and_given_back():
    before = torch.get_num_threads(), cv2.getNumThreads(), os.sched_getaffinity(0)
    with bench_load.one_core():
        assert (torch.get_num_threads(), cv2.getNumThreads(), len(os.sched_getaffinity(0))) == (1, 1, 1)
    assert (torch.get_num_threads(), cv2.getNumThreads(), os.sched_getaffinity(0)) == before


@pytest.mark.parametrize("workers", [0, 1])
def test_a_dataloader_hands_over_every_video(tmp_path: Path, sampler: SampleClips, resize: ResizePad, workers: int):
    paths = [str(write_file(tmp_path / "a.mp4", count=30))] * 3
    assert bench_load.dataloader_rate(paths, sampler, resize, workers, batch_size=2) > 0
    frames = bench_load.ClipSet(paths, bench_load.pipeline(sampler, resize))[1]
    assert (frames.shape, frames.dtype) == ((3, 2, 128, 128, 3), np.uint8)


def test_generated_videos_are_as_they_are_said_to_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert video_set.SECONDS == (10, 20)
    monkeypatch.setattr(video_set, "SECONDS", (1, 5))
    paths = write_videos(tmp_path, 1, keyframes=30, bframes=0)
    with av.open(str(paths[0])) as container:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        assert (stream.width, stream.height, stream.codec_context.has_b_frames) == (320, 240, False)
        assert float(stream.duration * stream.time_base) == 3
    keys = [i for i, packet in enumerate(packets) if packet.is_keyframe]
    assert max(np.diff([*keys, len(packets)])) <= 30
    written = paths[0].stat().st_mtime_ns
    assert write_videos(tmp_path, 1, keyframes=30, bframes=0) == paths
    assert paths[0].stat().st_mtime_ns == written, "what is there is kept"


def test_the_tool_writes_a_report_and_a_figure(
    tool: Callable, own_world: Path, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SHAPES_ROOT", str(own_world))
    options = ["--videos", "2", "--repeats", "1", "--workers", "1", "--backends", "pyav", "opencv"]
    tool("analysis_tools/benchmark.py").main(["load", str(root / CONFIG), "--out", str(tmp_path), *options])
    report = json.loads((tmp_path / f"load_{Path(CONFIG).stem}.json").read_text())
    assert [(result["split"], result["clips"], result["count"]) for result in report["results"]] == [
        ("train", "2x2", 2),
        ("test", "8x2", 2),
    ]
    for result in report["results"]:
        assert {"pyav", "opencv", bench_load.RELEASED} <= set(result["ways"])
        assert result["workers"].keys() == {"1"}
    picture = cv2.imread(str(tmp_path / f"load_{Path(CONFIG).stem}.png"))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 20


def test_a_config_without_videos_is_named(tool: Callable, own_world: Path, tmp_path: Path, root: Path, monkeypatch):
    monkeypatch.setenv("SHAPES_ROOT", str(own_world))
    config = str(root / "configs/shapes/clipbert_tiny_1xb32-6e_shapes-image-qa.py")
    with pytest.raises(
        ValueError, match=r"benchmark\.py load expects a config whose pipelines have OpenVideo, .* got none"
    ):
        tool("analysis_tools/benchmark.py").main(["load", config, "--out", str(tmp_path)])
    assert not list(tmp_path.glob("load_*"))
