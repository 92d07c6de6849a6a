"""Searching, ranking and explaining on a second device: the meta device stands for a GPU."""

from pathlib import Path

import pytest
import torch
from one_device import OneDevice

from clipbert_mm.apis import VideoSearch


def test_a_search_runs_on_its_device(checkpoint: Path, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    video = world / "videos" / "test_00000.mp4"
    with OneDevice():
        search = VideoSearch(checkpoint, "meta")
        report = search.index(video, workers=0)
        result = search.search("a red circle", shortlist=0)
        ranking = search.rank(video, ["a red circle", "a blue square on green"])
        explanation = search.explain("a red circle", video)
        tokens = search.predictor.encode([search.predictor.read(str(video)).frames])
        logits = search.predictor.score(tokens, search.predictor.token_ids(["a red circle"]))
    assert {value.device.type for value in search.predictor.model.state_dict().values()} == {"meta"}
    assert (tokens.device.type, logits.device.type) == ("meta", "meta")
    assert report.added == (str(video),)
    assert [hit.path for hit in result.hits] == [str(video)]
    assert len(ranking.texts) == 2
    assert len(explanation.moments) == 3
    assert VideoSearch(checkpoint).predictor.device == torch.device("cpu"), "without a GPU"
