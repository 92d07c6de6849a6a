"""Thumbnails on the page: of the right video, made once, in a bounded folder, and not by a decoder in this process."""

import os
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_decoders import crash
from pages import served
from video_files import write_file

from clipbert_mm.apis.page import thumbnails as made
from clipbert_mm.apis.page.thumbnails import BusyError, Thumbnails, thumbnail_name
from clipbert_mm.datasets.transforms import DecodeClips, OpenVideo
from clipbert_mm.errors import VideoIndexError
from clipbert_mm.index import Entry, VideoIndex
from clipbert_mm.media.thumbnails import draw_thumbnail


def pixels_of(content: bytes | str | None) -> np.ndarray:
    assert isinstance(content, bytes)
    return cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)[..., ::-1]


def record(path: Path, seconds: float | None = 3.0) -> Entry:
    status = path.stat()
    return Entry(str(path), status.st_size, status.st_mtime_ns, seconds, ((0.0, 3.0),), (32, 32))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos, a picture, and a file that is none."""
    folder = tmp_path_factory.mktemp("videos")
    for i in range(3):
        write_file(folder / f"{i}.mp4", count=25 + 10 * i, size=(96, 64))
    cv2.imwrite(str(folder / "tall.png"), np.full((900, 100, 3), (0, 0, 255), np.uint8))
    (folder / "broken.mp4").write_bytes(b"no video" * 100)
    return folder


@pytest.fixture
def index(folder: Path, tmp_path: Path) -> VideoIndex:
    index = VideoIndex(tmp_path / "index")
    index.start("id", "a.pth", "a.pth")
    index.table.put((record(path), None) for path in folder.iterdir())
    return index


def wait_for(thumbnails: Thumbnails, entry: Entry) -> bytes | None:
    found = thumbnails.find(thumbnail_name(entry))
    return found if isinstance(found, bytes) else found.result(timeout=60)


def test_a_thumbnail_is_the_frame_in_the_middle(folder: Path, tmp_path: Path):
    results = DecodeClips()(
        OpenVideo()(dict(path=str(folder / "2.mp4")))
        | dict(frame_inds=np.array([22]), num_clips=1, clip_len=1, clip_times=np.zeros((1, 2)))
    )
    expected = results["frames"][0, 0].astype(int)
    got = pixels_of(draw_thumbnail(str(folder / "2.mp4"))).astype(int)
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < 6  # JPEG
    picture = pixels_of(draw_thumbnail(str(folder / "tall.png")))
    assert picture.shape == (240, 27, 3)
    assert np.abs(picture.astype(int) - (255, 0, 0)).max() < 10
    write_file(tmp_path / "large.mp4", count=10, size=(640, 360))
    assert pixels_of(draw_thumbnail(str(tmp_path / "large.mp4"))).shape == (180, 320, 3)
    assert "not a video" in draw_thumbnail(str(folder / "broken.mp4"))


def test_each_is_made_once_and_kept(index: VideoIndex, folder: Path, monkeypatch: pytest.MonkeyPatch):
    thumbnails = Thumbnails(index)
    entries = {name: index.entries[str(folder / name)] for name in ("0.mp4", "1.mp4", "tall.png", "broken.mp4")}
    asked = {name: thumbnails.find(thumbnail_name(entry)) for name, entry in entries.items()}
    assert thumbnails.find(thumbnail_name(entries["0.mp4"])) is asked["0.mp4"]
    contents = {name: future.result(timeout=60) for name, future in asked.items()}
    assert contents.pop("broken.mp4") is None
    for name, content in contents.items():
        assert content == draw_thumbnail(str(folder / name))
    with pytest.raises(FileNotFoundError):  # it is not tried again at once
        thumbnails.find(thumbnail_name(entries["broken.mp4"]))
    monkeypatch.setattr(made, "run_each", None)
    again = Thumbnails(index)
    assert {name: again.find(thumbnail_name(entries[name])) for name in contents} == contents
    assert len(list((index.folder / "thumbnails").iterdir())) == 3


def test_only_videos_of_the_index_as_they_were_indexed(index: VideoIndex, folder: Path, tmp_path: Path):
    thumbnails, entry = Thumbnails(index), index.entries[str(folder / "0.mp4")]
    shutil.copy(folder / "0.mp4", tmp_path / "changed.mp4")
    changed = record(tmp_path / "changed.mp4")
    index.table.put([(changed, None)])
    os.utime(changed.path, ns=(1, 1))
    gone = Entry("/x/gone.mp4", 1, -5, 1.0, ((0.0, 1.0),), (2, 2))
    index.table.put([(gone, None)])
    for name in (
        "",
        "../../etc/passwd",
        f"{'0' * 32}-{'0' * 16}",
        f"{entry.key}-{'0' * 16}",
        thumbnail_name(changed),
        thumbnail_name(gone),
    ):
        with pytest.raises(FileNotFoundError):
            thumbnails.find(name)


def test_links_are_not_followed(index: VideoIndex, folder: Path, tmp_path: Path):
    thumbnails, entry = Thumbnails(index), index.entries[str(folder / "0.mp4")]
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"\xff\xd8 secret")
    thumbnails.folder.mkdir()
    link = thumbnails.folder / f"{thumbnail_name(entry)}.jpg"
    link.symlink_to(secret)
    assert b"secret" not in (wait_for(thumbnails, entry) or b"")
    assert not link.is_symlink()
    assert secret.read_bytes() == b"\xff\xd8 secret"
    shutil.rmtree(thumbnails.folder)
    (tmp_path / "elsewhere").mkdir()
    thumbnails.folder.symlink_to(tmp_path / "elsewhere")
    assert wait_for(thumbnails, entry)  # shown, but not written
    assert not list((tmp_path / "elsewhere").iterdir())
    with pytest.raises(VideoIndexError, match="thumbnails is a symbolic link"):
        Thumbnails(index)


def test_those_not_shown_for_the_longest_time_are_removed(index: VideoIndex, folder: Path):
    entries = [index.entries[str(folder / f"{i}.mp4")] for i in range(3)]
    sizes = [len(draw_thumbnail(entry.path)) for entry in entries]
    thumbnails = Thumbnails(index, max_bytes=sum(sizes) - 1)
    for entry in entries[:2]:
        assert wait_for(thumbnails, entry)
    paths = [thumbnails.folder / f"{thumbnail_name(entry)}.jpg" for entry in entries]
    for i, path in enumerate(paths[:2]):
        os.utime(path, (1000 + i, 1000 + i))
    thumbnails.find(thumbnail_name(entries[0]))  # which is noted
    assert time.time() - paths[0].stat().st_mtime < 60
    assert wait_for(thumbnails, entries[2])
    assert [path.exists() for path in paths] == [True, False, True]
    assert wait_for(thumbnails, entries[1])  # and made again


def test_a_decoder_that_crashes_costs_its_thumbnail_alone(
    index: VideoIndex, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    thumbnails, entries = Thumbnails(index), [index.entries[str(folder / f"{i}.mp4")] for i in range(2)]
    with monkeypatch.context() as context:
        context.setattr(made, "draw_thumbnail", crash)
        context.setattr(made, "IDLE_SECONDS", 0.05)
        assert wait_for(thumbnails, entries[0]) is None
        thread = thumbnails._thread
        if thread is not None:
            thread.join(timeout=30)
    assert wait_for(thumbnails, entries[1])


def test_only_so_many_wait(index: VideoIndex, folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(made, "MAX_WAITING", 0)
    with pytest.raises(BusyError):
        Thumbnails(index).find(thumbnail_name(index.entries[str(folder / "0.mp4")]))


def test_the_page_serves_them_for_browsers_to_keep(checkpoint: Path, folder: Path, tmp_path: Path):
    from clipbert_mm.apis import VideoSearch

    search = VideoSearch(checkpoint, index=tmp_path / "index")
    search.index([folder / "0.mp4", folder / "1.mp4"], workers=0)
    entry = search.video_index.entries[str(folder / "0.mp4")]
    with served(search) as page:
        for _ in range(2):
            status, content, headers = page.request_bytes(f"/thumbnails/{thumbnail_name(entry)}")
            assert (status, content) == (200, draw_thumbnail(entry.path))
            assert headers["content-type"] == "image/jpeg"
            assert headers["cache-control"] == "private, max-age=604800, immutable"
        for hostile in (
            "..",
            "../records.sqlite3",
            f"{entry.key}",
            f"{entry.key}-{'0' * 16}",
            thumbnail_name(entry) + "/",
        ):
            status, answer = page.request(f"/thumbnails/{hostile}")
            assert status == 404, hostile
            assert str(tmp_path) not in answer
        html = page.event(page.numbers()["videos"], ["", 1])[1]
        assert thumbnail_name(entry) in html
