"""The retrieval loop against a naive one: each pair on its own through the whole model."""

from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.fileio import load
from mmengine.hooks import Hook
from torch import nn

from clipbert_mm.datasets.transforms import BrokenMediaError, collate_items
from clipbert_mm.engine.launch import build_runner
from clipbert_mm.evaluation.retrieval import retrieval_metrics


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
    rankings = load(tmp_path / "rankings.json")
    assert np.array(rankings["scores"]) == pytest.approx(scores, abs=1e-5)
    assert scores.std() > 1e-3
    assert rankings["text_video"] == text_video.tolist() == [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6]
    assert metrics.pop("coverage") == 100
    assert metrics == pytest.approx(retrieval_metrics(np.array(rankings["scores"]), text_video))


def test_each_video_is_encoded_once_and_each_pair_is_scored_once(runner_config: Config):
    runner = build_runner(runner_config)
    encoded, pairs = [], []
    encode, score = runner.model.encode_video, runner.model.score
    runner.model.encode_video = lambda frames: encoded.append(len(frames)) or encode(frames)
    runner.model.score = lambda tokens, *texts: pairs.append(len(texts[0])) or score(tokens, *texts)
    runner.test()
    assert sum(encoded) == 7
    assert sum(pairs) == 14 * 7


def test_texts_are_scored_beside_others_of_their_length(runner_config: Config):
    runner_config.test_cfg.clips_per_tile = 3 * 7 * 2  # two texts a tile
    runner = build_runner(runner_config)
    dataset = runner.test_loop.dataloader.dataset
    lengths = sorted(len(ids) for i in range(7) for ids in dataset[i]["inputs"]["text_ids"])
    widths = []
    score = runner.model.score
    runner.model.score = lambda tokens, *texts: widths.append(texts[0].shape[1]) or score(tokens, *texts)
    runner.test()
    assert widths == lengths[1::2]


def test_broken_videos_are_left_out_and_told(runner_config: Config, own_world: Path, tmp_path: Path, break_file):
    broken = break_file(own_world / "videos" / "test_00002.mp4", "cut")
    runner_config.test_dataloader.dataset.update(data_root=str(own_world), on_broken="skip")
    runner_config.test_dataloader.batch_size = 1  # a batch without any readable video
    runner_config.test_evaluator.rankings_file = str(tmp_path / "rankings.json")
    runner = build_runner(runner_config)
    metrics = runner.test()
    scores, text_video = naive_scores(runner.model, runner.test_dataloader.dataset, [0, 1, 3, 4, 5, 6])
    rankings = load(tmp_path / "rankings.json")
    assert metrics.pop("coverage") == pytest.approx(100 * 6 / 7)
    assert broken not in rankings["videos"]
    assert len(rankings["texts"]) == 12
    assert np.array(rankings["scores"]) == pytest.approx(scores, abs=1e-5)
    assert metrics == pytest.approx(retrieval_metrics(np.array(rankings["scores"]), text_video))


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
