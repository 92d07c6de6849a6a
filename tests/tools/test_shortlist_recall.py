"""What a shortlist keeps: counted by hand, and of a model with vectors."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.runner import Runner

from clipbert_mm.registry import MODELS

TOOL = "analysis_tools/shortlist_recall.py"


def test_figures_are_those_counted_by_hand(tool: Callable):
    rng = np.random.default_rng(0)
    texts, videos = 30, 20
    text_video, full, scores = rng.permutation(np.arange(30) % 20), rng.random((30, 20)), rng.random((30, 20))
    found = tool(TOOL).summarize(full, {"some": scores}, text_video, [0.1, 0.5])
    assert (found["texts"], found["videos"]) == (texts, videos)
    for share, count in ((0.1, 2), (0.5, 10)):
        right, first, ten, ranks = [], [], [], []
        for text in range(texts):
            kept = set(np.argsort(-scores[text])[:count].tolist())
            order = np.argsort(-full[text]).tolist()
            right.append(text_video[text] in kept)
            first.append(order[0] in kept)
            ten += [video in kept for video in order[:10]]
            others = [video for video in np.argsort(-scores[text]).tolist() if video not in kept]
            ranks.append(([video for video in order if video in kept] + others).index(text_video[text]))
        row = found["shortlists"]["some"][f"{share:g}"]
        for name, values in (("right", right), ("top-1", first), ("top-10", ten)):
            assert row[name] == pytest.approx(100 * np.mean(values))
        for k in (1, 5, 10):
            assert row[f"R@{k}"] == pytest.approx(100 * np.mean([rank < k for rank in ranks]))
    exhaustive = [np.argsort(-full[text]).tolist().index(text_video[text]) for text in range(texts)]
    assert found["exhaustive"]["R@5"] == pytest.approx(100 * np.mean([rank < 5 for rank in exhaustive]))


@pytest.mark.parametrize("vector_size", [None, 8])
def test_of_a_model(
    tool: Callable,
    runner_config: Config,
    write_checkpoint: Callable,
    vector_size: int | None,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
):
    runner_config.model.encoder.vector_size = vector_size
    checkpoint = write_checkpoint()
    runner_config.test_cfg.shortlist = 0.3  # which the tool does without
    runner_config.dump(tmp_path / "config.py")
    arguments = [str(tmp_path / "config.py"), str(checkpoint), "--queries", "7", "--shares", "0.3", "1"]
    found = tool(TOOL).main([*arguments, "--out", str(tmp_path / "out.json")])
    assert json.loads((tmp_path / "out.json").read_text()) == found
    assert (found["texts"], found["videos"]) == (7, 7)  # of 14 texts
    poolings = ("max", "mean", "logsumexp", "query-weighted")
    ways = ["coarse tokens", *(f"vectors, {pooling}" for pooling in poolings), "chance"]
    assert list(found["shortlists"]) == (ways if vector_size else [ways[0], ways[-1]])
    for of_way in found["shortlists"].values():  # of one video, not of all: a share of 1 is a number
        assert of_way["1"]["right"] <= of_way["0.3"]["right"]
    printed = capsys.readouterr().out
    assert "7 texts, 7 videos" in printed
    assert "| none: all pairs | 100% | 100.0 | 100.0 | 100.0 |" in printed
    if vector_size is None:
        return
    model = MODELS.build(runner_config.model).eval()
    model.load_state_dict(torch.load(checkpoint, weights_only=False)["state_dict"])
    loader = Runner.build_dataloader(runner_config.test_dataloader)
    texts, clips = [], []
    with torch.no_grad():
        for batch in loader:
            inputs = model.data_preprocessor(batch)["inputs"]
            texts.append(model.encoder.text_vectors(inputs["text_ids"], inputs["text_mask"]))
            clips.append(model.encoder.clip_vectors(model.encode_video(inputs["frames"])))
    similarity = torch.einsum("mp,vkp->mvk", torch.cat(texts), torch.cat(clips))  # of two texts of each video
    for way, scores in (("max", similarity.amax(dim=2)), ("mean", similarity.mean(dim=2))):
        best = scores.topk(2, dim=1).indices
        right = np.mean([text // 2 in best[text] for text in np.linspace(0, 13, 7).round().astype(int)])
        assert found["shortlists"][f"vectors, {way}"]["0.3"]["right"] == pytest.approx(100 * right)
