"""Vectors of an index: exact against brute force, kills, damage, compaction, other processes."""

import os
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch

from clipbert_mm.errors import OptionError, VideoIndexError
from clipbert_mm.index import EncodedVideo, Entry, Filter, VideoIndex, video_vectors
from clipbert_mm.index.vectors import TEMPERATURE, VECTOR_POOLINGS, pool_similarities, similarities

WIDTH = 8
POOLED = {
    "max": lambda own: own.max(),
    "mean": lambda own: own.mean(),
    "logsumexp": lambda own: TEMPERATURE * np.log(np.exp(own / TEMPERATURE).sum()),
    "query-weighted": lambda own: (own * np.exp(own / TEMPERATURE)).sum() / np.exp(own / TEMPERATURE).sum(),
}
"""What each pooling is, of the similarities of one video."""


def video(number: int, clips: int, seed: int = 0) -> EncodedVideo:
    """A video of so many clips with unit vectors of its own."""
    rng = np.random.default_rng([number, seed])
    vectors = rng.standard_normal((clips, WIDTH)).astype(np.float32)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    times = tuple((float(k), k + 1.0) for k in range(clips))
    entry = Entry(f"/v/{number % 3}/{number:03}.mp4", 3, number * 10**9, float(clips), times, (24, 32))
    return EncodedVideo(entry, torch.from_numpy(vectors).float())


def new_index(folder: Path, videos: list[EncodedVideo]) -> VideoIndex:
    index = VideoIndex(folder)
    index.start("id", "a.pth", "a.pth", vector_size=WIDTH, keeps_tokens=False)
    for first in range(0, len(videos), 4):
        index.add(videos[first : first + 4])
    return index


def brute_force(videos: list[EncodedVideo], query: torch.Tensor, pooling: str) -> dict[str, float]:
    found = {each.entry.path: float(POOLED[pooling]((each.vectors @ query).numpy())) for each in videos}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


@pytest.fixture
def query() -> torch.Tensor:
    """A unit vector."""
    return torch.nn.functional.normalize(torch.randn(WIDTH, generator=torch.Generator().manual_seed(1)), dim=0)


@pytest.mark.parametrize("pooling", VECTOR_POOLINGS)
def test_the_nearest_videos_are_those_of_brute_force(tmp_path: Path, query: torch.Tensor, pooling: str):
    """With removed, replaced and changed videos between, before and after a compaction, and in another process."""
    videos = [video(i, 1 + i % 5) for i in range(40)]
    index = new_index(tmp_path / "index", videos)
    index.remove([each.entry.path for each in videos[5:9]])
    replaced = [video(i, 2 + i % 3, seed=1) for i in range(12, 20)]
    index.add(replaced)
    now = [*videos[:5], *videos[9:12], *replaced, *videos[20:]]
    for each in (index, VideoIndex(index.folder)):
        expected = brute_force(now, query, pooling)
        found = each.nearest(query, 10, pooling=pooling)
        assert list(found.similarities) == list(expected)[:10]
        assert list(found.similarities.values()) == pytest.approx(list(expected.values())[:10], abs=1e-6)
        assert (found.searched, found.left_out) == (36, {})
        index.compact(always=True)
    size = sum(len(each.vectors) for each in now) * WIDTH * 2
    assert [path.stat().st_size for path in index.folder.glob("vectors-*")] == [size]
    assert len(index.nearest(query, 100, pooling=pooling).similarities) == 36


def test_conditions_choose_the_videos(tmp_path: Path, query: torch.Tensor):
    videos = [video(i, 1 + i % 5) for i in range(30)]
    index = new_index(tmp_path / "index", videos)
    for where, meets in (
        (Filter(folders=("/v/1",)), lambda entry: entry.path.startswith("/v/1/")),
        (Filter(folders=("/v/1", "/v/2/002.mp4")), lambda entry: entry.path.startswith(("/v/1/", "/v/2/002"))),
        (Filter(folders=()), lambda entry: False),
        (Filter(min_seconds=2, max_seconds=4), lambda entry: 2 <= entry.seconds <= 4),
        (Filter(written_after=7, written_before=20.5), lambda entry: 7e9 <= entry.mtime_ns <= 20.5e9),
        (
            Filter(folders=("/v/0",), max_seconds=3, written_after=5),
            lambda entry: entry.path.startswith("/v/0/") and entry.seconds <= 3 and entry.mtime_ns >= 5e9,
        ),
    ):
        expected = brute_force([each for each in videos if meets(each.entry)], query, "max")
        found = index.nearest(query, 100, pooling="max", where=where)
        assert list(found.similarities) == list(expected)
        assert index.count(where) == found.searched == len(expected)
        assert {entry.path for entry in index.listed(where)} == set(expected)
    for bad in (dict(min_seconds=3, max_seconds=2), dict(written_after="x"), dict(min_seconds=float("nan"))):
        with pytest.raises(OptionError, match="are two numbers in this order, or None"):
            Filter(**bad)


def test_equal_videos_come_in_the_order_of_their_adding(tmp_path: Path, query: torch.Tensor):
    same = torch.nn.functional.normalize(torch.ones(1, WIDTH), dim=1)
    entries = [Entry(f"/v/{name}.mp4", 3, 5, 1.0, ((0.0, 1.0),), (24, 32)) for name in "dbca"]
    index = new_index(tmp_path / "index", [EncodedVideo(entry, same) for entry in entries])
    assert [path[3] for path in index.nearest(query, 3, pooling="max").similarities] == ["d", "b", "c"]


def test_entries_are_listed_by_pages(tmp_path: Path):
    videos = [video(i, 1) for i in range(1003)]
    index = VideoIndex(tmp_path / "index")
    index.start("id", "a.pth", "a.pth", vector_size=WIDTH, keeps_tokens=False)
    index.add(videos)
    paths = sorted(each.entry.path for each in videos)
    assert list(index.entries) == [entry.path for _, entry in index.entries.items()] == paths
    assert [entry.path for entry in index.listed(first=990, most=7)] == paths[990:997]
    assert [entry.path for entry in index.listed(first=3, most=900)] == paths[3:903]
    assert [entry.path for entry in index.listed(Filter(folders=("/v/1",)), first=300)] == paths[335 + 300 : 669]
    assert index.by_key(videos[7].entry.key) == videos[7].entry == index.entries[videos[7].entry.path]
    assert index.by_key("0" * 32) is None
    assert list(index.found([paths[3], "/none", paths[1]])) == [paths[3], paths[1]]


def test_damaged_vectors_are_left_out_named_and_indexed_again(tmp_path: Path, query: torch.Tensor):
    videos = [video(i, 2) for i in range(10)]
    index = new_index(tmp_path / "index", videos)
    file = index.folder / "vectors-0.f16"
    content = bytearray(file.read_bytes())
    content[3 * 2 * WIDTH * 2 + 5] ^= 1
    file.write_bytes(content[: 9 * 2 * WIDTH * 2 - 1])  # a flipped bit in the fourth video, and the last two are cut
    damaged = VideoIndex(index.folder)
    lost = {videos[i].entry.path for i in (3, 8, 9)}
    found = damaged.nearest(query, 10, pooling="max")
    assert set(found.left_out) == lost
    assert set(found.left_out.values()) == {"its vectors are missing or damaged; index it again"}
    expected = brute_force([each for each in videos if each.entry.path not in lost], query, "max")
    assert found.similarities == pytest.approx(expected, abs=1e-6)
    with pytest.raises(VideoIndexError, match="its vectors are missing or damaged"):
        damaged.vectors(videos[3].entry.path)
    damaged.compact(always=True)
    assert set(damaged.nearest(query, 10, pooling="max").left_out) == lost
    damaged.add([each for each in videos if each.entry.path in lost])
    assert damaged.nearest(query, 10, pooling="max").similarities == pytest.approx(
        brute_force(videos, query, "max"), abs=1e-6
    )
    (damaged.folder / damaged.manifest["vectors"]).unlink()
    gone = VideoIndex(index.folder)
    assert len(gone.nearest(query, 10, pooling="max").left_out) == 10
    gone.add(videos)
    assert len(VideoIndex(index.folder).nearest(query, 10, pooling="max").similarities) == 10


def test_vectors_that_are_not_finite_are_left_out(tmp_path: Path, query: torch.Tensor):
    videos = [video(i, 2) for i in range(4)]
    videos[2].vectors[1, 3] = float("nan")
    found = new_index(tmp_path / "index", videos).nearest(query, 10, pooling="max")
    assert found.left_out == {videos[2].entry.path: "its vectors are not finite; index it again"}
    assert len(found.similarities) == found.searched == 3


def test_a_reader_sees_each_change_and_keeps_what_it_read(tmp_path: Path, query: torch.Tensor):
    videos = [video(i, 3) for i in range(20)]
    index = new_index(tmp_path / "index", videos[:10])
    reader = VideoIndex(index.folder)
    assert reader.nearest(query, 99, pooling="max").similarities == pytest.approx(
        brute_force(videos[:10], query, "max"), abs=1e-6
    )
    rows = reader.video_vectors._current().rows
    before = rows.copy()
    index.remove([each.entry.path for each in videos[5:10]])
    index.add(videos[10:15])  # not in the place of the removed ones, which the reader may be looking at
    index.compact(always=True)
    index.add(videos[15:])
    assert np.array_equal(rows, before)
    now = [*videos[:5], *videos[10:]]
    assert reader.nearest(query, 99, pooling="max").similarities == pytest.approx(
        brute_force(now, query, "max"), abs=1e-6
    )


def test_what_an_index_cannot_take_is_refused(tmp_path: Path, query: torch.Tensor):
    index = new_index(tmp_path / "index", [video(0, 2)])
    for vectors in (None, torch.ones(2, WIDTH + 1), torch.ones(0, WIDTH), torch.ones(WIDTH)):
        with pytest.raises(VideoIndexError, match=f"expected vectors of {WIDTH} numbers, one a clip, got"):
            index.add([EncodedVideo(video(1, 2).entry, vectors)])
    assert len(index.entries) == 1, "nothing of it was added"
    with pytest.raises(VideoIndexError, match=r"have 8 numbers, and the query has \(9,\)"):
        index.nearest(torch.ones(9), 3, pooling="max")
    with pytest.raises(OptionError, match="one of max, mean, logsumexp, query-weighted, got 'sum'"):
        index.nearest(query, 3, pooling="sum")


def test_pooling_leaves_out_rows_of_no_video():
    scores = np.array([9, 1, 2, 9, 9, 3, 9], np.float32)
    pooled = pool_similarities(scores, np.array([1, 5]), np.array([2, 1]), "mean")
    assert pooled.tolist() == [1.5, 3.0]
    assert pool_similarities(scores[:6], np.array([1, 5]), np.array([2, 1]), "max").tolist() == [2.0, 3.0]
    assert pool_similarities(scores, np.zeros(0, int), np.zeros(0, int), "max").shape == (0,)


def test_similarities_are_computed_in_blocks():
    rows = np.random.default_rng(0).standard_normal((5000, 16)).astype(np.float16)
    queries = torch.randn(3, 16)
    expected = queries.double().numpy() @ rows.astype(np.float64).T
    assert np.allclose(similarities(rows, queries), expected, atol=1e-4)


def test_many_queries_find_what_each_finds_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    index = new_index(tmp_path / "index", [video(i, 1 + i % 5) for i in range(40)])
    passes, compare = [], video_vectors.similarities
    monkeypatch.setattr(
        video_vectors, "similarities", lambda rows, queries: passes.append(len(queries)) or compare(rows, queries)
    )
    queries = torch.nn.functional.normalize(torch.randn(70, WIDTH), dim=1)
    found = index.nearest_of_each(queries, 5, pooling="max")
    assert passes == [32, 32, 6], "a pass for so many"
    for query, each in zip(queries, found, strict=True):
        alone = index.nearest(query, 5, pooling="max")
        assert list(each.similarities) == list(alone.similarities)
        assert each.similarities == pytest.approx(alone.similarities, abs=1e-5)


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_vectors import new_index, video
from clipbert_mm.index import VideoIndex
index = VideoIndex(sys.argv[1])
index.start("id", "a.pth", "a.pth", vector_size=8, keeps_tokens=False)
known = set(index.entries)
print("ready", flush=True)
for i in range(300):
    each = video(i, 1 + i % 3)
    if each.entry.path not in known:
        index.add([each])
    if i % 50 == 49:
        index.compact(always=True)
print("done", flush=True)
"""


def test_an_index_killed_again_and_again_becomes_that_of_an_unkilled_one(tmp_path: Path, query: torch.Tensor):
    rng, kills, done = np.random.default_rng(0), 0, False
    while not done:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(tmp_path / "index"), os.path.dirname(__file__)],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        try:
            process.wait(timeout=float(rng.uniform(0.02, 0.4)) if kills < 3 else 60)
            done = process.stdout.read() == "done\n"
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            kills += 1
        process.stdout.close()
        index = VideoIndex(tmp_path / "index")
        assert index.video_vectors.damaged() == [], "what was recorded is whole after every kill"
    assert kills == 3
    videos = [video(i, 1 + i % 3) for i in range(300)]
    assert dict(index.entries) == {each.entry.path: each.entry for each in videos}
    found = index.nearest(query, 300, pooling="max").similarities
    assert found == pytest.approx(brute_force(videos, query, "max"), abs=1e-6)
    rows = index.table.video_rows()
    by_id = {number: entry.path for number, entry in index.table.find("id", rows.ids.tolist()).items()}
    checksums = dict(zip((by_id[number] for number in rows.ids.tolist()), rows.checksums.tolist(), strict=True))
    assert checksums == {each.entry.path: zlib.crc32(each.vectors.half().numpy().data) for each in videos}
