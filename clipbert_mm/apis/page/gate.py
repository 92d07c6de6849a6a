"""Middleware that protects the page: allowed routes, origins and events, and limits on the size of requests."""

import re
from collections.abc import Container
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from clipbert_mm.apis.page.events import EventError, Events

READABLE = re.compile(
    r"/|/(assets|static)/(?!.*\.\.)[\w./@+-]+|/theme\.css|/favicon\.ico|/manifest\.json|/config|/media/[0-9a-f]{32}"
    r"|/thumbnails/[0-9a-f]{32}-[0-9a-f]{16}|/api/(search|similar|info)|/gradio_api/(app_id|queue/data)"
)
"""Routes for GET. Gradio serves more, such as files by path, responses of other servers, recordings, an editor."""
EVENT, RESULTS, UPLOAD = "/gradio_api/queue/join", "/gradio_api/queue/data", "/uploads"
"""Routes of events, of their results, and of uploads."""
API = "/api/"
"""Routes that answer with JSON; see :mod:`~clipbert_mm.apis.page.api`."""
WITH_QUERY = {RESULTS, UPLOAD}
"""Routes with a query string; it is dropped for all others."""
MAX_EVENT_BYTES = 64_000
"""Most bytes of an event."""
EVENT_SECONDS = 20.0
"""Timeout for receiving an event."""
MAX_QUERY_BYTES, MAX_API_QUERY_BYTES = 2000, 16_000
"""Most bytes of a query string; the texts of the API take up to twelve for each character."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Gradio's page contains inline scripts and styles, and compiles its templates to functions.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
}
"""Headers that stop other pages from framing this one or embedding its videos, and it from loading from other hosts."""


class Gate:
    """ASGI middleware that accepts the requests of the page itself and rejects all others.

    Args:
        app: The page.
        events: The events of the page.
        sessions: Session hashes that wait for a result.
    """

    def __init__(self, app: ASGIApp, events: Events, sessions: Container[str]) -> None:
        self.app = app
        self.events = events
        self.sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Reject a request, or pass it to the page."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, _with_headers(send))
        else:
            await WebSocketClose()(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, query = scope["path"], scope["query_string"]
        is_post = scope["method"] == "POST"
        reason: tuple[int, str] | None = None
        is_api = path.startswith(API)
        most = MAX_API_QUERY_BYTES if is_api else MAX_QUERY_BYTES
        if not _is_own_origin(Headers(scope=scope)):
            reason = 403, "Requests from other pages are not allowed."
        elif not (
            path in (EVENT, UPLOAD) if is_post else scope["method"] in ("GET", "HEAD") and READABLE.fullmatch(path)
        ):
            reason = 404, "Not found."
        elif len(query) > most:
            reason = 414, f"Expected a query of at most {most} bytes, got {len(query)}."
        elif path == RESULTS and _session(query) not in self.sessions:
            reason = 404, "There is no such session."
        scope = dict(
            scope, query_string=query if is_api or path in WITH_QUERY else b"", headers=_without_forwarded_host(scope)
        )
        if reason is None and path == EVENT:
            try:
                body = self.events.check(await _read(receive))
            except EventError as error:
                reason = 400, str(error)
            except _TooLargeError:
                reason = 413, f"Expected an event of at most {MAX_EVENT_BYTES} bytes, got more. Shorten the text."
            except TimeoutError:
                reason = 408, f"The event did not arrive within {EVENT_SECONDS:.0f} s."
            else:
                scope["headers"] = [each for each in scope["headers"] if each[0] != b"content-length"]
                scope["headers"].append((b"content-length", str(len(body)).encode()))
                receive = _replay(body, receive)
        if reason is not None:
            await JSONResponse({"detail": reason[1]}, reason[0], {"Connection": "close"})(scope, receive, send)
            return
        await self.app(scope, receive, send)


def _session(query: bytes) -> str:
    return parse_qs(query.decode("latin-1")).get("session_hash", [""])[0]


class _TooLargeError(Exception):
    """An event has more bytes than allowed."""


def _is_own_origin(headers: Headers) -> bool:
    """Whether a request comes from the page itself, or from no page at all."""
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
    except ValueError:
        return False


def _without_forwarded_host(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Drop the forwarded host, which a visitor can forge and Gradio would write into its links."""
    return [each for each in scope["headers"] if each[0] != b"x-forwarded-host"]


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    with anyio.fail_after(EVENT_SECONDS):
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > MAX_EVENT_BYTES:
                raise _TooLargeError
            if not message.get("more_body", False):
                return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Return a receiver of a body that was read already, and of later messages, such as a disconnect."""
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return messages.pop() if messages else await receive()

    return next_message


def _with_headers(send: Send) -> Send:
    async def send_with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in HEADERS.items():
                headers[name] = value
        await send(message)

    return send_with_headers
