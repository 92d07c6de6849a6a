"""The page in a real Chromium, at desktop and phone width; hostile visitors by plain HTTP."""

import copy
import http.client
import multiprocessing
import os
import shutil
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import anyio
import av
import numpy as np
import pytest
from large_index import add_unreal_videos, open_clip_search
from pages import running, served
from ports import free_port

from clipbert_mm.apis import VideoQA, VideoSearch
from clipbert_mm.apis.page import build_app, rendering, serve
from clipbert_mm.apis.page.playback import PlayableMedia
from clipbert_mm.apis.page.uploads import UploadError, Uploads
from clipbert_mm.datasets.shapes.questions import ANSWERS
from clipbert_mm.index import Entry, VideoIndex

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
"""As root, without a graphics card, and without calls to the browser's own servers."""
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::ResourceWarning")


@pytest.fixture(scope="module")
def indexed() -> dict[str, VideoSearch]:
    """What the first test indexed, for the others to copy."""
    return {}


@pytest.fixture
def search(indexed: dict[str, VideoSearch], request: pytest.FixtureRequest, world: Path, tmp_path: Path) -> VideoSearch:
    """A search in an index of this test's own."""
    if not indexed:
        indexed["all"] = VideoSearch(request.getfixturevalue("checkpoint"), index=tmp_path / "indexed")
        indexed["all"].index(sorted((world / "videos").glob("test_*.mp4")), workers=0)
    search = copy.copy(indexed["all"])
    shutil.copytree(search.video_index.folder, tmp_path / "gallery")
    search.video_index = VideoIndex(tmp_path / "gallery")
    return search


@pytest.fixture
def address(search: VideoSearch, request: pytest.FixtureRequest) -> Iterator[str]:
    """Where the page is served; with questions if the test asks for a model of them."""
    qa = request.getfixturevalue("qa") if "qa" in request.fixturenames else None
    with running(build_app(search, qa, max_upload=1_000_000)) as host:
        yield f"http://{host}"


@pytest.fixture
def qa(write_checkpoint: Callable[..., Path]) -> VideoQA:
    head = dict(type="OpenEndedHead", in_channels=16, num_answers=len(ANSWERS), hidden_channels=None)
    return VideoQA(write_checkpoint(head, dict(type="OpenEndedDataset", ann_file="qa", answer_file="answers.json")))


@pytest.fixture
def visit(address: str) -> Iterator[Callable]:
    """Open the page in Chromium at a size; a script's error or a dialog on it fails the test."""
    if CHROMIUM is None:
        pytest.skip("there is no Chromium; install it to try the page in it (apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    troubles: list[str] = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)

        def open_page(size: str):
            width, height = SIZES[size]
            page = browser.new_page(viewport=dict(width=width, height=height))
            page.on("pageerror", lambda error: troubles.append(str(error)))
            page.on("dialog", lambda dialog: (troubles.append(f"dialog: {dialog.message}"), dialog.dismiss()))
            page.goto(address)
            page.get_by_role("button", name="Search").wait_for()
            return page

        yield open_page
        browser.close()
    assert not troubles


def get(address: str, path: str, **headers: str) -> tuple[int, bytes, dict[str, str]]:
    """Ask for a path as it is written; a client of higher level would tidy it first."""
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=20)
    connection.putrequest("GET", path, skip_accept_encoding=True)
    for name, value in headers.items():
        connection.putheader(name, value)
    connection.endheaders()
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


def take(uploads: Uploads, content: bytes, name: str) -> str:
    """Bring a video along in pieces, as a browser sends it; returns what it is called."""

    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), 65536):
            yield content[start : start + 65536]

    return anyio.run(uploads.receive, pieces(), name)


@pytest.mark.parametrize("size", SIZES)
def test_a_search_shows_ranked_videos_that_play_from_their_best_moment(search: VideoSearch, visit: Callable, size: str):
    page = visit(size)
    page.locator("#search-text textarea, #search-text input").first.fill("a red circle")
    page.get_by_role("button", name="Search").click()
    page.locator(".hit").first.wait_for()
    expected = search.search("a red circle", topk=20)
    assert page.locator(".hit .name").all_inner_texts() == [
        f"{place}. {os.path.basename(hit.path)}" for place, hit in enumerate(expected.hits, start=1)
    ]
    assert page.locator(".hit").first.locator("svg line").count() == len(expected.hits[0].moments)
    assert page.locator("video").count() == 0, "a player is made by a click"
    page.locator(".hit .poster").first.click()
    start, end = expected.hits[0].moment.start, expected.hits[0].moment.end
    page.wait_for_function("() => document.querySelector('.hit video').readyState >= 2")
    played = page.evaluate("() => document.querySelector('.hit video').currentTime")
    assert start - 0.1 <= played <= end + 5
    assert page.evaluate("() => document.documentElement.scrollWidth <= window.innerWidth"), "it scrolls sideways"
    if os.environ.get("CLIPBERT_SCREENSHOTS"):
        page.screenshot(path=f"{os.environ['CLIPBERT_SCREENSHOTS']}/page_{size}.png")


def test_a_question_is_answered(search: VideoSearch, qa: VideoQA, visit: Callable):
    page = visit("desktop")
    page.get_by_role("tab", name="Ask").click()
    page.get_by_text("1–7 of 7 videos").locator("visible=true").first.wait_for()
    page.locator("#ask-name textarea, #ask-name input").first.press_sequentially("T_00002")
    page.get_by_text("1–1 of 1 videos").locator("visible=true").first.wait_for()  # which is chosen then
    page.locator("#ask-question textarea, #ask-question input").first.fill("what color is the circle")
    page.get_by_role("button", name="Ask").click()
    page.locator("#answers .hit").wait_for()
    path = next(path for path in search.video_index.entries if path.endswith("test_00002.mp4"))
    expected = qa.ask(path, "what color is the circle")
    assert page.locator("#answers tr td:nth-child(2)").all_inner_texts() == [answer.text for answer in expected.answers]
    page.locator("#ask-question textarea, #ask-question input").first.fill("what " * 60)
    page.get_by_role("button", name="Ask").click()
    page.get_by_text("Shorten it").wait_for()


def test_hits_are_turned_without_a_second_search(search: VideoSearch, visit: Callable, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(rendering, "HITS_PER_PAGE", 3)
    page = visit("phone")
    page.locator("#search-text textarea, #search-text input").first.fill("a red circle")
    page.get_by_role("button", name="Search").click()
    page.get_by_text("1–3 of 7 hits").first.wait_for()
    expected = [os.path.basename(hit.path) for hit in search.search("a red circle", topk=20).hits]
    monkeypatch.setattr(search, "search", None)
    shown = [page.locator(".hits:visible .name").all_inner_texts()]
    for label in ("4–6 of 7 hits", "7–7 of 7 hits"):
        page.locator("#hits").get_by_role("button", name="Next").last.click()
        page.get_by_text(label).first.wait_for()
        shown.append(page.locator(".hits:visible .name").all_inner_texts())
    assert [len(each) for each in shown] == [3, 3, 1]
    assert [name for each in shown for name in each] == [f"{i}. {name}" for i, name in enumerate(expected, start=1)]
    assert page.locator("#hits").get_by_role("button", name="Next").first.is_disabled()
    page.locator("#hits").get_by_role("button", name="Previous").first.click()
    assert page.locator(".hits:visible .name").all_inner_texts() == shown[1]


def test_thousands_of_videos_are_listed_in_pages(search: VideoSearch, visit: Callable):
    entries = [Entry(f"/v/{i % 7}/{i:04}.mp4", 1, i, 3.0, ((0.0, 3.0),), (32, 32)) for i in range(3000)]
    search.video_index.table.put((entry, None) for entry in entries)
    search.video_index.note_folders(["/v"])
    loaded: list[str] = []
    page = visit("desktop")
    page.on("request", lambda request: loaded.append(request.url))
    page.get_by_role("tab", name="Videos").click()
    page.get_by_text("1–50 of 3,007 videos").wait_for()
    names = sorted(entry.path.removeprefix("/v/") for entry in entries)
    listed = page.locator("#videos .name")
    real = [path for path in search.video_index.entries if not path.startswith("/v/")]
    before = sum(path < "/v/" for path in real)  # in the order of their paths
    assert listed.all_inner_texts()[before:] == names[: 50 - before]
    page.locator("#videos-next").click()
    page.get_by_text("51–100 of 3,007 videos").wait_for()
    assert listed.all_inner_texts() == names[50 - before : 100 - before]
    number = page.locator("#videos-number input")
    number.fill("1000000")
    number.press("Enter")
    page.get_by_text("3,001–3,007 of 3,007 videos").wait_for()
    assert number.input_value() == "61"
    page.locator("#videos-previous").click()
    page.get_by_text("2,951–3,000 of 3,007 videos").wait_for()
    page.locator("#videos-name textarea, #videos-name input").first.press_sequentially("TEST_")
    page.get_by_text("1–7 of 7 videos").wait_for()
    page.wait_for_function(
        "() => { const all = [...document.querySelectorAll('#videos img')]; "
        "return all.length === 7 && all.every((image) => image.naturalWidth > 0); }"
    )
    assert not any("/media/" in url for url in loaded)
    assert page.locator("video").count() == 0
    page.locator("#videos .poster").nth(1).click()
    page.wait_for_function("() => document.querySelector('#videos video').readyState >= 2")
    assert sum("/media/" in url for url in loaded) >= 1
    if os.environ.get("CLIPBERT_SCREENSHOTS"):
        page.screenshot(path=f"{os.environ['CLIPBERT_SCREENSHOTS']}/page_videos.png")


def test_a_search_in_a_folder_and_of_a_length(search: VideoSearch, world: Path):
    search.video_index.note_folders([str(world)])
    seconds = sorted(entry.seconds for entry in search.video_index.entries.values())
    text = "a red circle"
    with served(search) as page:
        hits = page.numbers()["hits"]
        for values, said in (
            (["videos", None, None], "7 of 7 videos for"),
            (
                ["videos/", seconds[1] - 1e-6, None],
                f"of {sum(each >= seconds[1] - 1e-6 for each in seconds)} videos for",
            ),
            ([" ", None, seconds[-1]], "7 of 7 videos for"),
            (["..", None, None], "is none of the indexed folders"),
            (["cats", None, None], "No video is in this folder and of this length."),
            ([None, 3, 2], "Expected at least as many seconds at most as at least, got 2 and 3."),
        ):
            answer = page.event(hits, [text, 20, *values])[1]
            assert said in answer, values
            assert str(world) not in answer


def test_thousands_of_videos_are_searched_by_vectors_first(tmp_path: Path):
    search = open_clip_search(tmp_path / "clip", tmp_path / "index")
    add_unreal_videos(search, 2400)
    with served(search) as page:
        hits = page.numbers()["hits"]
        answer = page.event(hits, ["a dog", 20, None, None, None])[1]
        assert "20 of 2,400 videos for" in answer
        assert "the best 128 by vectors, ranked by the model" in answer
        answer = page.event(hits, ["a dog", 20, "cat/2000", None, None])[1]
        assert "20 of 20 videos" in answer
        assert "dog/2" not in answer


def test_an_upload_can_be_searched_and_its_name_does_no_harm(
    search: VideoSearch, visit: Callable, world: Path, tmp_path: Path
):
    page = visit("phone")
    hostile = tmp_path / "<img src=x onerror=alert(1)>.mp4"
    shutil.copy(world / "videos" / "train_00001.mp4", hostile)
    page.get_by_role("tab", name="Videos").click()
    page.locator("#upload input[type=file]").set_input_files(str(hostile))
    page.locator("#videos").get_by_text("onerror").locator("visible=true").first.wait_for()
    (stored,) = (path for path in search.video_index.entries if "uploads" in path)
    assert os.path.dirname(stored) == str(search.video_index.folder.absolute() / "uploads")
    assert len(os.path.basename(stored)) == 36
    page.get_by_role("tab", name="Search").click()
    page.locator("#search-text textarea, #search-text input").first.fill("a red circle")
    page.get_by_role("button", name="Search").click()
    page.locator(".hit").nth(7).wait_for()
    assert page.locator(".hit .name img, .video .name img, img[src=x]").count() == 0
    assert any("onerror" in name for name in page.locator(".hit .name").all_inner_texts())


def test_only_the_index_is_served(address: str, search: VideoSearch, tmp_path: Path):
    path, entry = next(iter(search.video_index.entries.items()))
    key = entry.key
    status, body, headers = get(address, f"/media/{key}")
    assert (status, body) == (200, Path(path).read_bytes())
    assert headers["content-type"] == "video/mp4"
    status, body, _ = get(address, f"/media/{key}", Range="bytes=10-19")
    assert (status, body) == (206, Path(path).read_bytes()[10:20])
    secret = search.video_index.folder / "manifest.json"
    for hostile in (
        "/media/nothing",
        "/media/../../../../../../etc/passwd",
        "/media/..%2f..%2f..%2fetc%2fpasswd",
        f"/media/{key}/../../manifest.json",
        f"/media/{secret}",
        "/media/%00",
        "/gradio_api/file=/etc/passwd",
        f"/gradio_api/file={secret}",
        f"/gradio_api/file={path}",
        f"/gradio_api/file={os.path.abspath('setup.py')}",
        "/gradio_api/file=..%2f..%2fetc%2fpasswd",
        f"/file={secret}",
    ):
        status, body, _ = get(address, hostile)
        assert status in (400, 403, 404), (hostile, status)
        assert b"root:" not in body
        assert b"identity" not in body, hostile
    Path(path).stat()


def test_a_format_that_browsers_do_not_play_is_written_anew(search: VideoSearch, world: Path, tmp_path: Path):
    with av.open(str(tmp_path / "a.avi"), "w") as target:
        stream = target.add_stream("mpeg4", rate=10, width=64, height=48, pix_fmt="yuv420p")
        for shade in range(20, 220, 10):
            target.mux(stream.encode(av.VideoFrame.from_ndarray(np.full((48, 64, 3), shade, np.uint8))))
        target.mux(stream.encode())
    search.index(tmp_path / "a.avi", workers=0)
    entry = search.video_index.entries[str(tmp_path / "a.avi")]
    found = PlayableMedia(search.video_index).find(entry.key)
    assert found.media_type == "video/mp4"
    with av.open(found.path) as preview:
        assert preview.streams.video[0].codec_context.name == "h264"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.py", b"import os", r"a.py: expected a video \(.mp4, .*\), got .py"),
        ("noname", b"x", "noname: expected a video .*, got no suffix"),
        ("../../../../tmp/evil.mp4", b"x" * 100, "^evil.mp4 cannot be read: "),
        ("..\\..\\evil.mp4", b"", r"^evil.mp4 cannot be read: the file is empty"),
        ("large.mp4", b"x" * 2_000_000, "large.mp4: expected at most 1 MB, got more"),
    ],
)
def test_uploads_that_are_not_taken(search: VideoSearch, tmp_path: Path, name: str, content: bytes, message: str):
    uploads = Uploads(search, 1_000_000)
    before = dict(search.video_index.entries)
    with pytest.raises(UploadError, match=message):
        take(uploads, content, name)
    assert search.video_index.entries == before
    assert not list(tmp_path.rglob("*evil*"))
    assert not uploads.folder.exists() or not list(uploads.folder.iterdir())


def test_the_same_upload_is_stored_once_under_its_first_name(search: VideoSearch, world: Path):
    uploads = Uploads(search, 1_000_000)
    content = (world / "videos" / "train_00001.mp4").read_bytes()
    assert take(uploads, content, "one.mp4") == take(uploads, content, "two.mp4") == "one.mp4"
    (stored,) = (path for path in search.video_index.entries if "uploads" in path)
    assert Uploads(search, 1_000_000).names == {stored: "one.mp4"}


def test_other_machines_do_not_reach_it_unless_told(search: VideoSearch):
    port = free_port()
    server = multiprocessing.get_context("fork").Process(target=serve, args=(search,), kwargs=dict(port=port))
    server.start()
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            assert server.is_alive()
            time.sleep(0.1)
        with socket.socket() as probe:  # all of 127.0.0.0/8 is this machine; only one address of it is listened at
            assert probe.connect_ex(("127.0.0.2", port)) != 0
    finally:
        server.kill()
        server.join()
