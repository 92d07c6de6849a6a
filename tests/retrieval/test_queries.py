"""Short queries that are true of several videos, with time spans: through the loop, against a naive one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from torch import nn

from clipbert_mm.datasets.transforms import collate_items
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation import CalibrationBins, multi_positive_metrics, read_rankings
from clipbert_mm.models import PairEncoder
from clipbert_mm.retrieval import ScoreMatrix

Lines = list[dict[str, Any]]


@pytest.fixture
def lines(world: Path) -> Lines:
    """The lines of a file in which half of the 14 captions are those of other videos, most lines with spans."""
    captions = [json.loads(line) for line in (world / "test.jsonl").read_text().splitlines()]
    queries = [json.loads(line) for line in (world / "queries.jsonl").read_text().splitlines()]
    shared = ["a red circle", "a blue star", "an orange ring"]
    found = [
        dict(video=record["video"], caption=shared[(i + i // 7) % 3] if i % 2 else record["caption"])
        for i, record in enumerate(captions)
    ]
    for i, record in enumerate(found):
        if i % 5:
            shown = [each["spans"] for each in queries if each["video"] == record["video"]]
            record["spans"] = shown[i % len(shown)]
    assert len({record["caption"] for record in found}) == 10
    return found


@pytest.fixture
def run(runner_config: Config, own_world: Path, tmp_path: Path, lines: Lines) -> Callable[..., tuple]:
    """Test these lines, or others, with options of metric and loop; returns metrics, rankings and the runner."""

    def test(
        name: str, metric: dict[str, Any] | None = None, own: Lines | None = None, **options: Any
    ) -> tuple[dict[str, float], dict[str, Any], Any]:
        text = "".join(json.dumps(record) + "\n" for record in (lines if own is None else own))
        (own_world / "lines.jsonl").write_text(text)
        config = Config(runner_config.to_dict())
        config.experiment_name = f"{tmp_path.name}-{name}"
        config.test_dataloader.dataset.update(data_root=str(own_world), ann_file="lines.jsonl")
        config.test_evaluator.update(metric or {}, rankings_file=str(tmp_path / f"{name}.json"))
        config.test_cfg.update(options)
        runner = build_runner(config)
        return runner.test(), read_rankings(tmp_path / f"{name}.json"), runner

    return test


def without_spans(lines: Lines) -> Lines:
    return [{key: value for key, value in record.items() if key != "spans"} for record in lines]


@torch.no_grad()
def naive_clip_scores(model: nn.Module, dataset: torch.utils.data.Dataset) -> list[np.ndarray]:
    """The scores (m, K) of the captions of each video with its clips, one clip a forward pass."""
    scores = []
    for item in (dataset[i] for i in range(len(dataset))):
        batch = collate_items([item])
        own = []
        for clip in range(3):
            part = batch | {"inputs": batch["inputs"] | {"frames": batch["inputs"]["frames"][:, clip : clip + 1]}}
            logits = model(**model.data_preprocessor(part), mode="tensor")[:, 0]  # (m, 2)
            own.append(logits[:, 1] - logits[:, 0])
        scores.append(torch.stack(own, dim=1).numpy())
    return scores


def test_equal_texts_are_encoded_and_scored_once(run: Callable, lines: Lines, monkeypatch: pytest.MonkeyPatch):
    _, default, _ = run("default", own=without_spans(lines))
    pairs, texts = [], []
    score, embed = PairEncoder.__call__, PairEncoder.encode_texts
    monkeypatch.setattr(
        PairEncoder, "__call__", lambda self, *args: pairs.extend(zip(*args[2:], strict=True)) or score(self, *args)
    )
    monkeypatch.setattr(PairEncoder, "encode_texts", lambda self, ids: texts.extend(ids) or embed(self, ids))
    metrics, rankings, _ = run("multi", dict(multi_positive=True), own=without_spans(lines))
    assert (len(texts), len(pairs)) == (10, 10 * 7)
    different = list(dict.fromkeys(record["caption"] for record in lines))
    assert rankings["texts"] == different
    first = [[record["caption"] for record in lines].index(text) for text in different]
    assert rankings["scores"] == pytest.approx(default["scores"][first], abs=1e-5)
    videos = [Path(path).name for path in rankings["videos"]]
    relevant = np.array([[dict(video=v, caption=t) in without_spans(lines) for v in videos] for t in different], bool)
    assert relevant.sum(axis=1).max() > 1
    assert metrics.pop("coverage") == 100
    assert metrics == multi_positive_metrics(rankings["scores"], relevant)
    assert default["text_video"] == np.repeat(np.arange(7), 2).tolist()


def test_a_cascade_chooses_among_different_texts(run: Callable, lines: Lines):
    _, full, _ = run("full", dict(multi_positive=True))
    metrics, found, _ = run("cascade", dict(multi_positive=True), shortlist=2)
    inside = np.isclose(found["scores"], full["scores"], atol=1e-5)
    assert (inside.sum(axis=1) >= 2).all()
    assert (inside.sum(axis=0) >= 2).all()
    assert inside.sum() <= 10 * 2 + 7 * 2
    right = found["relevant"]
    assert metrics["t2v/shortlist_recall"] == pytest.approx(100 * (inside & right).any(axis=1).mean())
    assert metrics["v2t/shortlist_recall"] == pytest.approx(100 * (inside & right).any(axis=0).mean())
    everything, same, _ = run("everything", dict(multi_positive=True), shortlist=10)
    assert same["scores"] == pytest.approx(full["scores"], abs=1e-6)
    assert everything["t2v/shortlist_recall"] == 100


@pytest.mark.parametrize("multi_positive", [False, True])
def test_moments_are_those_of_a_naive_loop_and_change_no_score(run: Callable, lines: Lines, multi_positive: bool):
    option = dict(multi_positive=multi_positive)
    wanted, plain, _ = run("plain", option, own=without_spans(lines))
    metrics, rankings, runner = run("spans", option)
    assert np.array_equal(rankings["scores"], plain["scores"])
    dataset = runner.test_dataloader.dataset
    inside, chance = [], []
    for i, scores in enumerate(naive_clip_scores(runner.model, dataset)):
        centers = [(start + end) / 2 for start, end in dataset[i]["data_samples"].get("clip_times", [])]
        for own, spans in zip(scores, dataset[i]["data_samples"].get("spans", [None, None]), strict=True):
            if spans is not None:
                shown = [any(start <= center < end for start, end in spans) for center in centers]
                inside.append(shown[int(own.argmax())])
                chance.append(np.mean(shown))
    assert len(inside) == 11
    assert metrics.pop("moments/accuracy") == pytest.approx(100 * np.mean(inside))
    assert metrics.pop("moments/chance") == pytest.approx(100 * np.mean(chance))
    assert 0 < np.mean(chance) < 1
    assert metrics == wanted


def test_calibration_is_that_of_the_pairs_and_their_probabilities(run: Callable, lines: Lines):
    metrics, rankings, _ = run("calibration", dict(calibration=True, multi_positive=True), own=without_spans(lines))
    bins = CalibrationBins()
    bins.add(rankings["scores"], rankings["relevant"])
    assert {name: metrics[f"calibration/{name}"] for name in ("ECE", "Brier", "TPR@0.5")} == bins.metrics()
    assert rankings["calibration"] == bins.to_dict()


def test_a_kept_test_is_not_scored_again_and_new_spans_are_a_new_test(
    run: Callable, lines: Lines, runner_config: Config, monkeypatch: pytest.MonkeyPatch
):
    def folders() -> set[str]:
        return {path.name for path in Path(runner_config.work_dir).glob("retrieval_test-*")}

    option = dict(multi_positive=True)
    first, kept, _ = run("first", option, keep_scores=True)
    assert len(folders()) == 1
    monkeypatch.setattr(ScoreMatrix, "write", None)
    second, again, _ = run("second", option, keep_scores=True)
    assert np.array_equal(kept["scores"], again["scores"])
    assert first == second
    monkeypatch.undo()
    moved = [record | dict(spans=[[90, 91]]) if "spans" in record else record for record in lines]
    third, _, _ = run("third", option, own=moved, keep_scores=True)
    assert (third["moments/accuracy"], third["moments/chance"]) == (0, 0)
    assert len(folders()) == 2
    run("fourth", keep_scores=True)
    run("fifth", own=without_spans(lines), keep_scores=True)
    assert len(folders()) == 4


def test_broken_videos_are_left_out_with_their_texts_and_spans(
    run: Callable, lines: Lines, runner_config: Config, own_world: Path, break_file: Callable
):
    break_file(own_world / "videos" / "test_00002.mp4", "empty")
    runner_config.test_dataloader.dataset.on_broken = "skip"
    option = dict(multi_positive=True)
    found, rankings, _ = run("broken", option)
    alone, wanted, _ = run("alone", option, own=[record for record in lines if record["video"] != "test_00002.mp4"])
    assert rankings["texts"] == wanted["texts"]
    assert rankings["scores"] == pytest.approx(wanted["scores"], abs=1e-5)
    assert found.pop("coverage") == pytest.approx(600 / 7)
    assert alone.pop("coverage") == 100
    assert found == pytest.approx(alone)
    assert "moments/accuracy" in found


def test_what_is_no_probability_has_no_calibration(run: Callable, runner_config: Config):
    with pytest.raises(OptionError, match=r"expects all pairs to be scored with all clips, got shortlist=3 of Retriev"):
        run("shortlist", dict(calibration=True), shortlist=3)
    runner_config.model.head.type = "MarginRankingHead"
    with pytest.raises(
        OptionError, match=r"calibration=True expects scores that are log-odds, .*, got those of MarginRankingHead\."
    ):
        run("margin", dict(calibration=True))
    run("without")
