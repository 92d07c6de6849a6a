"""The faults of the page, as each was found, with what is right."""

import json
import os
import re
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from bad_decoders import crash, hang
from pages import Page, open_page_world, served, write_page_world

from clipbert_mm.__main__ import main
from clipbert_mm.apis import VideoQA, VideoSearch
from clipbert_mm.apis.indexing import find_videos
from clipbert_mm.apis.page import build_app, playback, serve, uploads
from clipbert_mm.apis.page.playback import PlayableMedia
from clipbert_mm.errors import OptionError, VideoIndexError
from clipbert_mm.index import VideoIndex

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")
SECRET = "the secret of this machine"
ANY = (None, None, None)
"""What a search asks of the videos besides its text: no folder and no length."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    write_page_world(folder)
    (folder / "secret.txt").write_text(SECRET)
    shutil.copy(folder / "videos" / "0.mp4", folder / "private.mp4")
    return folder


@pytest.fixture(scope="module")
def models(folder: Path) -> tuple[VideoSearch, VideoQA]:
    return open_page_world(folder, folder / "gallery")


@pytest.fixture(scope="module")
def search(models: tuple[VideoSearch, VideoQA]) -> VideoSearch:
    return models[0]


@pytest.fixture(scope="module")
def page(models: tuple[VideoSearch, VideoQA]) -> Iterator[Page]:
    with served(*models, max_upload=300_000, max_uploads=4, hosts=("127.0.0.1", "[::1]", "videos.example")) as page:
        yield page


@pytest.fixture(scope="module")
def numbers(page: Page) -> dict[str, int]:
    return page.numbers()


def key_of(search: VideoSearch, name: str) -> str:
    return next(entry.key for path, entry in search.video_index.entries.items() if os.path.basename(path) == name)


def file_data(path: Path) -> dict[str, object]:
    return {"path": str(path), "meta": {"_type": "gradio.FileData"}}


def assert_no_path(answer: str, folder: Path) -> None:
    for place in (str(folder), "/tmp/", os.getcwd(), os.path.expanduser("~")):
        assert place not in answer, answer
    assert SECRET not in answer


@pytest.mark.parametrize(
    ("event", "data"),
    [
        ("hits", lambda file, key: [file, 1, *ANY]),
        ("hits", lambda file, key: ["a red circle", file, *ANY]),
        ("hits", lambda file, key: [[file], 1, *ANY]),
        ("hits", lambda file, key: ["a red circle", 1, file, None, None]),
        ("hits", lambda file, key: ["a red circle", 1, None, file, None]),
        ("answers", lambda file, key: [file, "what color", None]),
        ("answers", lambda file, key: [key, file, None]),
        ("answers", lambda file, key: [key, "what color", file]),
        ("videos", lambda file, key: [[file], 1]),
        ("videos", lambda file, key: [file, 1]),
        ("videos", lambda file, key: ["", file]),
        ("ask-video", lambda file, key: [file]),
    ],
)
def test_s1_no_event_takes_a_file(
    page: Page, numbers: dict[str, int], search: VideoSearch, folder: Path, event: str, data: Callable
):
    status, answer = page.event(numbers[event], data(file_data(folder / "secret.txt"), key_of(search, "0.mp4")))
    assert status == 400
    assert json.loads(answer)["detail"].startswith("Invalid request: 'data")
    assert_no_path(answer, folder)


@pytest.mark.parametrize(
    "route", ["call/run", "call/find", "call/v2/find", "run/find", "run/predict", "api/find", "upload"]
)
def test_s1_gradio_s_other_ways_in_are_shut(page: Page, folder: Path, route: str):
    body = json.dumps(dict(data=[file_data(folder / "secret.txt"), 1], fn_index=0)).encode()
    status, answer = page.request(f"/gradio_api/{route}", body, Content_Type="application/json")
    assert (status, answer) == (404, '{"detail":"Not found."}')


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file={secret}",
        "/gradio_api/file/{secret}",
        "/file={secret}",
        "/gradio_api/proxy=http://127.0.0.1:1/",
        "/gradio_api/file=http://127.0.0.1:1/",
        "/gradio_api/deep_link?session_hash=a",
        "/?deep_link=../../{secret}",
        "/assets/..%2f..%2f..%2f..{secret}",
        "/static/..%2f..%2f..%2f..{secret}",
        "/media/..%2f..{secret}",
        "/gradio_api/custom_component/a/client/b/c",
        "/gradio_api/vibe-code",
        "/gradio_api/info",
        "/gradio_api/stream/a/b/1/playlist-file",
        "/monitoring/summary",
        "/svelte/..%2f{secret}",
    ],
)
def test_s1_no_route_serves_a_file_by_its_path(page: Page, folder: Path, path: str):
    status, answer = page.request(path.format(secret=folder / "secret.txt"))
    assert status == (200 if "deep_link=.." in path else 404)  # the page itself, without what the link names
    assert_no_path(answer.replace(str(folder / "secret.txt"), ""), folder)


@pytest.mark.parametrize(
    "path", ["/gradio_api/component_server", "/gradio_api/process_recording", "/gradio_api/cancel", "/login"]
)
def test_s1_nothing_else_takes_what_is_sent(page: Page, path: str):
    assert page.request(path, b"{}", Content_Type="application/json")[0] == 404


def test_s1_no_answer_repeats_a_path(page: Page, numbers: dict[str, int], search: VideoSearch, folder: Path):
    key = key_of(search, "1.mp4")
    answers = [
        page.request("/")[1],
        page.request("/config")[1],
        page.event(numbers["hits"], ["a red circle", 20, *ANY])[1],
        page.event(numbers["hits"], ["", 20, *ANY])[1],
        page.event(numbers["hits"], ["red " * 50, 20, *ANY])[1],
        page.event(numbers["answers"], [key, "red circle", None])[1],
        page.event(numbers["answers"], [key, "red circle", "a\nb"])[1],
        page.event(numbers["answers"], ["0" * 32, "red circle", None])[1],
        page.event(numbers["videos"], ["", 1])[1],
        page.event(numbers["ask-video"], [""])[1],
        page.request("/uploads?name=no.mp4", b"no video")[1],
    ]
    for answer in answers:
        assert_no_path(answer, folder)
    assert "1.mp4" in answers[2]
    assert "Shorten it" in answers[4]


def test_s1_a_broken_gallery_is_told_to_its_owner_alone(
    page: Page, numbers: dict[str, int], search: VideoSearch, folder: Path
):
    token = search.video_index.store.path_of(key_of(search, "1.mp4"))
    aside = Path(f"{token}.aside")
    os.replace(token, aside)
    token.mkdir()
    try:
        fresh = VideoSearch(folder / "search.py", "cpu", weights=folder / "search.pth", index=folder / "gallery")
        with served(fresh) as other:
            answer = other.event(0, ["a red circle", 3, *ANY])[1]
        assert_no_path(answer, folder)
    finally:
        token.rmdir()
        os.replace(aside, token)


def test_s2_a_video_of_the_server_cannot_be_named(
    page: Page, numbers: dict[str, int], search: VideoSearch, folder: Path
):
    before = set(search.video_index.entries)
    for event in numbers.values():
        page.event(event, [[file_data(folder / "private.mp4")]])
    status, answer = page.request(f"/uploads?name={folder / 'private.mp4'}", b"")
    assert status == 400
    assert answer == '{"detail":"private.mp4 cannot be read: the file is empty."}'
    assert set(search.video_index.entries) == before


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile {name}\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:5.0,\n{name}\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:5.0,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n",
    ],
)
def test_s2_a_playlist_that_names_other_files_is_no_video(page: Page, folder: Path, playlist: str):
    beside = folder / "gallery" / "uploads" / "beside.mp4"  # what FFmpeg itself would read
    beside.parent.mkdir(exist_ok=True)
    shutil.copy(folder / "private.mp4", beside)
    try:
        for name in ("beside.mp4", str(folder / "private.mp4")):
            status, answer = page.request("/uploads?name=list.mp4", playlist.format(name=name).encode())
            assert status == 400
            assert answer.startswith('{"detail":"list.mp4 cannot be read: ')
            assert_no_path(answer, folder)
    finally:
        beside.unlink()


def test_s2_a_gallery_from_elsewhere_cannot_serve_other_files(search: VideoSearch, folder: Path):
    entry = next(iter(search.video_index.entries.values()))
    hostile = replace(
        entry, path=str(folder / "private.mp4")
    )  # whoever wrote it knows neither size nor time of the file
    index = search.video_index
    index.table.put([(hostile, None)])
    assert index.by_key(hostile.key) == hostile
    with pytest.raises(FileNotFoundError):
        PlayableMedia(index).find(hostile.key)
    index.remove([hostile.path])


def test_s2_a_link_for_a_preview_is_not_followed(models: tuple[VideoSearch, VideoQA], folder: Path, tmp_path: Path):
    shutil.copytree(folder / "gallery", tmp_path / "gallery")
    search = VideoSearch(folder / "search.py", "cpu", weights=folder / "search.pth", index=tmp_path / "gallery")
    entry = search.video_index.entries[str(folder / "videos" / "2.avi")]
    previews = tmp_path / "gallery" / "previews"
    shutil.rmtree(previews, ignore_errors=True)
    previews.mkdir()
    (previews / f"{entry.key}-{entry.mtime_ns}.mp4").symlink_to(folder / "secret.txt")
    found = PlayableMedia(search.video_index).find(entry.key)
    assert SECRET.encode() not in Path(found.path).read_bytes()
    assert (folder / "secret.txt").read_text() == SECRET
    for name in ("uploads", "previews", "thumbnails"):
        shutil.rmtree(tmp_path / "gallery" / name, ignore_errors=True)
        (tmp_path / "gallery" / name).symlink_to(folder / "videos")
        with pytest.raises(
            VideoIndexError,
            match=f"{name} is a symbolic link, and the page never writes outside the folder of the index",
        ):
            build_app(search)
        (tmp_path / "gallery" / name).unlink()


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:{port}", 200),
        ("videos.example", 200),
        ("[::1]:{port}", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example:{port}", 400),
        ("", 400),
    ],
)
def test_s7_only_the_page_s_own_hosts_are_served(page: Page, host: str, status: int):
    assert page.request("/", Host=host.format(port=page.address.partition(":")[2]))[0] == status


def test_s7_a_name_that_is_none_of_a_host_is_refused_at_the_start(models: tuple[VideoSearch, VideoQA]):
    for host in ("*", "a*b", "*.*.example"):
        with pytest.raises(
            OptionError, match=r"^Expected host names such as videos.example or \*.videos.example, got "
        ):
            build_app(models[0], hosts=(host,))


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://{address}", 200),
        ("http://evil.example", 403),
        ("http://127.0.0.1:1", 403),
        ("null", 403),
        ("http://[", 403),
    ],
)
def test_s7_other_origins_are_refused(page: Page, numbers: dict[str, int], origin: str, status: int):
    origin = origin.format(address=page.address)
    body = json.dumps(dict(fn_index=numbers["hits"], data=["a red circle", 1, *ANY], session_hash="other")).encode()
    assert page.request("/gradio_api/queue/join", body, Origin=origin, Content_Type="application/json")[0] == status
    assert page.request("/uploads?name=a.txt", b"x", Origin=origin)[0] == (status if status == 403 else 400)
    assert page.request("/gradio_api/queue/join", method="OPTIONS", Origin=origin)[0] in (status, 404)


def test_s7_no_other_page_frames_it(page: Page):
    for path in ("/", "/config", "/media/nothing"):
        headers = page.request_bytes(path)[2]
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cross-origin-resource-policy"] == "same-origin"
        assert "access-control-allow-origin" not in headers


def test_l7_what_another_process_changes_is_seen(models: tuple[VideoSearch, VideoQA], folder: Path, tmp_path: Path):
    other = VideoSearch(folder / "search.py", "cpu", weights=folder / "search.pth", index=folder / "gallery")
    shutil.copy(folder / "videos" / "0.mp4", tmp_path / "more.mp4")
    with served(models[0]) as page:
        for change, count in ((other.index, 4), (other.remove, 3)):
            change(tmp_path / "more.mp4")
            answer = page.event(0, ["a red circle", 20, *ANY])[1]
            assert f"{count} of {count} videos" in answer
            assert ("more.mp4" in answer) == (count == 4)


def test_l8_previews_and_uploads_never_become_videos(page: Page, search: VideoSearch, folder: Path):
    assert page.request_bytes(f"/media/{key_of(search, '2.avi')}")[0] == 200
    assert page.request("/uploads?name=brought.mp4", (folder / "private.mp4").read_bytes() + b"x")[0] == 200
    assert list((folder / "gallery" / "previews").glob("*.mp4"))
    (upload,) = (path for path in search.video_index.entries if "uploads" in path)
    assert set(find_videos(folder)) == {str(folder / "private.mp4"), *map(str, (folder / "videos").iterdir())}
    report = search.index(folder, workers=0, prune=True)
    assert (report.added, report.removed) == ((str(folder / "private.mp4"),), ())
    assert upload in search.video_index.entries
    search.remove([folder / "private.mp4", upload])
    Path(upload).unlink()


def test_l11_a_video_is_looked_up_by_its_key_while_others_are_added(search: VideoSearch, tmp_path: Path):
    entry = next(iter(search.video_index.entries.values()))
    index = VideoIndex(tmp_path / "index")
    index.start("id", "a.pth", "a.pth")
    index.table.put([(entry, None)])
    media, errors, done = PlayableMedia(VideoIndex(index.folder)), [], threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                assert media.entry(entry.key) == entry
            except Exception as error:
                errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for i in range(100):
        index.table.put([(replace(entry, path=f"/x/{i}.mp4"), None)])
    done.set()
    for thread in threads:
        thread.join()
    assert errors == []


def test_l12_a_text_without_end_is_refused_at_once(page: Page, numbers: dict[str, int]):
    status, answer = page.event(numbers["hits"], ["a" * 10_000_000, 1, *ANY])
    assert (status, answer) == (
        413,
        '{"detail":"Expected an event of at most 64000 bytes, got more. Shorten the text."}',
    )
    status, answer = page.event(numbers["hits"], ["a" * 1001, 1, *ANY])
    assert (status, answer) == (
        400,
        '{"detail":"Invalid request: \'data.0\': String should have at most 1000 characters."}',
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (["a circle", 51, *ANY], "Input should be less than or equal to 50"),
        (["a circle", 0, *ANY], "Input should be greater than or equal to 1"),
        (["a circle", 1e300, *ANY], "Input should be a valid integer"),
        (["a circle", 10**400, *ANY], ""),
        (["a circle", True, *ANY], "Input should be a valid integer"),
        (["a circle", float("nan"), *ANY], "Input should be a valid integer"),
        (["a circle", 1, None, -1, None], "Input should be greater than or equal to 0"),
        (["a circle", 1, None, None, float("inf")], ""),
        (["a circle", 1, "a" * 1001, None, None], "String should have at most 1000 characters"),
        ([5, 5, *ANY], "Input should be a valid string"),
        (["a circle"], "Field required"),
        (["a circle", 1, *ANY, 2], "Tuple should have at most 5 items"),
        (["\ud800", 1, *ANY], ""),
        ({}, "Input should be a valid array"),
        (None, "Input should be a valid array"),
    ],
)
def test_l12_values_of_other_types_or_out_of_bounds_are_refused(
    page: Page, numbers: dict[str, int], data: object, said: str
):
    status, answer = page.event(numbers["hits"], data)
    assert status == 400
    assert said in answer


def test_l12_events_that_are_none_are_refused(page: Page):
    assert page.event(99, [])[1] == '{"detail":"The page has no event 99."}'
    for body in (b"", b"[", b"null", b"[" * 50_000, b'{"fn_index": "0"}', b"\xff\xfe", b'{"fn_index": 0}'):
        status, answer = page.request("/gradio_api/queue/join", body)
        assert (status, "Invalid request: " in answer) == (400, True), body[:20]


def test_l12_the_queue_has_an_end(models: tuple[VideoSearch, VideoQA], monkeypatch: pytest.MonkeyPatch):
    search, _ = models
    release = threading.Event()
    answer = search.search("a red circle", 1)
    monkeypatch.setattr(search, "search", lambda *arguments, **options: (release.wait(60), answer)[1])
    with served(search) as page:
        body = json.dumps(dict(fn_index=0, data=["a red circle", 1, *ANY], session_hash="full")).encode()
        states = [page.request("/gradio_api/queue/join", body, Content_Type="application/json")[0] for _ in range(40)]
        status, said = page.request("/gradio_api/queue/join", body, Content_Type="application/json")
        release.set()
        assert states[:32] == [200] * 32
        assert status == 503
        assert "Queue is full" in said
        assert page.request("/gradio_api/queue/data?session_hash=full")[1].count("process_completed") >= 32


def test_m9_names_that_are_no_utf8_are_shown_and_played(
    models: tuple[VideoSearch, VideoQA], folder: Path, tmp_path: Path
):
    name = os.fsdecode(b"caf\xe9 <b>.mp4")
    shutil.copy(folder / "videos" / "0.mp4", tmp_path / name)
    search, qa = models
    search.index(tmp_path / name, workers=0)
    try:
        with served(search, qa) as page:
            numbers = page.numbers()
            answer = page.event(numbers["hits"], ["a red circle", 20, *ANY])[1]
            assert r"caf\\xe9 &lt;b&gt;.mp4" in answer
            assert r"caf\\xe9" in page.event(numbers["videos"], ["", 1])[1]
            assert r"caf\\xe9" in page.event(numbers["ask-video"], [""])[1]
            key = search.video_index.entries[str(tmp_path / name)].key
            assert "process_completed" in page.event(numbers["answers"], [key, "red circle", None])[1]
            assert page.request_bytes(f"/media/{key}")[1] == (tmp_path / name).read_bytes()
    finally:
        search.remove(tmp_path / name)


@pytest.mark.parametrize("ending", [".png", ".jpg", ".bmp", ".webp"])
def test_m13_a_still_image_named_as_a_video_is_refused(page: Page, search: VideoSearch, folder: Path, ending: str):
    image = cv2.imencode(ending, np.zeros((48, 64, 3), np.uint8))[1].tobytes()
    status, answer = page.request("/uploads?name=still.mp4", image)
    assert (status, answer) == (
        400,
        '{"detail":"still.mp4 cannot be read: expected a video, got an image."}',
    )
    assert not list((folder / "gallery" / "uploads").glob("[!.]*.mp4"))


def test_uploads_are_bounded_while_they_come(page: Page, folder: Path):
    status, answer = page.request("/uploads?name=large.mp4", b"x" * 2_000_000)
    assert (status, answer) == (413, '{"detail":"large.mp4: expected at most 0 MB, got more."}')
    assert not list((folder / "gallery" / "uploads").glob(".clipbert-*"))


def test_uploads_are_bounded_in_number(models: tuple[VideoSearch, VideoQA], folder: Path):
    with served(models[0], max_uploads=0) as page:
        status, answer = page.request("/uploads?name=a.mp4", (folder / "videos" / "0.mp4").read_bytes())
    assert (status, answer) == (
        507,
        '{"detail":"a.mp4: the limit of 0 uploads is reached. Ask the owner of the page."}',
    )


def test_uploads_that_never_end_are_cut_off(
    models: tuple[VideoSearch, VideoQA], folder: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(uploads, "UPLOAD_SECONDS", 0.2)
    with served(models[0]) as page, socket.create_connection(page.address.split(":")) as connection:
        head = f"POST /uploads?name=a.mp4 HTTP/1.1\r\nHost: {page.address}\r\nContent-Length: 100\r\n\r\nbegin"
        connection.sendall(head.encode())
        answer = connection.recv(10_000).decode()
    assert answer.startswith("HTTP/1.1 408")
    assert not list((folder / "gallery" / "uploads").glob(".clipbert-*"))


@pytest.mark.parametrize(
    ("decoder", "seconds", "said"),
    [(crash, 60.0, "the decoder ended its process (signal SIGABRT)"), (hang, 0.5, "it took longer than 0.5 seconds")],
)
def test_l1_a_decoder_that_crashes_or_hangs_costs_its_upload_alone(
    page: Page, folder: Path, monkeypatch: pytest.MonkeyPatch, decoder: Callable, seconds: float, said: str
):
    monkeypatch.setattr(playback, "probe_media", decoder)
    monkeypatch.setattr(playback, "PROBE_SECONDS", seconds)
    status, answer = page.request("/uploads?name=bad.mp4", (folder / "videos" / "0.mp4").read_bytes())
    assert (status, answer) == (400, f'{{"detail":"bad.mp4 cannot be read: {said}."}}')
    assert page.request("/")[0] == 200


def test_e_taken_port_is_one_error_and_nothing_is_said_to_be_served(
    models: tuple[VideoSearch, VideoQA], folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        said: list[str] = []
        with pytest.raises(
            OptionError, match=f"^Port {port} of 127.0.0.1 is in use by another program. Choose another one: --port"
        ):
            serve(models[0], port=port, ready=said.append)
        assert said == []
        options = ["--model", "search.py", "--weights", "search.pth", "--index", "gallery", "--device", "cpu"]
        monkeypatch.chdir(folder)
        with pytest.raises(SystemExit) as left:
            main(["serve", *options, "--port", str(port)])
    out, err = capsys.readouterr()
    assert (left.value.code, out) == (1, "")
    assert err == f"error: Port {port} of 127.0.0.1 is in use by another program. Choose another one: --port PORT.\n"


@pytest.mark.parametrize("host", ["256.0.0.1", "192.0.2.1", "no.such.host.invalid"])
def test_e_a_host_that_is_not_this_machine_s(models: tuple[VideoSearch, VideoQA], host: str):
    with pytest.raises(OptionError, match=rf"{re.escape(host)}"):
        serve(models[0], host=host, port=0)


@pytest.mark.parametrize("port", [-1, 70_000])
def test_e_a_port_that_is_none(models: tuple[VideoSearch, VideoQA], port: int):
    with pytest.raises(OptionError, match=rf"Cannot listen on port {port} of 127.0.0.1: "):
        serve(models[0], port=port)
