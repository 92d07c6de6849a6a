"""Approximate search: what it finds against exact search, its measured recall, what was added since, and damage."""

from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.__main__ import main
from clipbert_mm.errors import BackendError, OptionError, VideoIndexError
from clipbert_mm.index import EncodedVideo, Entry, Filter, VideoIndex

pytest.importorskip("faiss", reason="pip install 'clipbert_mm[faiss]'")

WIDTH, CLIPS = 32, 4
"""Numbers of a vector, and clips of a video."""


def videos(numbers: range, seed: int = 0) -> list[EncodedVideo]:
    """Videos around 20 topics, each with clips near one another."""
    rng = np.random.default_rng([numbers.start, seed])
    topics = np.random.default_rng(9).standard_normal((20, WIDTH))
    found = []
    for i in numbers:
        mean = topics[i % 20] + 0.7 * rng.standard_normal(WIDTH)
        clips = torch.from_numpy(mean + 0.4 * rng.standard_normal((CLIPS, WIDTH))).float()
        times = tuple((float(k), k + 1.0) for k in range(CLIPS))
        entry = Entry(f"/v/{i % 3}/{i:04}.mp4", 3, i * 10**9, float(i % 50), times, (24, 32))
        found.append(EncodedVideo(entry, torch.nn.functional.normalize(clips, dim=1)))
    return found


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> VideoIndex:
    """An index of 1,500 videos, and a cache of its own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    index = VideoIndex(tmp_path / "index")
    index.start("id", "a.pth", "a.pth", vector_size=WIDTH, keeps_tokens=False)
    index.add(videos(range(1500)))
    return index


def near(index: VideoIndex, numbers: range) -> torch.Tensor:
    """Queries near a clip of some videos."""
    noise = torch.randn(len(numbers), WIDTH, generator=torch.Generator().manual_seed(2))
    clips = torch.stack([index.vectors(f"/v/{i % 3}/{i:04}.mp4")[0] for i in numbers])
    return torch.nn.functional.normalize(clips + torch.nn.functional.normalize(noise, dim=1), dim=1)


def shares(index: VideoIndex, queries: torch.Tensor, **options) -> float:
    """The share of the nearest 20 videos that the approximate index finds; what it finds has the exact similarities."""
    approximate = index.nearest_of_each(queries, 20, **options)
    used, index.video_vectors.approximate = index.video_vectors.approximate, None
    exact = index.nearest_of_each(queries, 1000, **options)
    index.video_vectors.approximate = used
    found = []
    for one, other in zip(approximate, exact, strict=True):
        assert one.searched == other.searched
        assert list(one.similarities.values()) == sorted(one.similarities.values(), reverse=True)
        for path, similarity in one.similarities.items():
            if path in other.similarities:
                assert similarity == pytest.approx(other.similarities[path], abs=1e-6)
        best = set(list(other.similarities)[:20])
        found.append(len(best & one.similarities.keys()) / len(best))
    return float(np.mean(found))


def test_it_finds_as_much_as_it_says_and_what_was_added_since(index: VideoIndex):
    queries = near(index, range(0, 1500, 50))
    facts = index.build_approximate(recall=0.9)
    assert facts.rows == 6000
    assert facts.recall >= 0.9
    assert index.recall is None, "it is used on demand"
    index.use_approximate()
    assert index.recall == facts.recall
    assert index.video_vectors.approximate.facts == facts
    assert facts.probes < index.video_vectors.approximate.index.nlist, "not everything is compared"
    for pooling in ("max", "logsumexp", "mean"):
        assert shares(index, queries, pooling=pooling) >= 0.8
    few = Filter(folders=("/v/1",), min_seconds=49.0)
    assert shares(index, queries, pooling="max", where=few) == 1, "of all videos few meet this, so that it is exact"
    assert len(index.nearest(queries[0], 20, pooling="max", where=few).similarities) == index.count(few) == 10
    index.remove([each.entry.path for each in videos(range(100))])
    index.add(videos(range(1500, 1520)))
    index.add(videos(range(200, 210), seed=1))  # replaced
    now = near(index, range(1500, 1520))
    assert shares(index, now, pooling="max") >= 0.8
    assert shares(index, near(index, range(200, 210)), pooling="max") >= 0.8
    index.compact(always=True)
    assert index.recall is None, "it is of other rows: what is found is exact again"
    assert shares(index, now, pooling="max") == 1
    with pytest.raises(
        VideoIndexError, match=r"or one of vectors that were compacted since\. Build it: clipbert index --appr"
    ):
        index.use_approximate()


def test_a_recall_that_cannot_be_had_looks_into_everything(index: VideoIndex):
    facts = index.build_approximate(recall=1.0)
    index.use_approximate()
    lists = index.video_vectors.approximate.index.nlist
    assert facts.recall == 1 or facts.probes == lists
    for recall in (0, 1.1, "x"):
        with pytest.raises(OptionError, match="recall is a share, above 0 and at most 1"):
            index.build_approximate(recall)


def test_what_cannot_be_used_is_said(index: VideoIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(VideoIndexError, match="has no approximate index on this machine"):
        index.use_approximate()
    index.build_approximate()
    (file,) = (tmp_path / "cache").rglob("*.faiss")
    assert not list(index.folder.rglob("*.faiss")), "an index that is given on has none"
    content = file.read_bytes()
    file.write_bytes(content[:1000])
    with pytest.raises(VideoIndexError, match=r"faiss is damaged: .* Build it: clipbert index --approximate"):
        index.use_approximate()
    file.write_bytes(content)
    facts = file.with_suffix(".json")
    for wrong in ('{"rows": 5, "probes": 1, "recall": 1}', "{}", "[", '{"rows": 6000, "probes": 0, "recall": 1}'):
        facts.write_text(wrong)
        with pytest.raises(VideoIndexError, match="is damaged"):
            index.use_approximate()
    empty = VideoIndex(tmp_path / "empty")
    for each in (empty.build_approximate, empty.use_approximate):
        with pytest.raises(VideoIndexError, match="has no vectors"):
            each()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(BackendError, match=r"needs faiss, which is not installed: pip install 'clipbert_mm\[faiss\]'"):
        index.build_approximate()


def test_the_command_builds_it(index: VideoIndex, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(SystemExit) as left:
        main(["index", "--approximate", "--index", str(index.folder), "--recall", "0.8"])
    assert not left.value.code
    assert capsys.readouterr().out.startswith("6,000 vectors; a search found ")
    index.use_approximate()
    assert index.recall >= 0.8
