"""Indexes in an engine: in memory, and with the real client of LanceDB in a folder and in an S3 server, where installed."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from memory_engine import MemoryEngine
from public_models import write_clip

from clipbert_mm.apis import VideoSearch
from clipbert_mm.errors import BackendError, OptionError, VideoIndexError
from clipbert_mm.index import EncodedVideo, Entry, Filter, Unreadable, VideoIndex
from clipbert_mm.index.engines import RemoteIndex, is_url, open_index, remote_index
from clipbert_mm.index.vectors import VECTOR_POOLINGS, pool_similarities

WIDTH = 8
NO_LANCE = "lancedb is not installed: pip install 'clipbert_mm[lancedb]'"


def video(number: int, clips: int = 3, seed: int = 0) -> EncodedVideo:
    """A video of so many clips, whose path is no UTF-8 and has a quote and a question mark."""
    generator = torch.Generator().manual_seed(1000 * seed + number)
    vectors = torch.nn.functional.normalize(torch.randn(clips, WIDTH, generator=generator), dim=-1)
    times = tuple((float(k), k + 1.0) for k in range(clips))
    path = f"/v/{number % 3}/it's {number:03}?\udce9.mp4"
    return EncodedVideo(Entry(path, 3, number * 10**9, float(number), times, (24, 32)), vectors)


def ranked(videos: list[EncodedVideo], query: torch.Tensor, pooling: str) -> dict[str, float]:
    """Pooled similarities of all videos, the largest first."""
    found = {}
    for each in videos:
        assert each.vectors is not None
        own = (each.vectors.half().float() @ query).numpy()
        found[each.entry.path] = float(pool_similarities(own, np.array([0]), np.array([len(own)]), pooling)[0])
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


@pytest.fixture(scope="module")
def s3_server() -> Iterator[str]:
    """The address of an S3 server."""
    pytest.importorskip("lancedb", reason=NO_LANCE)
    server = pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
    running = server.ThreadedMotoServer(port=0, verbose=False)
    running.start()
    yield "http://{}:{}".format(*running.get_host_and_port())
    running.stop()


@pytest.fixture
def s3(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """An S3 server with a bucket of this test, by the environment."""
    address = request.getfixturevalue("s3_server")
    keys = dict(
        AWS_ACCESS_KEY_ID="k", AWS_SECRET_ACCESS_KEY="s", AWS_REGION="us-east-1", AWS_DEFAULT_REGION="us-east-1"
    )
    for name, value in {**keys, "AWS_ENDPOINT": address}.items():
        monkeypatch.setenv(name, value)
    import boto3

    bucket = f"b{abs(hash(request.node.name))}"
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket=bucket)
    return f"lancedb+s3://{bucket}/videos"


@pytest.fixture(params=["memory", "folder", "s3"])
def opened(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[], RemoteIndex]]:
    """Opens one and the same index, as another machine does."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    if request.param == "memory":
        yield lambda: RemoteIndex(MemoryEngine("memory://a"))
        MemoryEngine.stores.clear()
        return
    pytest.importorskip("lancedb", reason=NO_LANCE)
    url = f"lancedb+file://{tmp_path}/lance" if request.param == "folder" else request.getfixturevalue("s3")
    yield lambda: open_index(url)  # type: ignore[misc, return-value]


def started(index: RemoteIndex) -> RemoteIndex:
    index.start("id", "a.pth", "a.pth", vector_size=WIDTH)
    return index


def test_the_nearest_videos_are_those_of_brute_force(opened: Callable[[], RemoteIndex]):
    """With replaced and removed videos, for another machine, before and after parts are merged."""
    videos, query = [video(i, 1 + i % 4) for i in range(40)], video(99).vectors[0]
    index = started(opened())
    assert index.nearest(query, 5, pooling="max").similarities == {}
    for first in range(0, 40, 10):
        index.add(videos[first : first + 10])
    videos[7] = replace(video(7, 2, seed=1), entry=videos[7].entry)
    index.add([videos[7]])
    index.remove([videos[3].entry.path, "/no/video"])
    del videos[3]
    other = opened()
    for pooling in VECTOR_POOLINGS:
        expected = ranked(videos, query, pooling)
        nearest = other.nearest(query, 5, pooling=pooling)
        assert list(nearest.similarities) == list(expected)[:5]
        assert list(nearest.similarities.values()) == pytest.approx(list(expected.values())[:5], abs=1e-6)
        assert (nearest.searched, nearest.left_out) == (39, {})
    means = {each.entry.path: torch.nn.functional.normalize(each.vectors.mean(0), dim=0) for each in videos}
    expected = sorted(means, key=lambda path: -float(means[path] @ query))[:3]
    nearest = other.nearest_means(query, 3)
    assert list(nearest.similarities) == expected
    assert list(nearest.similarities.values()) == pytest.approx(
        [float(means[path] @ query) for path in expected], abs=1e-3
    )
    index.compact(always=True)
    assert len(other.nearest(query, 100, pooling="max").similarities) == other.count() == 39, "more than there are"
    assert other.vectors(videos[0].entry.path).numpy() == pytest.approx(videos[0].vectors.half().float().numpy())
    with pytest.raises(VideoIndexError, match="have 8 numbers, and the query has \\(4,\\)"):
        other.nearest(query[:4], 5, pooling="max")
    with pytest.raises(OptionError, match="pooled by one of max, mean"):
        other.nearest(query, 5, pooling="median")
    with pytest.raises(VideoIndexError, match="/no/video is not in the index"):
        other.vectors("/no/video")


def test_records_are_listed_filtered_and_found(opened: Callable[[], RemoteIndex], monkeypatch: pytest.MonkeyPatch):
    index = started(opened())
    videos = [video(i) for i in range(12)]
    index.add(videos)
    monkeypatch.setattr(remote_index, "LISTED_AT_ONCE", 5)
    monkeypatch.setattr(remote_index, "ROWS_AT_ONCE", 5)
    entries = sorted((each.entry for each in videos), key=lambda entry: os.fsencode(entry.path))
    other = opened()
    assert list(other.listed()) == entries == [entry for _, entry in other.entries.items()]
    assert list(other.entries) == [entry.path for entry in entries]
    assert list(other.listed(first=3, most=7)) == entries[3:10]
    where = Filter(folders=("/v/1",), min_seconds=2, written_before=9)
    met = [each for each in entries if each.path.startswith("/v/1/") and 2 <= each.seconds <= 9]
    assert (list(other.listed(where)), other.count(where)) == (met, len(met))
    assert other.nearest(videos[0].vectors[0], 9, pooling="max", where=where).similarities.keys() == {
        entry.path for entry in met
    }
    assert other.count(Filter(folders=())) == 0
    assert other.count(Filter(folders=("/v/it",))) == 0, "a part of a name is no folder"
    paths = [entry.path for entry in entries]
    assert list(other.found([*paths[::-1], "/none"])) == paths[::-1]
    monkeypatch.setattr(remote_index, "LISTED_AT_ONCE", 50)
    assert list(other.found([*paths[::-1], "/none"])) == paths[::-1], "some at a time"
    assert list(other.found(paths[:2])) == paths[:2]
    assert other.by_key(entries[4].key) == entries[4]
    assert other.by_key("0" * 32) is None
    assert other.states([paths[0], "/none"]) == {paths[0]: False}, "its file is gone"
    with pytest.raises(KeyError):
        other.entries["/none"]


def test_unreadable_files_take_the_place_of_videos_and_back(opened: Callable[[], RemoteIndex]):
    index = started(opened())
    index.add([video(0), video(1)])
    path = video(0).entry.path
    index.note_unreadable([Unreadable(path, 1, 2, "it's broken")])
    assert (index.count(), opened().unreadable[path].reason) == (1, "it's broken")
    assert index.paths_below("/v") == [video(1).entry.path, path]
    index.add([video(0)])
    assert (index.count(), index.unreadable) == (2, {})


def test_files_that_cannot_be_read_do_not_write_the_videos_that_wait():
    engine = MemoryEngine("memory://unreadable")
    index = started(RemoteIndex(engine))
    videos = [video(i) for i in range(12)]
    with index.locked():
        for number, each in enumerate(videos):
            index.add([each])
            index.note_unreadable([Unreadable(f"/v/{number}.mp4", 1, 1, "it is cut")])
        index.note_unreadable([Unreadable(videos[4].entry.path, 1, 1, "it is cut")])  # one that waits
        index.remove([videos[5].entry.path, "/v/3.mp4"])
        index.add([videos[6]])
        assert engine.writes == []
    assert engine.writes == [10]
    kept = {each.entry.path: each.entry for number, each in enumerate(videos) if number not in (4, 5)}
    assert dict(index.entries) == kept
    assert set(index.unreadable) == {*(f"/v/{i}.mp4" for i in range(12) if i != 3), videos[4].entry.path}


def test_what_waits_is_written_at_the_end_however_it_ends(monkeypatch: pytest.MonkeyPatch):
    engine = MemoryEngine("memory://waits")
    index = started(RemoteIndex(engine))

    def interrupted() -> None:
        with index.locked():
            for i in range(5):
                index.add([video(i)])
            assert engine.writes == []
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert engine.writes == [5]
    monkeypatch.setattr(remote_index, "WRITTEN_AT_ONCE", 2)
    with index.locked():
        for i in range(5, 10):
            index.add([video(i)])
    index.add([video(10)])
    assert engine.writes == [5, 2, 2, 1, 1]
    assert index.count() == 11


def test_other_poolings_ask_for_more_until_none_can_be_nearer():
    """Ten videos with one clip at 0.9 come before the one with sixteen at 0.8, which is the first by log-sum-exp."""
    query = torch.nn.functional.one_hot(torch.tensor(0), WIDTH).float()

    def at(cosine: float, clips: int, number: int) -> EncodedVideo:
        vector = torch.zeros(WIDTH)
        vector[0], vector[1 + number % 7] = cosine, (1 - cosine**2) ** 0.5
        return replace(video(number, clips), vectors=vector.repeat(clips, 1))

    videos = [*(at(0.9, 1, i) for i in range(40)), at(0.8, 16, 40), *(at(0.1, 1, i) for i in range(41, 400))]
    engine = MemoryEngine("memory://wide")
    index = started(RemoteIndex(engine))
    index.add(videos)
    assert list(index.nearest(query, 1, pooling="logsumexp").similarities) == [videos[40].entry.path]
    assert engine.asked == [17, 68]
    with_clips_that_are_far = replace(video(500), vectors=torch.stack([query, -query, -query]))
    index.add([with_clips_that_are_far])
    assert list(index.nearest(query, 1, pooling="max").similarities) == [with_clips_that_are_far.entry.path]
    assert with_clips_that_are_far.entry.path not in index.nearest(query, 30, pooling="mean").similarities


def test_an_index_of_another_model_or_a_newer_format_is_refused(opened: Callable[[], RemoteIndex]):
    index = opened()
    with pytest.raises(OptionError, match="keeps vectors and no visual tokens, expected a model with vectors"):
        index.start("id", "a.pth", "a.pth", vector_size=None, keeps_tokens=True)
    assert not index.exists
    assert (index.count(), list(index.listed()), index.unreadable, index.found(["/a"])) == (0, [], {}, {})
    started(index).note_folders(["/v", "/w"])
    opened().note_folders(["/w", "/x"])
    assert index.folders == ["/v", "/w", "/x"]
    with pytest.raises(VideoIndexError, match=r"was made by .*a.pth \(digest id\), not by b.pth \(digest other\)"):
        opened().start("other", "b.pth", "b.pth", vector_size=WIDTH)
    with pytest.raises(VideoIndexError, match="keeps no visual tokens"):
        index.tokens("/a")
    index.engine.set_facts(dict(format=9, version="7.0"))
    with pytest.raises(VideoIndexError, match=r"has format 9, made by a newer release .*7.0.*update clipbert_mm"):
        opened()
    index.engine.set_facts(dict(format=1, vector_size="many"))
    with pytest.raises(VideoIndexError, match=r"is damaged or not one of clipbert: TypeError: vector_size is .many."):
        opened()


def test_damaged_records_and_vectors_are_left_out(opened: Callable[[], RemoteIndex]):
    index = started(opened())
    broken = replace(video(1), vectors=video(1).vectors * float("nan"))
    index.add([video(0), broken, video(2)])
    stored = remote_index.StoredVideo(b"/v/x.mp4", "0" * 32, "{", 1.0, 1, np.ones((1, WIDTH), np.float16))
    index.engine.put([stored])
    nearest = index.nearest(video(0).vectors[0], 9, pooling="max")
    assert nearest.similarities.keys() == {video(0).entry.path, video(2).entry.path}
    assert broken.entry.path not in nearest.left_out or "not finite" in nearest.left_out[broken.entry.path]
    assert [entry.path for entry in index.listed()] == sorted(video(i).entry.path for i in range(3))


ADD = """
import sys
import torch
from clipbert_mm.index import EncodedVideo, Entry
from clipbert_mm.index.engines import open_index
index = open_index(sys.argv[1])
index.start("id", "a.pth", "a.pth", vector_size=8)
for i in range(4):
    index.add([EncodedVideo(Entry(f"/{sys.argv[2]}/{i}.mp4", 1, 1, 1.0, None, (1, 1)), torch.eye(8)[i : i + 1])])
"""


@pytest.mark.parametrize("where", ["folder", "s3"])
def test_several_machines_add_at_the_same_time(where: str, request: pytest.FixtureRequest, tmp_path: Path):
    pytest.importorskip("lancedb", reason=NO_LANCE)
    url = f"lancedb+file://{tmp_path}/lance" if where == "folder" else request.getfixturevalue("s3")
    running = [subprocess.Popen([sys.executable, "-c", ADD, url, str(i)]) for i in range(2)]
    assert [each.wait(300) for each in running] == [0, 0]
    assert [entry.path for entry in open_index(url).listed()] == [f"/{i}/{k}.mp4" for i in range(2) for k in range(4)]


def test_an_index_that_another_machine_is_creating_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The table of facts is there and not to be opened yet; then it is the other machine's."""
    pytest.importorskip("lancedb", reason=NO_LANCE)
    from clipbert_mm.index.engines import lance_engine

    url = f"lancedb+file://{tmp_path}/lance"
    index = open_index(url)
    (tmp_path / "lance" / "records.lance" / "data").mkdir(parents=True)
    assert not index.exists
    waited = []

    def other_ends(seconds: float) -> None:
        waited.append(seconds)
        shutil.rmtree(tmp_path / "lance")
        lance_engine.LanceEngine(url).create(dict(facts, source="other"), WIDTH)

    facts = dict(format=1, version="1", identity="id", source="a", weights="a", vector_size=WIDTH, most_clips=1)
    monkeypatch.setattr(lance_engine.time, "sleep", other_ends)
    create, calls = type(index.engine.database).create_table, []

    def slow(self: object, *given: object, **options: object) -> object:
        calls.append(given[0])
        if len(calls) == 1:
            raise RuntimeError("Commit conflict for version 1")
        return create(self, *given, **options)

    monkeypatch.setattr(type(index.engine.database), "create_table", slow)
    index.start("id", "a", "a", vector_size=WIDTH)
    assert (waited, index.manifest["source"]) == ([1], "other")


def test_a_search_finds_what_it_finds_in_a_folder(world: Path, tmp_path: Path, opened: Callable[[], RemoteIndex]):
    write_clip(tmp_path / "clip")
    folder = tmp_path / "videos"
    shutil.copytree(world / "videos", folder, ignore=lambda _, names: [each for each in names if "test" not in each])
    (folder / "broken.mp4").write_bytes(b"no video")
    local = VideoSearch(tmp_path / "clip", "cpu", index=tmp_path / "local")
    remote = VideoSearch(tmp_path / "clip", "cpu", index=tmp_path / "none")
    remote.video_index, remote._stages = opened(), None
    reports = [search.index(folder, workers=0) for search in (local, remote)]
    assert reports[0] == reports[1]
    assert len(reports[1].added) == 7
    again = remote.index(folder, workers=0)
    assert (len(again.unchanged), len(again.not_tried), again.added) == (7, 1, ())
    results = [search.search("a red circle", topk=3, shortlist=4) for search in (local, remote)]
    assert [hit.path for hit in results[0].hits] == [hit.path for hit in results[1].hits]
    assert [hit.score for hit in results[0].hits] == pytest.approx([hit.score for hit in results[1].hits], abs=1e-5)
    assert remote.remove(folder / "broken.mp4") == [str(folder / "broken.mp4")]
    (folder / os.path.basename(reports[0].added[0])).unlink()
    assert remote.index(folder, workers=0, prune=True).removed == (reports[0].added[0],)
    assert remote.video_index.count() == 6


def test_urls_that_name_no_engine_are_refused(tmp_path: Path):
    assert isinstance(open_index(tmp_path / "a"), VideoIndex)
    assert not is_url(tmp_path)
    for url in ("s3://bucket/a", "lancedb+ftp://a", "lancedb+s3://"):
        with pytest.raises(OptionError, match=r"expects a folder or a URL of lancedb\+file://.*, got "):
            open_index(url)


def test_a_missing_client_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        BackendError, match=r"The index lancedb.* needs lancedb, .*: pip install 'clipbert_mm\[lancedb\]'"
    ):
        open_index("lancedb+s3://bucket/a")


def test_a_store_that_is_down_slow_or_without_the_bucket_is_told(s3: str, monkeypatch: pytest.MonkeyPatch):
    from clipbert_mm.index.engines import lance_engine

    with pytest.raises(VideoIndexError, match=r"is in a bucket that does not exist\. Create the bucket"):
        open_index("lancedb+s3://no-such-bucket/a").start("id", "a", "a", vector_size=WIDTH)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setenv("AWS_ENDPOINT", address)
        with pytest.raises(
            VideoIndexError, match=r"cannot be reached\. Check that the store runs, .*Connection refused"
        ):
            _ = open_index(s3).exists
        silent.listen()
        monkeypatch.setattr(lance_engine, "SECONDS", 1)
        with pytest.raises(VideoIndexError, match=r"does not answer within 1 s\. Try again"):
            _ = open_index(s3).exists


@pytest.mark.parametrize(
    ("message", "meaning"),
    [
        ("inner: Status { status: 403, body: ... }", "refuses these credentials. Set AWS_ACCESS_KEY_ID"),
        ("Io error: No space left on device (os error 28)", "cannot be written: the disk is full. Free space"),
        ("Permission denied (os error 13)", "may not be written. Give a place that may be"),
        ("something else", "cannot be used. If it is damaged, .*something else"),
    ],
)
def test_failures_are_told_by_what_to_do(tmp_path: Path, message: str, meaning: str, monkeypatch: pytest.MonkeyPatch):
    from clipbert_mm.index.engines import lance_engine

    def fail(*args: object, **options: object) -> None:
        raise RuntimeError(message)

    monkeypatch.setattr(lance_engine, "require_extra", lambda *given: None)
    monkeypatch.setitem(sys.modules, "lancedb", SimpleNamespace(connect=fail))
    with pytest.raises(VideoIndexError, match=rf"The index lancedb\+file:///a {meaning}"):
        open_index("lancedb+file:///a")


@pytest.mark.parametrize("name", ["videos", "records"])
def test_a_damaged_table_is_told(tmp_path: Path, name: str):
    pytest.importorskip("lancedb", reason=NO_LANCE)
    url = f"lancedb+file://{tmp_path}/lance"
    started(open_index(url)).add([video(0)])  # type: ignore[arg-type]
    for file in (tmp_path / "lance" / f"{name}.lance").rglob("*"):
        if file.is_file():
            file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(VideoIndexError, match=r"The index lancedb\+file://"):
        open_index(url).count()


def test_facts_that_are_no_json_are_told(tmp_path: Path):
    pytest.importorskip("lancedb", reason=NO_LANCE)
    url = f"lancedb+file://{tmp_path}/lance"
    index = started(open_index(url))  # type: ignore[arg-type]
    index.engine._put_records("fact", {b"format": "{"})
    with pytest.raises(VideoIndexError, match=r"The table records of .* is not one of an index"):
        open_index(url)
