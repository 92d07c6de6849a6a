"""Hostile and damaged HTTP requests against a running page, which is served by a process of its own.

A case is a JSON file: requests as they go over the wire, in latin-1, and whether an event's answer is waited for.
"""

import atexit
import json
import multiprocessing
import random
import select
import shutil
import socket
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from clipbert_mm.errors import ClipBertError

SECONDS = 45
"""Time that an answer may take, in seconds."""
SECRET = "b7f3-the-secret-of-this-machine"
ROUTES = (
    *(
        "/",
        "/config",
        "/media/{key}",
        "/media/{path}",
        "/thumbnails/{key}-0000000000000000",
        "/thumbnails/{path}",
        "/assets/{path}",
        "/static/{path}",
        "/svelte/{path}",
        "/file={path}",
    ),
    *(
        "/gradio_api/file={path}",
        "/gradio_api/file/{path}",
        "/gradio_api/proxy={path}",
        "/gradio_api/info",
        "/favicon.ico",
    ),
    *(
        "/gradio_api/deep_link?session_hash={path}",
        "/?deep_link={path}",
        "/config?deep_link={path}",
        "/gradio_api/runs",
    ),
    *("/gradio_api/stream/{path}/1/1/playlist-file", "/gradio_api/stream/a/b/1/playlist.m3u8", "/gradio_api/vibe-code"),
    *(
        "/gradio_api/custom_component/{path}/client/a/b",
        "/gradio_api/queue/data?session_hash={path}",
        "/monitoring/{path}",
    ),
    *(
        "/gradio_api/heartbeat/{path}",
        "/gradio_api/upload_progress?upload_id={path}",
        "/gradio_api/openapi.json",
        "/uploads",
    ),
    *(
        "/gradio_api/startup-events",
        "/gradio_api/app_id",
        "/pwa_icon/{path}",
        "/manifest.json",
        "/theme.css",
        "/{path}",
    ),
)
POSTS = (
    *(
        "/gradio_api/queue/join",
        "/gradio_api/call/run",
        "/gradio_api/run/predict",
        "/gradio_api/api/0",
        "/gradio_api/upload",
    ),
    *(
        "/gradio_api/component_server",
        "/gradio_api/process_recording",
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/uploads",
    ),
    *(
        "/gradio_api/call/v2/run",
        "/gradio_api/stream/a",
        "/gradio_api/vibe-edit",
        "/gradio_api/run-history/connect",
        "/login",
    ),
)


NAMES = (
    *(
        "a.mp4",
        "a.avi",
        "a.mkv",
        "a.py",
        "..",
        ".mp4",
        "a" * 3000 + ".mp4",
        "\u202e4pm.exe.mp4",
        "a\x00.mp4",
        "caf\udce9.mp4",
    ),
    *("<img src=x onerror=alert(1)>.mp4", "${7*7}{{7*7}}.mp4", "con.mp4", "a.MP4 ", "12:30 talk.mp4", ""),
)
"""What uploads are called."""


class RefusedError(ClipBertError):
    """What a refusal of the page is to the runner of these cases."""


def prepare(folder: Path) -> None:
    """Write models and videos, plant a secret, and serve the page until this process ends."""
    import pages
    from warm_python import processes

    pages.write_page_world(folder / "world")
    (folder / "secret.txt").write_text(SECRET)
    gallery = Path(tempfile.mkdtemp(prefix="damage-gallery-"))
    atexit.register(shutil.rmtree, gallery, ignore_errors=True)
    page, theirs = multiprocessing.Pipe()
    processes().Process(target=pages.serve_world, args=(str(folder / "world"), str(gallery), theirs)).start()
    theirs.close()
    facts = page.recv()
    atexit.register(page.close)  # before Python waits for its processes; the page ends with it
    places = [str(folder / "world"), str(gallery), str(Path(pages.__file__).parent)]
    (folder / "page.json").write_text(json.dumps(facts | dict(places=places)))


def damage(rng: random.Random, folder: Path, target: Path) -> str:
    """Write a hostile request; see the module."""
    facts = json.loads((folder / "page.json").read_text())
    make = rng.choice((_event, _event, _event, _body, _route, _route, _post, _multipart, _upload, _upload, _head))
    requests, what = make(rng, folder, facts)
    path = target.with_suffix(".json")
    whole = make is not _head and "'Content_Length'" not in what
    case = dict(facts, whole=whole, requests=[raw.decode("latin-1") for raw in requests])
    path.write_text(json.dumps(case))
    return f"{path}: {make.__name__[1:]}: {what[:200]!r}"


def use(path: Path) -> None:
    """Send the requests one after the other.

    Raises:
        RefusedError: If the page refuses one, or shows an error, as it should.
        AssertionError: If an answer is a server's error or gives something away, or there is none.
    """
    case = json.loads(path.read_text())
    refused = ""
    for raw in case["requests"]:
        answer = _send(case["port"], raw.encode("latin-1"), case["whole"])
        head, _, body = answer.partition(b"\r\n\r\n")
        status = int(head.split()[1]) if head.startswith(b"HTTP/") else 0
        for place in (SECRET, *case["places"]):
            assert place.encode() not in body, f"{status}: the answer has {place}: {body[:300]!r}"
        assert status < 500 or status in (503, 507), f"{status}: {body[:300]!r}"
        if status >= 400 or status == 0 or b'"success":false' in body:
            refused = f"{status}: {body[:300].decode(errors='replace')}"
    answer = _send(case["port"], _request("GET", "/theme.css", case["port"]), True)
    assert answer.startswith(b"HTTP/1.1 200"), f"the page is gone: {answer[:300]!r}"
    if refused:
        raise RefusedError(refused)


def _send(port: int, raw: bytes, whole: bool) -> bytes:
    """Send bytes and return all that comes until the page ends the connection.

    Args:
        port: Where the page is.
        raw: The request.
        whole: Whether the page can tell where it ends; else this visitor hangs up after a second.
    """
    answer = b""
    with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as connection:
        with suppress(BrokenPipeError, ConnectionResetError):  # it was refused before all of it came
            connection.sendall(raw)
        if not whole and not select.select([connection], [], [], 1.0)[0]:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)
        with suppress(ConnectionResetError):
            while piece := connection.recv(1 << 16):
                answer += piece
    return answer


def _request(method: str, path: str, port: int, body: bytes | None = None, **headers: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1"]
    headers = {"Host": f"127.0.0.1:{port}", "Connection": "close"} | headers
    if body is not None:
        headers = {"Content_Length": str(len(body))} | headers
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + (body or b"")


def _hostile(rng: random.Random, folder: Path) -> Any:
    """Return a value that no event takes, or takes with care."""
    secret = str(folder / "secret.txt")
    file = {"path": secret, "meta": {"_type": "gradio.FileData"}}
    makers: tuple[Callable[[], Any], ...] = (
        lambda: file,
        lambda: [file],
        lambda: {"a": {"b": [file]}},
        lambda: file | {"url": f"file://{secret}", "orig_name": "../../a", "is_stream": rng.random() < 0.5, "size": -1},
        lambda: {"path": f"http://127.0.0.1:9/{rng.random()}", "meta": {"_type": "gradio.FileData"}},
        lambda: secret,
        lambda: "../" * rng.randrange(1, 12) + secret,
        lambda: (
            rng.choice(["a", "é", "💡", "\u202e", "\x00", "\u200b", "["])
            * rng.choice([0, 1, 999, 1000, 1001, 70_000, 3_000_000])
        ),
        lambda: rng.choice(
            ["${7*7}", "{{7*7}}", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[UNK]", "\ud800"]
        ),
        lambda: rng.choice([10**400, -(10**30), 2**63, 1e308, -0.0, 5.5, 0, 21, -1, True, None, [], {}, ""]),
        lambda: float(rng.choice(["nan", "inf", "-inf"])),
        lambda: [[[[]]]] * rng.randrange(1, 2000),
        lambda: "0" * 32,
        lambda: {"__type__": "update", "value": file, "choices": [secret]},
    )
    return rng.choice(makers)()


def _valid(rng: random.Random, facts: dict[str, Any]) -> tuple[int, list[Any]]:
    """Return an event as the page sends it."""
    name = rng.choice(["hits", "hits", "answers", "answers", "videos", "ask-video"])
    values = {
        "hits": ["a red circle", rng.randint(1, 20), rng.choice([None, "videos"]), None, rng.choice([None, 9.5])],
        "answers": [rng.choice(facts["keys"]), "red circle", None],
        "videos": [rng.choice(["", "1"]), rng.randint(1, 3)],
        "ask-video": [rng.choice(["", "1.mp4"])],
    }
    return facts["numbers"][name], values[name]


def _join(rng: random.Random, facts: dict[str, Any], body: dict[str, Any]) -> list[bytes]:
    text = json.dumps(body).encode()
    follow = f"/gradio_api/queue/data?session_hash={quote(str(body.get('session_hash')))[:500]}"
    sent = _request("POST", "/gradio_api/queue/join", facts["port"], text, Content_Type="application/json")
    return [sent, _request("GET", follow, facts["port"])] if rng.random() < 0.9 else [sent]


def _event(rng: random.Random, folder: Path, facts: dict[str, Any]) -> tuple[list[bytes], str]:
    """An event of which some value, or none, is another one."""
    number, data = _valid(rng, facts)
    if data and rng.random() < 0.9:
        data[rng.randrange(len(data))] = _hostile(rng, folder)
    if rng.random() < 0.1:
        data.append(_hostile(rng, folder))
    body = dict(fn_index=number, data=data, session_hash=f"s{rng.getrandbits(40):x}", event_data=None, trigger_id=None)
    return _join(rng, facts, body), f"{number} {str(data)[:100]}"


def _body(rng: random.Random, folder: Path, facts: dict[str, Any]) -> tuple[list[bytes], str]:
    """An event with other fields, or that is no JSON."""
    number, data = _valid(rng, facts)
    body: dict[str, Any] = dict(fn_index=number, data=data, session_hash=f"s{rng.getrandbits(40):x}")
    if rng.random() < 0.6:
        field = rng.choice(
            [
                "fn_index",
                "data",
                "session_hash",
                "event_data",
                "trigger_id",
                "event_id",
                "simple_format",
                "batched",
                "request",
            ]
        )
        body[field] = _hostile(rng, folder)
        return _join(rng, facts, body), f"{field}: {str(body[field])[:100]}"
    text = bytearray(json.dumps(body).encode())
    for _ in range(rng.randrange(1, 6)):
        text[rng.randrange(len(text))] = rng.randrange(256)
    text = rng.choice([text, text[: rng.randrange(len(text))], bytearray(b"[" * rng.randrange(1, 60_000)), bytearray()])
    kind = rng.choice(["application/json", "text/plain", "multipart/form-data", "application/json; charset=utf-16", ""])
    return [_request("POST", "/gradio_api/queue/join", facts["port"], bytes(text), Content_Type=kind)], str(
        bytes(text)[:80]
    )


def _path(rng: random.Random, folder: Path) -> str:
    """A way that leads to the secret, in one of its writings."""
    secret = str(folder / "secret.txt")
    path = (
        rng.choice(
            ["", "../" * 8, "..%2f" * 8, "....//" * 6, "%2e%2e/" * 8, "..\\" * 8, "file://", "http://127.0.0.1:9", "//"]
        )
        + secret
    )
    path = rng.choice(
        [path, path.replace("/", "%2f"), path.replace("/", "%252f"), quote(path), path + "%00.mp4", path + "/."]
    )
    return rng.choice([path, path, path + "a" * rng.choice([100, 5000]), "\u00e9" + path, "NaN", "-1", "%ff%fe", "%00"])


def _route(rng: random.Random, folder: Path, facts: dict[str, Any]) -> tuple[list[bytes], str]:
    """Something to read that the page does not have."""
    path = rng.choice(ROUTES).format(path=_path(rng, folder), key=rng.choice(facts["keys"]))
    method = rng.choice(["GET"] * 6 + ["HEAD", "OPTIONS", "PUT", "DELETE", "PATCH", "TRACE"])
    headers = rng.choice(
        [{}, dict(Range=rng.choice(["bytes=0-0", "bytes=-5", "bytes=5-2", "bytes=" + "0-1," * 500, "bytes=9e9-"]))]
    )
    return [_request(method, path, facts["port"], **headers)], f"{method} {path}"


def _post(rng: random.Random, folder: Path, facts: dict[str, Any]) -> tuple[list[bytes], str]:
    """Something sent to a route of Gradio's."""
    path = rng.choice(POSTS)
    fields = ("data", "fn_index", "session_hash", "component_id", "fn_name", "prompt", "code", "bucket_id")
    body = {field: _hostile(rng, folder) for field in rng.sample(fields, 4)}
    text = json.dumps(body).encode()
    return [_request("POST", path, facts["port"], text, Content_Type="application/json")], f"{path} {str(body)[:100]}"


def _multipart(rng: random.Random, folder: Path, facts: dict[str, Any]) -> tuple[list[bytes], str]:
    """A form with files, whole or broken."""
    name = rng.choice(
        ["a.mp4", "../../a.mp4", str(folder / "secret.txt"), "", "a" * 5000, "\x00.mp4", 'a"; filename="b']
    )
    text = f'--b\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\nhello\r\n--b--\r\n'.encode()
    text = rng.choice(
        [text, text[: rng.randrange(len(text))], text * 50, text.replace(b"\r\n", b"\n"), text.replace(b"--b", b"--c")]
    )
    kind = rng.choice(
        ["multipart/form-data; boundary=b", "multipart/form-data", "multipart/form-data; boundary=" + "b" * 300]
    )
    path = rng.choice(
        ["/gradio_api/upload", "/gradio_api/upload?upload_id=a", "/uploads?name=a.mp4", "/gradio_api/process_recording"]
    )
    return [_request("POST", path, facts["port"], text, Content_Type=kind)], f"{path} {name[:60]} {kind[:40]}"


def _upload(rng: random.Random, folder: Path, facts: dict[str, Any]) -> tuple[list[bytes], str]:
    """A file under a hostile name, or a hostile file."""
    secret = str(folder / "secret.txt")
    video = bytearray((folder / "world" / "videos" / rng.choice(["0.mp4", "2.avi"])).read_bytes())
    if rng.random() < 0.7:
        for _ in range(rng.randrange(1, 20)):
            video[rng.randrange(len(video))] = rng.randrange(256)
    contents = (
        bytes(video),
        bytes(video[: rng.randrange(len(video))]),
        b"",
        f"ffconcat version 1.0\nfile {secret}\n".encode(),
        f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{secret}\n#EXT-X-ENDLIST\n".encode(),
        f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 9 RTP/AVP 96\na=file:{secret}\n".encode(),
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        bytes(rng.randrange(256) for _ in range(500)),
        b"\x00" * 400_000,
    )
    content = rng.choice(contents[:1] * 5 + contents)
    name = rng.choice((f"../../../{secret}.mp4", *NAMES))
    query = quote(name.encode("utf-8", "surrogateescape"))
    headers = rng.choice([{}] * 6 + [dict(Content_Length=rng.choice(["-1", "nine", "9" * 30, str(len(content) + 50)]))])
    headers |= rng.choice([{}] * 8 + [dict(Origin="http://evil.example")])
    requests = [_request("POST", f"/uploads?name={query}", facts["port"], content, **headers)]
    search = dict(
        fn_index=facts["numbers"]["hits"],
        data=["a red circle", 20, None, None, None],
        session_hash=f"s{rng.getrandbits(40):x}",
    )
    requests += _join(rng, facts, search)
    return requests, f"{name[:60]!r} {content[:60]!r} {headers}"


def _head(rng: random.Random, folder: Path, facts: dict[str, Any]) -> tuple[list[bytes], str]:
    """A request with a damaged or hostile head."""
    port = facts["port"]
    name, value = rng.choice(
        [
            (
                "Host",
                rng.choice(
                    [
                        "evil.example",
                        "",
                        "127.0.0.1.evil.example",
                        "[::1",
                        "a" * 5000,
                        "127.0.0.1:99999",
                        "127.0.0.1, a",
                    ]
                ),
            ),
            (
                "Origin",
                rng.choice(
                    ["http://evil.example", "null", "http://[", "a" * 5000, f"http://127.0.0.1:{port}@evil.example"]
                ),
            ),
            ("X_Forwarded_Host", "evil.example"),
            ("X_Forwarded_Proto", "javascript"),
            ("Cookie", "access-token=" + "a" * 20_000),
            ("Transfer_Encoding", rng.choice(["chunked", "gzip, chunked", "identity", "chunked, chunked"])),
            ("Expect", "100-continue"),
            ("Upgrade", "websocket"),
            ("Accept_Language", "\x00" if rng.random() < 0.5 else "a" * 200_000),
            ("Content_Encoding", "gzip"),
        ]
    )
    number, data = _valid(rng, facts)
    text = json.dumps(dict(fn_index=number, data=data, session_hash="head")).encode()
    method, path, body = rng.choice(
        [("POST", "/gradio_api/queue/join", text), ("GET", "/", None), ("GET", "/config", None)]
    )
    raw = _request(method, path, port, body, **{name: value})
    if rng.random() < 0.3:
        cut = bytearray(raw)
        cut[rng.randrange(min(len(cut), 80))] = rng.randrange(256)
        raw = bytes(cut)
    return [raw], f"{method} {path} {name}: {value[:60]!r}"
