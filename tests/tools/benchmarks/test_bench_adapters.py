"""What measures the adapters: it counts them apart from the transforms that they apply."""

from pathlib import Path

from benchmarks import bench_adapters
from sister_libraries import import_mmaction
from video_files import write_file

from clipbert_mm.datasets.transforms import ResizePad, SampleClips

import_mmaction()


def test_adapters_are_counted_apart_from_their_transforms(tmp_path: Path):
    paths = [str(write_file(tmp_path / "a.mp4", count=30))]
    builders = bench_adapters.pipelines(SampleClips(num_clips=2, num_frames=2), ResizePad(size=32))
    results = bench_adapters.compare(paths, builders, repeats=3)
    assert [result["pipeline"] for result in results] == list(builders)
    for result in results:
        whole, adapter = (result["times"][part] for part in (bench_adapters.LOADING, bench_adapters.ADAPTER))
        assert whole["repeats"] == 3
        assert 0 < adapter["min_s"] < whole["max_s"]
        assert 0 < result["share"] < 1
    bench_adapters.draw(dict(results=[dict(videos="a", count=1, **each) for each in results]), tmp_path / "a.png")
    assert (tmp_path / "a.png").stat().st_size > 1000
