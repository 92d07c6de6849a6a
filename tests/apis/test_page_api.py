"""The routes for scripts, and the command that asks them: in this process, and by a real server."""

import contextlib
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from mmengine.config import Config
from pages import Page, running
from public_models import write_blip

from clipbert_mm.apis import VideoSearch
from clipbert_mm.apis.page import api as api_module
from clipbert_mm.apis.page import build_api
from clipbert_mm.errors import VideoIndexError


@contextlib.contextmanager
def served(search: VideoSearch, **options: bool) -> Iterator[Page]:
    with running(build_api(search, **options)) as address:
        yield Page(address)


@pytest.fixture
def search(
    joined_config: dict,
    runner_config: Config,
    write_checkpoint: Callable,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> VideoSearch:
    monkeypatch.setitem(sys.modules, "gradio", None)  # the routes need none
    runner_config.model = joined_config
    search = VideoSearch(write_checkpoint(), index=tmp_path / "index")
    search.index(world / "videos", workers=0, keep_tokens=True)
    return search


def get(page: Page, route: str, **query: object) -> tuple[int, dict]:
    pairs = [
        (name.rstrip("_"), each)
        for name, value in query.items()
        for each in (value if isinstance(value, list) else [value])
    ]
    status, answer = page.request(f"/api/{route}?{urlencode(pairs)}" if query else f"/api/{route}")
    return status, json.loads(answer)


def test_the_routes_answer_what_a_search_answers(search: VideoSearch, tmp_path: Path):
    entries = search.video_index.entries
    with served(search) as page, served(search, paths=True) as open_page:
        for options in (dict(topk=3), dict(topk=2, shortlist=4), dict(topk=2, vectors_only="true", clips=True)):
            expected = search.search(
                "a red circle", **{name: True if value == "true" else value for name, value in options.items()}
            )
            status, found = get(page, "search", text="a red circle", **options)
            assert status == 200, found
            assert [hit["key"] for hit in found["hits"]] == [entries[hit.path].key for hit in expected.hits]
            assert [hit["score"] for hit in found["hits"]] == pytest.approx([hit.score for hit in expected.hits])
            assert [hit["name"] for hit in found["hits"]] == [os.path.basename(hit.path) for hit in expected.hits]
            assert str(tmp_path) not in json.dumps(found)
            told = get(open_page, "search", text="a red circle", **options)[1]
            assert [hit["path"] for hit in told["hits"]] == [hit.path for hit in expected.hits]
            assert told["hits"][0]["moment"]["start"] == expected.hits[0].moment.start
        first = expected.hits[0].path
        assert get(open_page, "search", text="a", in_=first)[1]["searched"] == 1
        assert get(page, "search", text="a red circle", min_seconds=1e6)[1]["hits"] == []
        near = search.similar(first, topk=2)
        status, found = get(page, "similar", key=entries[first].key, topk=2)
        assert (status, found["key"]) == (200, entries[first].key)
        assert [hit["key"] for hit in found["hits"]] == [entries[hit.path].key for hit in near.hits]
        assert get(open_page, "similar", video=first, topk=2)[1]["hits"][0]["path"] == near.hits[0].path
        info = get(page, "info")[1]
        assert (info["videos"], info["calibrated"], info["score_kind"]) == (len(entries), False, "logit + similarity")
        assert get(open_page, "info")[1]["index"] == str(search.video_index.folder)


def test_bad_requests_are_refused_without_a_path(search: VideoSearch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with served(search) as page:
        for route, query, status, message in (
            ("search", {}, 400, "'text': Field required"),
            ("search", dict(text=" "), 400, "The text is empty"),
            ("search", dict(text="a" * 1001), 400, "at most 1000 characters"),
            ("search", dict(text="red " * 60), 400, "Shorten it"),
            ("search", dict(text="a", topk=0), 400, "'topk'"),
            ("search", dict(text="a", topk=1001), 400, "'topk'"),
            ("search", dict(text=["a", "b"]), 400, "'text' is given twice"),
            ("search", dict(text="a", threshold="nan"), 400, "'threshold'"),
            ("search", dict(text="a", threshold=3), 400, "threshold is a probability"),
            ("search", dict(text="a", vector_pooling="sum"), 400, "vector_pooling is one of"),
            ("search", dict(text="a", secret=1), 400, "'secret'"),
            ("search", dict(text="a", in_="/etc"), 400, "takes no paths"),
            ("search", dict(text="a", min_seconds=5, max_seconds=1), 400, "min_seconds and max_seconds"),
            ("similar", {}, 400, "one of key and video"),
            ("similar", dict(key="../etc"), 400, "'key'"),
            ("similar", dict(key="0" * 32), 404, "no such video"),
            ("similar", dict(video="/etc/passwd"), 400, "takes no paths"),
            ("info", dict(a=1), 400, "'a'"),
            ("else", {}, 404, "Not found"),
        ):
            got = get(page, route, **query)
            assert got[0] == status, (route, query, got)
            assert message in got[1]["detail"], (route, query, got)
            assert str(tmp_path) not in got[1]["detail"]
        assert page.request("/api/search?text=" + quote("é" * 9000))[0] == 414
        assert page.request("/api/search?text=%ff")[0] == 400
        assert page.request("/api/search?text=a", b"")[0] == 404, "no POST"
        assert page.request("/api/search?text=a", Host="evil.example")[0] == 400
        assert page.request("/api/search?text=a", Origin="http://evil.example")[0] == 403
        assert page.request("/")[0] == 404

        def fail(*args: object, **options: object) -> None:
            raise VideoIndexError(f"{tmp_path} is damaged")

        monkeypatch.setattr(search, "search", fail)
        assert get(page, "search", text="a") == (
            500,
            dict(detail="This failed on the server. Its owner finds the reason in its log."),
        )
        search.video_index.remove(list(search.video_index.entries))
        assert get(page, "search", text="a") == (404, dict(detail="There are no videos in the index."))


def test_one_search_runs_and_a_bounded_number_waits(search: VideoSearch, monkeypatch: pytest.MonkeyPatch):
    running, most, go, find = [], [], threading.Event(), search.search
    monkeypatch.setattr(api_module, "WAITING", 2)

    def slow(*args: object, **options: object) -> object:
        running.append(1)
        most.append(len(running))
        go.wait(20)
        running.pop()
        return find(*args, **options)

    monkeypatch.setattr(search, "search", slow)
    with served(search) as page:
        statuses: list[int] = []
        threads = [
            threading.Thread(target=lambda: statuses.append(get(page, "search", text="a red circle")[0]))
            for _ in range(8)
        ]
        for thread in threads:
            thread.start()
        while len(statuses) < 5:
            time.sleep(0.02)
        go.set()
        for thread in threads:
            thread.join()
    assert sorted(statuses) == [200] * 3 + [503] * 5
    assert max(most) == 1


CLIPBERT = [sys.executable, "-m", "clipbert_mm"]


@pytest.mark.slow
def test_a_real_server_and_the_command(world: Path, tmp_path: Path):
    """The model is opened by the server alone; the command imports no library."""
    write_blip(tmp_path / "blip")
    environment = os.environ | dict(XDG_CACHE_HOME=str(tmp_path / "cache"))
    run = lambda *arguments: subprocess.run(  # noqa: E731
        [*CLIPBERT, *map(str, arguments)], capture_output=True, text=True, cwd=tmp_path, env=environment, check=False
    )
    done = run("index", *sorted((world / "videos").glob("test_*.mp4"))[:3], "--model", "blip", "--workers", 1)
    assert done.returncode == 0, done.stderr
    here = json.loads(run("search", "a red circle", "--json", "--topk", 2).stdout)
    server = subprocess.Popen(
        [*CLIPBERT, "serve", "--api-only", "--paths", "--port", "0"],
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env=environment,
    )
    try:
        address = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
        there = run("search", "a red circle", "--json", "--topk", 2, "--server", address)
        assert there.returncode == 0, there.stderr
        found = json.loads(there.stdout)
        assert [hit["path"] for hit in found["hits"]] == [hit["path"] for hit in here["hits"]]
        assert [hit["score"] for hit in found["hits"]] == pytest.approx(
            [hit["score"] for hit in here["hits"]], abs=1e-4
        )
        (tmp_path / "texts.txt").write_text("a red circle\na dog\n")
        lines = run("search", "--queries", "texts.txt", "--csv", "--topk", 1, "--server", address).stdout.splitlines()
        assert len(lines) == 3
        assert lines[1].split(",")[2] == here["hits"][0]["path"]
        assert here["hits"][0]["path"] in run("search", "a red circle", "--server", address).stdout
        code = (
            "import sys\nfrom contextlib import suppress\nfrom clipbert_mm.__main__ import main\n"
            f"with suppress(SystemExit):\n    main(['search', 'a dog', '--server', {address!r}])\n"
            "assert not {'torch', 'numpy', 'mmengine', 'transformers'} & set(sys.modules)"
        )
        assert (
            "a dog" in subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        )
        refused = run("search", "a dog", "--server", address, "--threshold", "0.5", "--clips")
        assert refused.returncode == 1
        assert f"error: The search server {address} refuses: threshold goes with videos" in refused.stderr
    finally:
        server.terminate()
        server.wait(20)
    down = run("search", "a dog", "--server", address)
    assert (down.returncode, down.stderr) == (
        1,
        f"error: Cannot reach the search server {address}: Connection refused. Start it: clipbert serve.\n",
    )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n<html>hello</html>", "expected a result in JSON, got '<html>hello</html>'"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"hits": [1]}', "expected a result in JSON, got"),
        (b'HTTP/1.1 200 OK\r\n\r\n{"hits": [], "text": 1}', "expected a result in JSON, got"),
        (b"HTTP/1.1 404 Not Found\r\n\r\n{}", "expected a result in JSON, got status 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "expected a result in JSON, got BadStatusLine"),
        (b'HTTP/1.1 503 Busy\r\n\r\n{"detail": "The server is busy."}', "refuses: The server is busy."),
        (b"", "expected a result in JSON, got RemoteDisconnected"),
        (None, "did not answer within 1 s. Give it more time: --server-timeout SECONDS."),
    ],
)
def test_a_server_that_answers_nonsense_or_nothing(run_command: Callable, answer: bytes | None, message: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                if answer is None:
                    time.sleep(2)
                else:
                    connection.sendall(answer)

        thread = threading.Thread(target=answer_once, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"
        code, out, err = run_command("search", "a dog", "--server", address, "--server-timeout", 1)
        thread.join(5)
    assert (code, out, err.count("\n")) == (1, "", 1)
    assert message in err


def test_what_does_not_go_with_a_server(run_command: Callable):
    for arguments, message in (
        (("--server", "127.0.0.1:80"), "--server expects an address such as http://127.0.0.1:7860, got '127.0.0.1:80'"),
        (("--server", "file:///etc/passwd"), "--server expects an address"),
        (("--server", "http://127.0.0.1:x"), "--server expects an address"),
        (("--server", "http://127.0.0.1:1", "--model", "a.pth"), "--model does not go with --server"),
        (("--server", "http://127.0.0.1:1", "--explain", "a.png"), "--explain does not go with --server"),
    ):
        code, _, err = run_command("search", "a dog", *arguments)
        assert code == 1
        assert message in err
    code, _, err = run_command("serve", "--api-only", "--qa", "qa.pth")
    assert (code, "--qa goes with the page" in err) == (1, True)
