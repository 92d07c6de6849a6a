"""The measurement of engines for vectors: what is found is compared, what is not installed is left out."""

import argparse
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from benchmarks import bench_vectors, vector_engines
from benchmarks.vector_engines import CLIPS, ENGINES, best_videos, open_vectors
from benchmarks.vector_set import make_queries, write_vectors
from mmengine.config import Config

from clipbert_mm.errors import ClipBertError, OptionError


def parsed(*options: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    bench_vectors.add_arguments(parser)
    return parser.parse_args([*options, "--threads", "1"])


def test_what_is_found_is_compared_with_exact_search(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench_vectors, "find_spec", lambda module: None if module == "usearch" else module)
    args = parsed(
        *("--sizes", "4000", "--queries", "2", "--folder", str(tmp_path)),
        *("--engines", "torch, memory-mapped", "usearch exact", "usearch HNSW"),
    )
    report = bench_vectors.measure(Config(), args)
    assert report["left_out"] == ["usearch exact", "usearch HNSW"]
    (row,) = report["rows"]
    assert (row["engine"], row["vectors"], row["exact"], row["recall"]) == ("torch, memory-mapped", 4000, True, 1.0)
    assert row["disk_bytes"] == 4000 * 256 * 2, "the file that is searched"
    assert 0 < row["search"]["median_s"] <= row["cold_s"]
    assert row["search"]["repeats"] == 2
    bench_vectors.draw(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", list(ENGINES))
def test_engines_that_are_installed_find_the_nearest(name: str, tmp_path: Path):
    pytest.importorskip(ENGINES[name].module)
    args = parsed("--sizes", "4000", "--queries", "2", "--folder", str(tmp_path), "--engines", name)
    (row,) = bench_vectors.measure(Config(), args)["rows"]
    assert row["recall"] == 1 if row["exact"] else row["recall"] > 0.5


def test_generated_vectors_are_clustered_unit_vectors(tmp_path: Path):
    write_vectors(tmp_path / "a", 50)
    vectors = open_vectors(tmp_path / "a").astype(np.float64)
    assert np.linalg.norm(vectors, axis=1) == pytest.approx(1, abs=1e-3)
    videos = vectors.reshape(50, CLIPS, -1)
    within = np.einsum("vkp,vjp->vkj", videos, videos)[:, ~np.eye(CLIPS, dtype=bool)].mean()
    across = np.einsum("vp,wp->vw", videos[:, 0], videos[:, 1])[~np.eye(50, dtype=bool)].mean()
    assert within == pytest.approx(0.89**2, abs=0.02)
    assert abs(across) < 0.05
    queries = make_queries(open_vectors(tmp_path / "a"), 20)
    assert (queries @ vectors.T).max(1).mean() == pytest.approx(0.71, abs=0.05)


def test_the_best_videos_are_those_of_the_first_clips(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(vector_engines, "FOUND", 2)
    order = np.array([*range(16, 32), 5, 40])  # sixteen clips of video 1 come before one of video 0

    def nearest(asked: list[int]) -> Callable[[int], np.ndarray]:
        return lambda k: asked.append(k) or order[:k]

    asked: list[int] = []
    assert best_videos(nearest(asked), 48).tolist() == [1, 0]
    assert asked == [8, 16, 32], "more clips until there are two videos"


def test_sizes_are_whole_videos():
    with pytest.raises(OptionError, match="expects multiples of 16 and at least a query, got \\[100\\]"):
        bench_vectors.measure(Config(), parsed("--sizes", "100"))


def test_an_engine_that_fails_is_named(tmp_path: Path):
    job = dict(act="build", engine="torch, memory-mapped", vectors=str(tmp_path / "none"), folder=str(tmp_path))
    with pytest.raises(ClipBertError, match=r"torch, memory-mapped ended without an answer:[\s\S]*No such file"):
        bench_vectors.run_job(job, 1)
