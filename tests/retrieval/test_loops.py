"""The retrieval loop against a naive one: each pair on its own through the whole model."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from clipbert_mm.datasets.transforms import BrokenMediaError, collate_items
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.engine.rank_sync import FolderSync
from clipbert_mm.errors import BusyFolderError, OptionError, VideoIndexError
from clipbert_mm.evaluation import RetrievalMetric, best_ranks, read_rankings, retrieval_metrics
from clipbert_mm.fileio import LOCK, locked
from clipbert_mm.models import PairEncoder
from clipbert_mm.retrieval.loops import empty


@torch.no_grad()
def naive_scores(
    model: nn.Module, dataset: torch.utils.data.Dataset, videos: list[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Score every text beside every video, one pair a forward pass; with the video of each text."""
    model.eval()
    items = [dataset[i] for i in videos]
    texts = [(place, ids) for place, item in enumerate(items) for ids in item["inputs"]["text_ids"]]
    scores = np.empty((len(texts), len(items)))
    for column, item in enumerate(items):
        for row, (_, ids) in enumerate(texts):
            pair = item | {"inputs": item["inputs"] | {"text_ids": [ids]}}
            clip_logits = model(**model.data_preprocessor(collate_items([pair])), mode="tensor")[0]  # (K, C)
            pooled = clip_logits.exp().mean(dim=0).log()
            scores[row, column] = pooled[1] - pooled[0]
    return scores, np.array([place for place, _ in texts])


@pytest.mark.parametrize("clips_per_tile", [1, 7, 24, 1024])
def test_scores_are_those_of_a_naive_loop(runner_config: Config, tmp_path: Path, clips_per_tile: int):
    # 14 texts, 7 videos of 3 clips: tiles of one pair, two pairs, a row with a rest, and all at once.
    runner_config.test_cfg.clips_per_tile = clips_per_tile
    runner_config.test_evaluator.rankings_file = str(tmp_path / "rankings.json")
    runner = build_runner(runner_config)
    metrics = runner.test()
    scores, text_video = naive_scores(runner.model, runner.test_dataloader.dataset, list(range(7)))
    rankings = read_rankings(tmp_path / "rankings.json")
    assert rankings["scores"] == pytest.approx(scores, abs=1e-5)
    assert scores.std() > 1e-3
    assert rankings["text_video"] == text_video.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert metrics.pop("coverage") == 100
    assert metrics == pytest.approx(retrieval_metrics(rankings["scores"], text_video))


def test_each_video_is_encoded_once_and_each_pair_is_scored_once(runner_config: Config, monkeypatch):
    runner_config.test_cfg.clips_per_tile = 3 * 8
    runner = build_runner(runner_config)
    encoded, pairs, texts, exchanged = [], [], [], []
    monkeypatch.setattr(
        FolderSync,
        "exchange",
        lambda self, folder, suffix: exchanged.append((folder.name, suffix, len(list(folder.glob(f"*{suffix}"))))),
    )
    encode, run, embed = runner.model.encode_frames, PairEncoder.__call__, PairEncoder.encode_texts
    monkeypatch.setattr(
        PairEncoder, "__call__", lambda self, *args: pairs.extend(zip(*args[2:], strict=True)) or run(self, *args)
    )
    monkeypatch.setattr(PairEncoder, "encode_texts", lambda self, ids: texts.extend(ids) or embed(self, ids))
    runner.model.encode_frames = lambda frames: encoded.append(len(frames)) or encode(frames)
    runner.test()
    assert encoded == [1] * 7
    assert len(pairs) == 14 * 7
    assert len(texts) == 14
    lengths = [len(ids) for ids in texts]
    assert lengths == sorted(lengths)
    assert exchanged == [  # files, with other machines, before and after
        ("gallery", ".safetensors", 0),
        ("gallery", ".safetensors", 7),
        ("scores", ".tiles", 0),
        ("scores", ".tiles", 1),
    ]


def test_broken_videos_are_left_out_and_told(runner_config: Config, own_world: Path, tmp_path: Path, break_file):
    broken = break_file(own_world / "videos" / "test_00002.mp4", "cut")
    runner_config.test_dataloader.dataset.update(data_root=str(own_world), on_broken="skip")
    runner_config.test_dataloader.batch_size = 1  # a batch without any readable video
    runner_config.test_evaluator.rankings_file = str(tmp_path / "rankings.json")
    runner = build_runner(runner_config)
    metrics = runner.test()
    scores, text_video = naive_scores(runner.model, runner.test_dataloader.dataset, [0, 1, 3, 4, 5, 6])
    rankings = read_rankings(tmp_path / "rankings.json")
    assert metrics.pop("coverage") == pytest.approx(100 * 6 / 7)
    assert broken not in rankings["videos"]
    assert len(rankings["texts"]) == 12
    assert rankings["scores"] == pytest.approx(scores, abs=1e-5)
    assert metrics == pytest.approx(retrieval_metrics(rankings["scores"], text_video))


def test_a_shortlist_leaves_broken_videos_out(
    runner_config: Config, own_world: Path, tmp_path: Path, break_file, monkeypatch
):
    break_file(own_world / "videos" / "test_00002.mp4", "cut")
    runner_config.test_dataloader.dataset.update(data_root=str(own_world), on_broken="skip")
    entries = []
    process = RetrievalMetric.process
    monkeypatch.setattr(
        RetrievalMetric, "process", lambda self, batch, each: entries.extend(each) or process(self, batch, each)
    )
    _, metrics = scores_of(runner_config, tmp_path, "cascade", shortlist=2)
    assert [entry["broken"] is None for entry in entries] == [i != 2 for i in range(7)]
    assert (entries[2]["scores"], entries[2]["shortlist"]) == (None, None)
    kept = np.stack([entry["shortlist"] for entry in entries if entry["broken"] is None], axis=1)
    assert metrics["t2v/shortlist_recall"] == pytest.approx(
        100 * kept[np.arange(12), np.repeat(np.arange(6), 2)].mean()
    )
    assert all("pieces" not in entry for entry in entries)


class Events(Hook):
    """Notes what hooks are told."""

    def __init__(self, stage: str) -> None:
        self.told: list[tuple] = []
        for event in (f"before_{stage}", f"before_{stage}_epoch", f"after_{stage}_epoch", f"after_{stage}"):
            setattr(self, event, lambda runner, event=event, **options: self.told.append((event, options)))


def test_hooks_are_told_once(runner_config: Config):
    runner = build_runner(runner_config)
    events = Events("test")
    runner.register_hook(events)
    metrics = runner.test()
    assert events.told == [
        ("before_test", {}),
        ("before_test_epoch", {}),
        ("after_test_epoch", dict(metrics=metrics)),
        ("after_test", {}),
    ]


def test_a_dataset_that_draws_negatives_is_refused(runner_config: Config):
    runner_config.test_dataloader.dataset.test_mode = False
    with pytest.raises(
        OptionError, match=r"RetrievalTestLoop expects a dataset with test_mode=True, got test_mode=False"
    ):
        build_runner(runner_config).test()


def test_a_folder_is_emptied_but_for_its_lock_and_what_links_lead_to(tmp_path: Path):
    folder, outside = tmp_path / "results", tmp_path / "outside"
    (folder / "scores" / "deep").mkdir(parents=True)
    outside.mkdir()
    for path in (folder / "manifest.json", folder / LOCK, folder / "scores" / "a.tiles", outside / "kept"):
        path.touch()
    (folder / "link").symlink_to(outside)
    empty(folder)
    assert [path.name for path in folder.iterdir()] == [LOCK]
    assert (outside / "kept").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_broken_video_stops_the_test_with_its_path(runner_config: Config, own_world: Path, break_file, workers: int):
    broken = break_file(own_world / "videos" / "test_00002.mp4", "empty")
    runner_config.test_dataloader.num_workers = workers
    runner_config.test_dataloader.dataset.data_root = str(own_world)
    with pytest.raises(BrokenMediaError, match=rf"cannot read {broken}: the file is empty"):
        build_runner(runner_config).test()


class CatchMetrics(Hook):
    """Notes the metrics that hooks are told, and whether the model trains again."""

    def __init__(self) -> None:
        self.metrics: list[dict] = []
        self.training: list[bool] = []

    def after_val_epoch(self, runner, metrics: dict | None = None) -> None:
        self.metrics.append(metrics)

    def after_train_iter(self, runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        self.training.append(runner.model.training)


def test_validation_runs_between_epochs(runner_config: Config):
    for name in ("dataloader", "evaluator"):
        runner_config[f"val_{name}"] = runner_config[f"test_{name}"].copy()
    runner_config.val_cfg = dict(type="RetrievalValLoop", clips_per_tile=50)
    runner_config.train_cfg.max_epochs = 2
    runner_config.default_hooks.checkpoint.update(save_best="t2v/R@1", rule="greater")
    runner = build_runner(runner_config)
    notes = CatchMetrics()
    runner.register_hook(notes)
    runner.train()
    assert len(notes.metrics) == 2
    assert all(notes.training)
    scores, text_video = naive_scores(runner.model, runner.val_dataloader.dataset, list(range(7)))
    assert notes.metrics[1]["t2v/MnR"] == pytest.approx(retrieval_metrics(scores, text_video)["t2v/MnR"])
    assert list(Path(runner_config.work_dir).glob("best_t2v*"))


def scores_of(config: Config, folder: Path, name: str, **options) -> tuple[np.ndarray, dict[str, float]]:
    """Test with options of the loop; returns the scores and the metrics."""
    config = Config(config.to_dict())
    config.test_cfg.update(options)
    config.experiment_name = f"{folder.name}-{name}"
    config.test_evaluator.rankings_file = str(folder / f"{name}.json")
    metrics = build_runner(config).test()
    return read_rankings(folder / f"{name}.json")["scores"], metrics


def test_settings_of_speed_hardly_change_scores(runner_config: Config, tmp_path: Path):
    wanted, _ = scores_of(runner_config, tmp_path, "whole")
    for name, options in {
        "small": dict(clips_per_tile=5, tokens_per_pass=60),
        "limited": dict(memory_limit="100GiB"),
    }.items():
        found, _ = scores_of(runner_config, tmp_path, name, **options)
        assert found == pytest.approx(wanted, abs=1e-5)
    half, _ = scores_of(runner_config, tmp_path, "half", precision="bf16")
    assert 1e-5 < np.abs(half - wanted).max() < 0.1 * wanted.std() + 0.02


def test_a_cascade_looks_closely_at_the_best_both_ways(runner_config: Config, tmp_path: Path, monkeypatch):
    full, _ = scores_of(runner_config, tmp_path, "full")
    pairs = []
    run = PairEncoder.__call__
    monkeypatch.setattr(
        PairEncoder,
        "__call__",
        lambda self, texts, tokens, rows, columns: (
            pairs.append(len(rows) * tokens.shape[1]) or run(self, texts, tokens, rows, columns)
        ),
    )
    found, metrics = scores_of(runner_config, tmp_path, "cascade", shortlist=2)
    inside = found > np.sort(found, axis=None)[-np.isclose(found, full, atol=1e-5).sum() - 1]
    assert found[inside] == pytest.approx(full[inside], abs=1e-5)
    assert sum(pairs) == 14 * 7 + 3 * inside.sum()
    assert (inside.sum(axis=1) >= 2).all()
    assert (inside.sum(axis=0) >= 2).all()
    assert inside.sum() <= 14 * 2 + 7 * 2
    assert found[~inside].max() < found[inside].min()
    text_video = np.repeat(np.arange(7), 2)
    kept = inside[np.arange(14), text_video]
    assert metrics["t2v/shortlist_recall"] == pytest.approx(100 * kept.mean())
    assert metrics["v2t/shortlist_recall"] == pytest.approx(100 * kept.reshape(7, 2).any(axis=1).mean())
    everything, _ = scores_of(runner_config, tmp_path, "everything", shortlist=14)
    assert everything == pytest.approx(full, abs=1e-6)
    ranks = best_ranks(found, text_video[:, None] == np.arange(7))
    assert (ranks[kept] <= inside.sum(axis=1)[kept]).all()


def results(config: Config) -> list[Path]:
    """The folders of results in a work folder."""
    return sorted(Path(config.work_dir).glob("retrieval_*"))


def test_a_finished_test_leaves_nothing_unless_told(runner_config: Config, tmp_path: Path, monkeypatch):
    first, _ = scores_of(runner_config, tmp_path, "first")
    assert results(runner_config) == []
    kept, _ = scores_of(runner_config, tmp_path, "kept", keep_scores=True)
    (folder,) = results(runner_config)
    assert len(list((folder / "gallery").iterdir())) == 7
    assert len(list((folder / "scores").iterdir())) == 1
    monkeypatch.setattr(PairEncoder, "__call__", None)  # nothing is computed again
    again, _ = scores_of(runner_config, tmp_path, "again", keep_scores=True)
    assert np.array_equal(first, kept)
    assert np.array_equal(first, again)


@pytest.mark.parametrize(
    "options",
    [
        {"test_cfg.precision": "bf16"},
        {"test_cfg.shortlist": 3},
        {"model.aggregator.type": "MeanAggregator"},
        {"randomness.seed": 6},
        {"test_dataloader.dataset.pipeline.1.num_clips": 2},
    ],
)
def test_l10_scores_of_something_else_have_a_folder_of_their_own(
    runner_config: Config, tmp_path: Path, options: dict, capsys
):
    scores_of(runner_config, tmp_path, "first", keep_scores=True)
    (first,) = results(runner_config)
    runner_config.log_level = "INFO"
    runner_config.merge_from_dict(options)
    found, _ = scores_of(runner_config, tmp_path, "second", keep_scores=True)
    assert len(results(runner_config)) == 2
    assert f"holds results of other tests, unfinished or kept on purpose: {first.name}." in capsys.readouterr().out
    for folder in results(runner_config):
        shutil.rmtree(folder)
    alone, _ = scores_of(runner_config, tmp_path, "alone")
    assert np.array_equal(found, alone)


class Elsewhere(PairEncoder):
    """Pairs on another device."""

    device = torch.device("meta")


def test_l10_a_fingerprint_tells_what_differs(runner_config: Config):
    runner = build_runner(runner_config)
    loop, model = runner.test_loop, runner.model.eval()
    options = dict(precision="fp32", tokens_per_pass=1000)
    first = loop._fingerprint(model, PairEncoder(model.encoder, **options))
    assert first == loop._fingerprint(model, PairEncoder(model.encoder, **options))
    assert list(first) == ["weights", "model", "pipeline", "videos", "texts", "precision", "settings"]

    def differing(change: Callable[[], object] = lambda: None, kind: type = PairEncoder, **other: Any) -> list[str]:
        change()
        found = loop._fingerprint(model, kind(model.encoder, **(options | other)))
        differing = [name for name in first if found[name] != first[name]]
        first.update(found)
        return differing

    assert differing(tokens_per_pass=999) == differing() == ["settings"]
    assert differing(kind=Elsewhere) == differing() == ["settings"]
    assert differing(precision="bf16") == differing() == ["precision"]
    assert differing(lambda: setattr(loop, "shortlist", 3)) == ["settings"]
    assert differing(lambda: loop.storing.update(clips_per_tile=5)) == ["settings"]
    assert differing(lambda: loop.storing.update(memory_limit="9GiB")) == [], "which changes no score"
    assert differing(lambda: model.head.classifier[0].bias.data.add_(1)) == ["weights"]
    assert differing(lambda: runner.cfg.model.aggregator.update(type="MeanAggregator")) == ["model"]
    assert differing(lambda: runner.cfg.test_dataloader.dataset.pipeline[1].update(num_clips=2)) == ["pipeline"]
    assert differing(lambda: loop.dataloader.dataset.tokenizer.add_tokens("käse")) == ["texts"]


def test_l10_the_same_test_twice_at_once_is_refused(runner_config: Config, tmp_path: Path):
    scores_of(runner_config, tmp_path, "first", keep_scores=True)
    (folder,) = results(runner_config)
    with locked(folder), pytest.raises(BusyFolderError, match=rf"{folder} is in use: process \d+ on .* writes to it"):
        scores_of(runner_config, tmp_path, "second")
    scores_of(runner_config, tmp_path, "third")
    assert results(runner_config) == []


def test_scores_of_changed_data_are_not_taken(runner_config: Config, own_world: Path, tmp_path: Path):
    runner_config.test_dataloader.dataset.data_root = str(own_world)
    scores_of(runner_config, tmp_path, "first", keep_scores=True)
    video = own_world / "videos" / "test_00001.mp4"
    data = video.read_bytes()
    video.unlink()
    video.write_bytes(data)
    scores_of(runner_config, tmp_path, "second", keep_scores=True)
    assert len(results(runner_config)) == 2


def test_w3_a_damaged_file_of_tokens_is_named(runner_config: Config, tmp_path: Path, capsys):
    scores_of(runner_config, tmp_path, "first", keep_scores=True)
    (folder,) = results(runner_config)
    shutil.rmtree(folder / "scores")
    path = folder / "gallery" / "0000003.safetensors"
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")  # behind the header
    path.write_bytes(data[:start] + b"harm" + data[start + 4 :])
    with pytest.raises(VideoIndexError, match=rf"{path} is damaged .* Delete it, and the video will be encoded again"):
        scores_of(runner_config, tmp_path, "second")
    path.unlink()
    runner_config.log_level = "INFO"
    scores_of(runner_config, tmp_path, "third")
    assert "6 of 7 videos are encoded already" in capsys.readouterr().out


def test_an_architecture_of_another_build_is_scored_whole_and_told(runner_config: Config, tmp_path: Path, capsys):
    runner_config.model.encoder.architecture = "distilbert"
    runner_config.test_evaluator.rankings_file = str(tmp_path / "rankings.json")
    runner = build_runner(runner_config)
    runner.test()
    assert "does not support layers of 'distilbert'" in capsys.readouterr().out
    scores, _ = naive_scores(runner.model, runner.test_dataloader.dataset, list(range(7)))
    assert read_rankings(tmp_path / "rankings.json")["scores"] == pytest.approx(scores, abs=1e-5)


def test_a_memory_limit_that_is_too_low_is_told(runner_config: Config):
    runner_config.test_cfg.memory_limit = "20MiB"
    with pytest.raises(
        ValueError, match=r"memory_limit 20MiB is too low: this process uses \d+ MiB .* Raise it to \d+MiB"
    ):
        build_runner(runner_config).test()
    runner_config.test_cfg.memory_limit = "4 gigs"
    runner_config.experiment_name += "-again"
    with pytest.raises(ValueError, match=r"size of memory such as '4GiB' or '500MiB', got '4 gigs'"):
        build_runner(runner_config).test()
