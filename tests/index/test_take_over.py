"""Taking over indexes of format 1: their records, tokens and vectors, without decoding; and what is refused."""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from mmengine.config import Config

from clipbert_mm.apis import VideoIndex, VideoIndexError, VideoSearch, reading
from clipbert_mm.index import Entry, Unreadable
from clipbert_mm.index.take_over import take_over
from clipbert_mm.retrieval.feature_store import FeatureStore


def write_old_index(
    folder: Path, search: VideoSearch, entries: dict[str, Entry], tokens: dict[str, torch.Tensor]
) -> None:
    """Write an index of format 1: the last video in its file of tokens alone, as a killed indexing left it."""
    store = FeatureStore(folder / "tokens")
    for path, entry in entries.items():
        record = {name: value for name, value in asdict(entry).items() if name != "digest"}
        store.add(entry.key, {"clips": tokens[path].half(), "coarse": tokens[path][:1].half()}, record)
    videos = [asdict(entry) for entry in list(entries.values())[:-1]]
    for values in videos:
        del values["digest"]
    manifest = dict(
        format=1,
        version="0.1",
        identity=search.predictor.identity,
        source=str(search.predictor.source),
        weights=str(search.predictor.weights),
        folders=["/v"],
        videos=videos,
        unreadable=[asdict(Unreadable("/v/broken.mp4", 1, 1, "it is cut"))],
    )
    (folder / "manifest.json").write_text(json.dumps(manifest))


@pytest.fixture(params=["tokens", "vectors of its own", "vectors alone"])
def searches(
    request: pytest.FixtureRequest,
    joined_config: dict,
    towers_config: dict,
    runner_config: Config,
    write_checkpoint: Callable,
    world: Path,
    tmp_path: Path,
) -> VideoSearch:
    """A search by each kind of model, over an index of today."""
    if request.param != "tokens":
        runner_config.model = joined_config if request.param == "vectors of its own" else towers_config
        runner_config.train_dataloader.dataset.num_negatives = 1
    search = VideoSearch(write_checkpoint(), index=tmp_path / "new")
    search.index(sorted((world / "videos").glob("test_*.mp4"))[:4], workers=0)
    return search


def test_an_old_index_finds_the_same_without_decoding(
    searches: VideoSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    entries, predictor = dict(searches.video_index.entries), searches.predictor
    tokens = {path: predictor.encode([predictor.read(path).frames])[0] for path in entries}
    old = tmp_path / "old"
    write_old_index(old, searches, entries, tokens)
    with pytest.raises(
        VideoIndexError, match=r"in format 1\. Take it over, which decodes nothing: clipbert index --take-over"
    ):
        VideoIndex(old)
    expected = searches.search("a red circle", topk=4)
    monkeypatch.setattr(reading, "read_media", None)
    assert take_over(old, predictor) == 4
    assert not (old / "manifest.json").exists()
    search = VideoSearch(predictor.source, index=old)
    assert [entry.path for entry in search.video_index.listed()] == list(entries)
    assert (search.video_index.folders, list(search.video_index.unreadable)) == (["/v"], ["/v/broken.mp4"])
    found = search.search("a red circle", topk=4)
    assert [hit.path for hit in found.hits] == [hit.path for hit in expected.hits]
    assert [hit.score for hit in found.hits] == pytest.approx([hit.score for hit in expected.hits], abs=1e-3)
    if search.video_index.vector_size is not None:
        for path in entries:
            assert torch.allclose(search.video_index.vectors(path), searches.video_index.vectors(path), atol=2e-3)
    with pytest.raises(VideoIndexError, match="has been taken over already"):
        take_over(old, predictor)


def test_what_is_no_old_index_is_refused(search_of_none: VideoSearch, tmp_path: Path):
    predictor, folder = search_of_none.predictor, tmp_path / "old"
    with pytest.raises(VideoIndexError, match=r"There is no index of format 1 in .*old: .*manifest.json is missing"):
        take_over(folder, predictor)
    write_old_index(folder, search_of_none, {}, {})
    good = json.loads((folder / "manifest.json").read_text())
    for change, said in (
        (dict(format=3, version="9"), "made by clipbert_mm 9 in format 3"),
        (dict(videos=[{"path": 3}]), "damaged or not the manifest of an index: TypeError"),
        (dict(videos=None), "damaged or not the manifest of an index: TypeError"),
        (dict(identity=3), "damaged or not the manifest"),
        (dict(identity="other"), "was made by .* weights, clips or frame size differ"),
    ):
        (folder / "manifest.json").write_text(json.dumps(good | change))
        with pytest.raises(VideoIndexError, match=said):
            take_over(folder, predictor)
        assert sorted(path.name for path in folder.iterdir() if not path.name.startswith(".")) == ["manifest.json"]


@pytest.fixture
def search_of_none(checkpoint: Path, tmp_path: Path) -> VideoSearch:
    return VideoSearch(checkpoint, index=tmp_path / "none")
