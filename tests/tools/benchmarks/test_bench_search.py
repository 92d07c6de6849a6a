"""The measurements of indexing and searching: on the real things, each with what it is made of."""

import argparse
import sys
from pathlib import Path

import pytest
from benchmarks import bench_search
from benchmarks.bench_search import PHASES
from mmengine.config import Config
from warm_python import quick_python

from clipbert_mm.apis import VideoSearch


def test_what_is_measured_adds_up(runner_config: Config, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    parser = argparse.ArgumentParser()
    bench_search.add_arguments(parser)
    videos = sorted(str(path) for path in (world / "videos").glob("test_*.mp4"))[:3]
    options = ["--gallery-size", "30", "--repeats", "1", "--warmup", "0", "--device", "cpu"]
    args = parser.parse_args([*videos, *options])
    kind = dict(type="mmpretrain.ResNet", depth=18, stem_channels=8, base_channels=8, strides=(1, 2, 2, 1))
    runner_config.model.update(backbone=kind)  # which a process without the tests knows too
    runner_config.model.projection.in_channels = 64
    indexings, indexed = [], VideoSearch.index
    monkeypatch.setattr(
        VideoSearch, "index", lambda *given, **options: indexings.append(indexed(*given, **options)) or indexings[-1]
    )
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with quick_python(tmp_path):
        report = bench_search.measure(runner_config, args)
    assert [len(found.added) for found in indexings] == [3] * 4, "each anew: with and without a worker, two rounds"
    assert (report["videos"], report["gallery_size"]) == (3, 30)
    index, first = report["index"], report["first_answer"]
    parts = index["reading"]["median_s"] + index["encoding"]["median_s"]
    assert index["ratio"] == pytest.approx(index["indexing"]["median_s"] / parts)
    assert report["search"]["search"]["repeats"] == first["total"]["repeats"] == 1
    assert list(first["phases"]) == list(PHASES)
    assert sum(phase["median_s"] for phase in first["phases"].values()) == pytest.approx(first["total"]["median_s"])
    bench_search.draw(report, tmp_path / "search.png")
    assert (tmp_path / "search.png").read_bytes()[:4] == b"\x89PNG"
