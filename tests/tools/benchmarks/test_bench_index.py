"""The measurement of an index of generated entries: it finds what brute force finds, and its figures are there."""

import argparse
from pathlib import Path

import pytest
from benchmarks import bench_index
from mmengine.config import Config

from clipbert_mm.errors import OptionError


def test_an_index_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench_index, "MORE", 40)
    args = argparse.Namespace(videos=400, batch=8, threads=1, folder=tmp_path)
    report = bench_index.measure(Config(), args)
    assert (report["videos"], report["vector_bytes"]) == (440, 440 * 16 * 256 * 2)
    assert report["vector_bytes"] < report["disk_bytes"] < 1.5 * report["vector_bytes"]
    assert report["removed"]["videos"] == 4 + 1
    times = [*report["added"].values(), *report["search"]["warm_s"], report["search"]["cold_s"]]
    assert min(times) > 0
    bench_index.draw(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"
    monkeypatch.setattr(bench_index, "brute_force", lambda vectors, query: {"/other.mp4"})
    with pytest.raises(AssertionError, match="found other videos"):
        bench_index.measure(Config(), args)
    with pytest.raises(OptionError, match="at least 100 videos"):
        bench_index.measure(Config(), argparse.Namespace(videos=3, batch=1, threads=1, folder=tmp_path))
