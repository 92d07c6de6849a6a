"""benchmark.py's sub-commands on a training step: reports that say what they should, and figures."""

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import pytest
from benchmarks import bench_start, command_times, timing
from warm_python import processes, quick_python

from clipbert_mm.engine.config import load_config
from clipbert_mm.errors import ClipBertError

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
RETRIEVAL = str(CONFIGS / "shapes/clipbert_tiny_1xb16-2x2-4e_shapes-retrieval.py")
PRETRAIN = str(CONFIGS / "shapes/clipbert_tiny_1xb32-4e_shapes-pretrain.py")
QUICK = [
    "model.encoder.num_layers=1", "model.backbone.norm_eval=True", "model.pack_pairs=False",
]  # fmt: skip
SMALL = [  # a backbone of one stage of the three
    *QUICK, "model.backbone.num_stages=1", "model.backbone.strides=(1,)", "model.backbone.dilations=(1,)",
    "model.backbone.out_indices=(0,)", "model.projection.in_channels=16", "model.encoder.grid_size=16",
]  # fmt: skip


@pytest.fixture
def report_of(
    tool: Callable, own_world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., dict[str, Any]]:
    """Run a sub-command on a config; gives the report that it wrote."""
    monkeypatch.setenv("SHAPES_ROOT", str(own_world))
    monkeypatch.setitem(timing.MATRIX_SIZE, "cpu", 256)

    def run(command: str, config: str, *arguments: str) -> dict[str, Any]:
        tool("analysis_tools/benchmark.py").main([command, config, "--out", str(tmp_path), *arguments])
        (path,) = tmp_path.glob(f"{command}_*.json")
        assert cv2.imread(str(path.with_suffix(".png"))).std() > 5
        report = json.loads(path.read_text())
        assert report["environment"]["packages"]["torch"]
        return report

    return run


def test_steps_are_timed_along_clips_and_frames(report_of: Callable):
    report = report_of(
        "step", RETRIEVAL, "--sweep-clips", "1", "4", "--sweep-frames", "1", "2", "--repeats", "1", "--batch", "2",
        "--texts", "3", "--size", "32", "--cpu-time", "--cfg-options", *SMALL,
    )  # fmt: skip
    assert [row["clips"] for row in report["clips"]] == [1, 4]
    assert [row["frames"] for row in report["frames"]] == [1, 2]
    assert report["setting"] == dict(batch=2, texts=3, size=32, length=20)
    one, four = report["clips"]
    assert four["flop_forward"] == pytest.approx(4 * one["flop_forward"], rel=0.02)
    for row in report["clips"] + report["frames"]:
        assert row["flop_backward"] > 2 * row["flop_forward"]
        assert 0 < row["share_of_matrix_rate"] < 1, "nothing computes faster than products of large matrices"
    assert report["modules"]["torch"] == pytest.approx(report["modules"]["fvcore_multiplications"], rel=0.01)


def test_a_video_backbone_is_measured_on_the_clips_that_it_takes(report_of: Callable):
    video = str(CONFIGS / "video_encoders/clipbert_tiny-slowonly_1xb16-2x4-4e_shapes-retrieval.py")
    report = report_of(
        "memory", video, "--sweep-clips", "1", "2", "--batch", "2", "--texts", "1", "--memory-limit", "1MiB", "--size", "32",
        "--cfg-options", "model.encoder.num_layers=1", "model.backbone.frame_size=32",
    )  # fmt: skip
    assert [(row["clips"], row["frames"]) for row in report["clips"]] == [(1, 4), (2, 4)]
    assert [(row["clips"], row["frames"]) for row in report["frames"]] == [(1, 4)]
    assert {batch for row in report["clips"] for batch in row["largest_batch"].values()} == {0}, "which is soon found"


def test_images_and_masked_words_are_counted(report_of: Callable):
    report = report_of(
        "memory", PRETRAIN, "--sweep-clips", "1", "--sweep-frames", "1", "--batch", "4", "--memory-limit", "100MiB",
        "--cfg-options", *SMALL,
    )  # fmt: skip
    (row,) = report["clips"]
    assert (row["clips"], row["frames"], report["setting"]["texts"]) == (1, 1, 3)
    assert report["fixed_bytes"] < row["peak_bytes"]["plain"] == row["peak_bytes"]["clip_sequential"]
    assert row["largest_batch"]["plain"] >= 4


def test_the_count_of_memory_is_near_what_the_system_says(report_of: Callable):
    processes()  # has imported what the process of the step needs
    report = report_of(
        "memory", RETRIEVAL, "--sweep-clips", "2", "--sweep-frames", "1", "--batch", "12", "--size", "128", "--check",
        "--texts", "3", "--cfg-options", *SMALL,
    )  # fmt: skip
    check = report["check"]
    assert check["setting"]["batch"] == 12
    # The system counts what libraries take for themselves too.
    assert 0.9 * check["counted_bytes"] < check["resident_bytes"] < 1.7 * check["counted_bytes"] + 50e6
    (row,) = report["clips"]
    assert row["largest_batch"]["clip_sequential"] > 1.3 * row["largest_batch"]["plain"]


def test_ways_of_computing_are_compared(report_of: Callable):
    ways = [
        "folded batch norms",
        "fused attention",
        "texts padded to the batch",
        "clip-sequential",
        "encoder checkpointed",
        "bf16",
    ]
    report = report_of(
        "gains", RETRIEVAL, "--only", *ways, "--repeats", "1", "--batch", "2",
        "--texts", "3", "--cfg-options", *SMALL, "model.encoder.num_layers=2",
    )  # fmt: skip
    assert set(report["ways"]) == set(ways)
    for way in report["ways"].values():
        assert 0 < way["speedup"] < math.inf
        assert math.isfinite(way["memory"])
    assert report["ways"]["clip-sequential"]["memory"] < 0.8
    assert report["ways"]["encoder checkpointed"]["memory"] < 1


def test_a_start_is_told_by_phase(report_of: Callable):
    each = "train_dataloader.dataset.captions_per_item=1"  # else the world has fewer items than a batch
    report = report_of("start", RETRIEVAL, "--repeats", "1", "--warmup", "0", "--cfg-options", *SMALL, each)
    assert list(report["phases"]) == list(bench_start.PHASES)
    assert all(phase["median_s"] >= 0 for phase in report["phases"].values())
    assert report["total"]["median_s"] == pytest.approx(
        sum(phase["median_s"] for phase in report["phases"].values()), rel=1e-6
    )
    assert {"torch", "mmengine", "transformers"} <= set(report["packages"])
    assert {"timm", "torchcodec", "fvcore", "pandas", "tensorboard"}.isdisjoint(report["packages"])
    for name in ("import clipbert_mm", "clipbert --help"):
        command = report["commands"][name]
        assert command["repeats"] == 1
        assert command["processor_s"] > 0
        assert 0 < command["modules"] < 150
        assert "torch" not in command["imports_s"]
        assert sum(command["imports_s"].values()) > 0


def test_imports_are_summed_by_package_and_a_command_that_fails_is_told():
    log = "import time: self [us] | cumulative | imported package\nimport time:       200 |        500 | torch\n"
    log += "a line of the command's own\nimport time:       300 |        300 |   torch.nn\nimport time: 9 | 9 | re\n"
    assert command_times.sum_imports(log) == {"modules": 3, "imports_s": {"torch": 0.0005, "re": 0.000009}}
    report = command_times.time_commands({"one": ["-c", "import decimal"]}, repeats=2, warmup=0)["one"]
    assert report["repeats"] == 2
    assert report["modules"] > 0
    with pytest.raises(ClipBertError, match=r"python -c import none failed:\n(.|\n)*No module named 'none'"):
        command_times.time_commands({"none": ["-c", "import none"]}, repeats=1, warmup=0)


def test_a_training_that_cannot_begin_is_told(own_world: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("SHAPES_ROOT", str(own_world))
    config = load_config(RETRIEVAL, {"load_from": None, "work_dir": str(tmp_path)})
    config.custom_imports = dict(imports=["none_such"])  # ends it early
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with (
        quick_python(tmp_path),
        pytest.raises(ClipBertError, match=r"The training ended before its first step:\n(.|\n)*none_such"),
    ):
        bench_start.begin(config, tmp_path)


def test_the_processor_s_time_is_for_one_thread(report_of: Callable):
    with pytest.raises(ValueError, match="--cpu-time is for one thread on a CPU, got --threads 2 --device cpu"):
        report_of("step", RETRIEVAL, "--cpu-time", "--threads", "2")
