"""The measurements of public models, on one of a few thousand weights."""

import argparse
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from benchmarks import bench_public, public_vectors, timing
from benchmarks.flops import step_flops
from mmengine.config import Config
from public_models import write_blip, write_clip, write_pe, write_siglip, write_vilt
from transformers import BlipTextConfig, ViltForImageAndTextRetrieval
from transformers.models.blip.modeling_blip_text import BlipTextModel

from clipbert_mm.errors import ClipBertError


@pytest.fixture
def args(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setitem(timing.MATRIX_SIZE, "cpu", 256)
    write_blip(tmp_path)
    parser = argparse.ArgumentParser()
    bench_public.add_arguments(parser)
    read = parser.parse_args(["--repeats", "1", "--videos", "1", "--length", "5"])
    read.config = str(tmp_path)
    return read


def test_what_is_measured_adds_up(args: argparse.Namespace, tmp_path: Path):
    report = bench_public.measure(Config(), args)
    assert report["family"] == "BLIP"
    assert list(report["pairs"]) == list(bench_public.SHAPES)
    for case in report["pairs"].values():
        assert case["largest_difference"] < 1e-4
        assert case["baseline"] in ("one by one", "batched")
        assert case["speedup"] == pytest.approx(case[case["baseline"]]["median_s"] / case["ours"]["median_s"])
        pairs = case["texts"] * case["videos"]
        assert case["pairs_per_second"]["ours"] == pytest.approx(pairs / case["ours"]["median_s"])
    for row in report["attention"]:
        assert row["ratio"] == pytest.approx(
            row[{"kept": "absorbed", "absorbed": "kept"}[row["chosen"]]]["median_s"] / row[row["chosen"]]["median_s"]
        )
    index = report["index"]
    parts = index["decoding"]["median_s"] + index["visual tower"]["median_s"]
    assert index["ratio"] == pytest.approx(index["indexing"]["median_s"] / parts)
    bench_public.draw(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_logits_that_differ_are_no_measurement(args: argparse.Namespace, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(bench_public, "TOLERANCE", -1.0)
    with pytest.raises(ClipBertError, match="one text, many videos: logits differ from the library's by"):
        bench_public.measure(Config(), args)


@pytest.mark.parametrize("name", ["CLIP", "SigLIP", "PE-Core"])
def test_towers_of_vectors_alone(name: str, args: argparse.Namespace, tmp_path: Path):
    if name == "PE-Core":
        pytest.importorskip("open_clip", reason="PE-Core comes through open_clip: pip install 'clipbert_mm[open-clip]'")
    {"CLIP": write_clip, "SigLIP": write_siglip, "PE-Core": write_pe}[name](tmp_path / name)
    args.config, args.videos = str(tmp_path / name), 0
    report = bench_public.measure(Config(), args)
    assert (report["family"], "pairs" in report) == (name, False)
    comparison = report["vectors"].pop("comparison")
    assert comparison["pairs_per_second"] == pytest.approx(1.6e6 / comparison["median_s"])
    assert list(report["vectors"]) == ["one text", "many texts", "one frame", "8 frames"]
    for case in report["vectors"].values():
        assert case["largest_difference"] < 1e-4
        assert case["speedup"] == pytest.approx(case["library"]["median_s"] / case["ours"]["median_s"])
    bench_public.draw(report, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


def test_vectors_that_differ_are_no_measurement(
    args: argparse.Namespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write_clip(tmp_path / "clip")
    args.config = str(tmp_path / "clip")
    monkeypatch.setattr(public_vectors, "TOLERANCE", -1.0)
    with pytest.raises(ClipBertError, match="one text: vectors differ from the library's by"):
        bench_public.measure(Config(), args)


def test_a_vilt_against_the_library_s_whole_model(args: argparse.Namespace, tmp_path: Path):
    write_vilt(tmp_path / "vilt", ViltForImageAndTextRetrieval)
    args.config, args.videos = str(tmp_path / "vilt"), 0
    report = bench_public.measure(Config(), args)
    assert report["family"] == "ViLT"
    assert list(report["pairs"]) == ["one text, many videos", "many texts, few videos"]
    for case in report["pairs"].values():
        assert case["largest_difference"] < 1e-4
    bench_public.draw(report, tmp_path / "a.png")


def test_the_formula_of_a_pair_is_what_torch_counts():
    sizes = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48)
    config = BlipTextConfig(
        **sizes, vocab_size=20, encoder_hidden_size=24, is_decoder=True, attn_implementation="eager"
    )
    text = BlipTextModel(config, add_pooling_layer=False).eval()
    with step_flops() as counter, torch.no_grad():
        text(input_ids=torch.ones(1, 5, dtype=torch.long), encoder_hidden_states=torch.randn(1, 17, 24))
    model = SimpleNamespace(encoder=SimpleNamespace(text_config=config))
    assert bench_public.blip_gflop(model, 5, 17)["gflop_plain"] == pytest.approx(
        counter.get_total_flops() / 1e9, rel=1e-6
    )
