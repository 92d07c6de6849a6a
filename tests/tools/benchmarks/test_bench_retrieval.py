"""What the benchmark of retrieval counts, compares and draws."""

import argparse
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import cv2
import numpy as np
import pytest
import torch
from benchmarks import bench_retrieval
from mmengine.fileio import load
from mmengine.registry import DefaultScope
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clipbert_mm.engine.config import load_config
from clipbert_mm.models import PairEncoder
from clipbert_mm.registry import MODELS

ROOT = Path(__file__).resolve().parents[3]
RETRIEVAL = next(str(path) for path in (ROOT / "configs/shapes").glob("*-retrieval.py"))


@pytest.fixture
def model(model_config: dict) -> nn.Module:
    """A small model in eval mode whose head says something."""
    del model_config["mlm_head"]
    model = MODELS.build(model_config).eval()
    for parameter in model.head.parameters():
        nn.init.normal_(parameter)
    return model


@pytest.mark.parametrize(("kind", "mean", "longest"), [("captions", 11.5, 20), ("paragraphs", 60, 100)])
def test_lengths_are_those_of_the_data(kind: str, mean: float, longest: int):
    lengths = bench_retrieval.draw_lengths(kind, 500, 512)
    assert np.mean(lengths) == pytest.approx(mean, rel=0.02)
    assert max(lengths) <= longest
    assert min(lengths) >= 6
    assert max(bench_retrieval.draw_lengths(kind, 500, 15)) == 15


@torch.no_grad()
def test_flops_are_those_that_torch_counts(model: nn.Module):
    ids, tokens = torch.full((1, 9), 5), torch.randn(1, 1, 16, 16)
    # Torch's counter takes attention apart only where it is plain matrix products.
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as plain:
        model.encoder(ids, torch.ones_like(ids), tokens)
    assert bench_retrieval.encoder_flops(model, 9 + 16) == plain.get_total_flops()
    pairs = PairEncoder(model.encoder)
    texts = pairs.encode_texts([ids[0]])
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH), FlopCounterMode(display=False) as quick:
        pairs(texts, tokens, torch.zeros(1, dtype=torch.long), torch.zeros(1, dtype=torch.long))
    pooler, clips = 2 * 16**2, 16 * 3 * 2 * 16**2  # of the clip, the first layer's projections, which pairs share
    counted = quick.get_total_flops() - pooler - clips
    assert bench_retrieval.encoder_flops(model, 9 + 16, whole=False) == pytest.approx(counted, rel=0.02)


@torch.no_grad()
def test_the_baseline_scores_what_the_library_does(model: nn.Module):
    texts = [np.arange(5, 5 + length) for length in (4, 9, 7)]
    tokens = model.encode_video(torch.randn(1, 3, 2, 3, 32, 32))  # (1, K, S, D)
    pairs = model.pair_encoder()
    quick = bench_retrieval.score_block(model, pairs, pairs.encode_texts(texts), tokens)[:, 0]
    plain = bench_retrieval.score_plainly(model, tokens[0], texts, 12)
    assert plain.tolist() == pytest.approx(quick.tolist(), abs=1e-4)
    assert quick.std() > 0.05


@pytest.fixture(scope="module")
def report(tool: Callable, link_world: Callable, tmp_path_factory: pytest.TempPathFactory) -> tuple[dict, Path]:
    """The report and the figure of the tool on Shapes with random weights."""
    folder = tmp_path_factory.mktemp("benchmark")
    link_world(folder / "world")  # a tokenizer is trained into it
    module: ModuleType = tool("analysis_tools/benchmark.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHAPES_ROOT", str(folder / "world"))
        patch.setattr(bench_retrieval, "MATRIX_SIZE", {"cpu": 64})

        config = load_config(RETRIEVAL)
        with DefaultScope.overwrite_default_scope("clipbert_mm"):
            weights = MODELS.build(config.model).state_dict()
        torch.save({"state_dict": weights}, folder / "random.pth")
        arguments = ["--texts", "8", "--cascade-size", "5", "--repeats", "1", "--cpu-time"]
        module.main(
            ["retrieval", RETRIEVAL, "--out", str(folder), "--checkpoint", str(folder / "random.pth"), *arguments]
        )
    name = f"retrieval_{Path(RETRIEVAL).stem}"
    return load(folder / f"{name}.json"), folder / f"{name}.png"


def test_the_report_compares_each_way_with_the_baseline_and_the_limit(report: tuple):
    found, picture = report
    assert found["clock"] == "time on the processor"
    for kind in ("captions", "paragraphs"):
        ways = found["lengths"][kind]["ways"]
        assert list(ways) == ["baseline", "fp32", "bf16"]
        for name, way in ways.items():
            seconds = way["encoder"]["median_s"] / 8
            useful = found["lengths"][kind]["useful_flops_per_pair"]
            assert way["useful_share_of_matrix_rate"] == pytest.approx(
                useful / seconds / (way["limit_pairs_per_s"] * useful)
            )
            if name != "baseline":
                assert way["ratio"] == pytest.approx(way["pairs_per_s"] / ways["baseline"]["pairs_per_s"])
        assert ways["fp32"]["largest_difference_of_scores"] < 1e-4
    assert 0 < found["cascade"]["pairs_kept"] < 0.5
    assert list(found["ranks"]) == ["fp32", "bf16", "fp32, cascade", "bf16, cascade"]
    for name, way in found["ranks"].items():
        assert way["pairs_per_s"] == pytest.approx(14 * 7 / way["scoring"]["median_s"])
        assert ("t2v/shortlist_recall" in way["metrics"]) == ("cascade" in name)
    image = cv2.imread(str(picture))
    assert image.shape[1] > 2 * image.shape[0]
    assert image.std() > 10


def test_the_processor_s_time_is_for_one_thread(report: tuple):
    wrong = argparse.Namespace(cpu_time=True, device="cpu", threads=2)
    with pytest.raises(ValueError, match=r"--cpu-time is for one thread on a CPU, got --threads 2 --device cpu"):
        bench_retrieval.clock_of(wrong)
