"""Similar videos and duplicates: against brute force, among videos that really are copies, and by the command."""

import itertools
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from PIL import Image
from torch.nn.functional import normalize

from clipbert_mm.apis import Filter, VideoIndexError, VideoSearch
from clipbert_mm.apis.duplicates import duplicates, near_groups
from clipbert_mm.apis.opening import steps_for_images
from clipbert_mm.apis.similar import similar
from clipbert_mm.errors import BrokenMediaError, OptionError
from clipbert_mm.index import EncodedVideo, Entry, VideoIndex

WIDTH = 8


@pytest.fixture
def videos(world: Path, tmp_path: Path) -> Path:
    """Seven videos, and a copy of one of them."""
    folder = tmp_path / "videos"
    folder.mkdir()
    for path in sorted((world / "videos").glob("test_*.mp4")):
        shutil.copy(path, folder)
    shutil.copy(folder / "test_00002.mp4", folder / "copy.mp4")
    return folder


@pytest.fixture
def search(
    joined_config: dict, runner_config: Config, write_checkpoint: Callable, videos: Path, tmp_path: Path
) -> VideoSearch:
    runner_config.model = joined_config
    search = VideoSearch(write_checkpoint(), index=tmp_path / "joined")
    search.index(videos, workers=0)
    return search


def test_similar_videos_are_those_of_brute_force(search: VideoSearch, videos: Path, tmp_path: Path):
    index, own = search.video_index, str(videos / "test_00002.mp4")
    means = {path: normalize(index.vectors(path).mean(0), dim=0) for path in index.entries}
    expected = sorted(set(means) - {own}, key=lambda path: -float(means[path] @ means[own]))
    result = search.similar(own, topk=3)
    assert result.hits[0].path == str(videos / "copy.mp4")
    assert [hit.path for hit in result.hits] == expected[:3]
    assert [hit.score for hit in result.hits] == pytest.approx(
        [float(means[path] @ means[own]) for path in expected[:3]], abs=1e-4
    )
    assert result.hits[0].score == pytest.approx(1, abs=1e-5)
    for hit in result.hits:
        assert [m.score for m in hit.moments] == pytest.approx(
            (index.vectors(hit.path) @ means[own]).tolist(), abs=1e-4
        )
    assert f"similar to {own} in 8 videos" in str(result)
    where = Filter(folders=(expected[4], expected[5]))
    assert {hit.path for hit in search.similar(own, where=where).hits} == {expected[4], expected[5]}
    elsewhere = shutil.copy(own, tmp_path / "elsewhere.mp4")
    outside = search.similar(elsewhere, topk=2)
    assert {hit.path for hit in outside.hits} == {own, str(videos / "copy.mp4")}
    assert outside.hits[0].score == pytest.approx(1, abs=1e-3), "the index stores half precision"
    with pytest.raises(BrokenMediaError, match="a still image, no video"):
        search.similar(image(tmp_path))
    search.predictor.image_steps = steps_for_images(search.predictor.media_steps)  # as a public model has them
    assert len(search.similar(image(tmp_path)).hits) == 8


def image(folder: Path) -> Path:
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(folder / "black.png")
    return folder / "black.png"


def test_copies_and_near_duplicates(search: VideoSearch, videos: Path):
    own, copy = str(videos / "test_00002.mp4"), str(videos / "copy.mp4")
    report = search.duplicates(0.999999)
    assert [[each.path for each in group] for group in report.copies] == [[copy, own]]
    assert (report.searched, report.near, report.without_vectors) == (8, (), 0)
    assert json.loads(json.dumps(report.to_dict()))["copies"][0][1]["similarity"] == 1
    index = search.video_index
    means = {path: normalize(index.vectors(path).mean(0), dim=0) for path in index.entries if path != own}
    pairs = {pair: float(means[pair[0]] @ means[pair[1]]) for pair in itertools.combinations(means, 2)}
    largest = max(pairs, key=pairs.get)
    (near,) = search.duplicates(pairs[largest] - 1e-6).near
    assert {each.path for each in near} == set(largest)
    assert near[0].size >= near[1].size
    assert near[1].similarity == pytest.approx(pairs[largest], abs=1e-5)
    assert "1 groups of copies, 1 of near duplicates" in str(search.duplicates(pairs[largest] - 1e-6))
    assert not search.duplicates(0.999999, where=Filter(folders=(own,))).copies


@pytest.mark.parametrize("tile", [2048, 7])
def test_groups_are_those_of_a_search_through_all_links(tile: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("clipbert_mm.apis.duplicates.TILE", tile)
    rng = torch.Generator().manual_seed(0)
    for threshold in (0.99, 0.9, 0.7, 0.3):
        vectors = normalize(torch.randn(60, 3, generator=rng), dim=1)
        close = vectors @ vectors.T >= threshold
        groups, left = [], set(range(60))
        while left:
            group, todo = set(), {min(left)}
            while todo:
                i = todo.pop()
                group.add(i)
                todo |= set(close[i].nonzero()[:, 0].tolist()) - group
            left -= group
            groups += [sorted(group)] if len(group) > 1 else []
        assert near_groups(vectors, threshold) == groups
    assert near_groups(torch.ones(50, 1), 0.5) == [list(range(50))]
    assert near_groups(torch.zeros(0, 3), 0.5) == []


def generated(folder: Path, vectors: dict[str, torch.Tensor | None]) -> VideoIndex:
    index = VideoIndex(folder)
    index.start("id", "a.pth", "a.pth", vector_size=WIDTH, keeps_tokens=False)
    entries = {
        name: Entry(f"/v/{name}", 5, 1, 2.0, ((0.0, 1.0),) * len(each), (8, 8)) for name, each in vectors.items()
    }
    index.add([EncodedVideo(entries[name], each) for name, each in vectors.items()])
    return index


def test_removed_damaged_and_odd_vectors_are_left_out(tmp_path: Path):
    one, other = torch.eye(WIDTH)[:1], torch.eye(WIDTH)[1:2]
    index = generated(
        tmp_path / "index",
        dict(a=one, gone=one, b=one.repeat(3, 1), c=other, zero=torch.cat([one, -one]), nan=one * torch.nan),
    )
    index.remove(["/v/gone"])
    report = duplicates(index)
    assert [[each.path for each in group] for group in report.near] == [["/v/a", "/v/b"]]
    assert (report.searched, report.without_vectors) == (5, 2)
    nearest = index.nearest_means(one[0], 9)
    assert nearest.similarities == {"/v/a": 1.0, "/v/b": 1.0, "/v/c": 0.0}
    assert set(nearest.left_out) == {"/v/zero", "/v/nan"}
    with pytest.raises(VideoIndexError, match="have 8 numbers, and the query has"):
        index.nearest_means(torch.ones(9), 9)


def test_what_cannot_be_compared(search: VideoSearch, checkpoint: Path, tmp_path: Path):
    with pytest.raises(BrokenMediaError, match="there is no such file"):
        search.similar(tmp_path / "gone.mp4")
    for wrong in (0, 1.5, "x", True, float("nan")):
        with pytest.raises(OptionError, match="The threshold is a cosine similarity"):
            search.duplicates(wrong)
    with pytest.raises(OptionError, match="similar expects topk >= 1"):
        search.similar("a.mp4", topk=0)
    for ask in (lambda s: s.similar("a.mp4"), lambda s: s.duplicates()):
        with pytest.raises(VideoIndexError, match=r"is empty\. Index videos first"):
            ask(VideoSearch(checkpoint, index=tmp_path / "none"))
    plain = VideoIndex(tmp_path / "plain")
    plain.start("id", "a.pth", "a.pth")
    plain.add([EncodedVideo(Entry("/v/a", 5, 1, 2.0, None, (8, 8)))])
    with pytest.raises(OptionError, match="has no vectors, which similar videos are found by"):
        similar(plain, "/v/a")
    assert duplicates(plain).without_vectors == 1
    search.video_index.gives_all_vectors = False
    with pytest.raises(OptionError, match="Use an index in a folder"):
        search.duplicates()


def test_the_command(
    run_command: Callable, search: VideoSearch, videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    index = ("--index", search.video_index.folder)
    elsewhere = shutil.copy(videos / "test_00002.mp4", tmp_path / "elsewhere.mp4")
    code, out, err = run_command("similar", elsewhere, *index, "--json", "--topk", 2)
    assert code == 0, err
    assert {os.path.basename(hit["path"]) for hit in json.loads(out)["hits"]} == {"test_00002.mp4", "copy.mp4"}
    monkeypatch.setattr("clipbert_mm.command_search.open_search", lambda args: pytest.fail("it needs no model"))
    code, out, _ = run_command("similar", videos / "test_00002.mp4", *index, "--csv", "--topk", 1)
    assert out.splitlines()[1].startswith(f"{videos}/test_00002.mp4,1,{videos}/copy.mp4,")
    code, out, _ = run_command("duplicates", *index, "--threshold", "1", "--in", videos)
    assert (code, "8 videos: 1 groups of copies" in out) == (0, True)
    code, _, err = run_command("duplicates", "--index", tmp_path / "none")
    assert (code, "is empty" in err) == (1, True)
