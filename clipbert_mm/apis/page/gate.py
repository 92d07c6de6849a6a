"""What stands before the page: which routes, origins and events are let in, and how much of a request is read."""

import re
from collections.abc import Container
from urllib.parse import parse_qs, urlsplit

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocketClose

from clipbert_mm.apis.page.events import EventError, Events

READ = re.compile(
    r"/|/(assets|static)/(?!.*\.\.)[\w./@+-]+|/theme\.css|/favicon\.ico|/manifest\.json|/config|/media/[0-9a-f]{32}"
    r"|/gradio_api/(app_id|queue/data)"
)
"""What may be read. Gradio serves more, such as files by their paths, other servers' answers, recordings, an editor."""
EVENT, ANSWERS, UPLOAD = "/gradio_api/queue/join", "/gradio_api/queue/data", "/uploads"
"""Where events are sent to, where their answers come from, and where uploads are sent to."""
ASKED = {ANSWERS, UPLOAD}
"""Routes that take a query; of the others it is dropped."""
LARGEST_EVENT = 64_000
"""Bytes of an event that are read."""
EVENT_SECONDS = 20.0
"""Time in which an event must have come."""
LONGEST_QUERY = 2000
"""Bytes of a query."""
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Gradio's page has scripts and styles in itself, and makes functions of its templates.
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
}
"""Sent with every answer, so that no other page may frame it or embed its videos, and it loads nothing from elsewhere."""


class Gate:
    """ASGI middleware that lets the requests of the page itself in and refuses all others.

    Args:
        app: The page.
        events: The events of the page.
        sessions: The visitors that wait for an answer.
    """

    def __init__(self, app: ASGIApp, events: Events, sessions: Container[str]) -> None:
        self.app = app
        self.events = events
        self.sessions = sessions

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await self._http(scope, receive, _with_headers(send))
        else:
            await WebSocketClose()(scope, receive, send)

    async def _http(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, query = scope["path"], scope["query_string"]
        sent = scope["method"] == "POST"
        reason: tuple[int, str] | None = None
        if not _is_own_origin(Headers(scope=scope)):
            reason = 403, "Another page may not use this one."
        elif not (path in (EVENT, UPLOAD) if sent else scope["method"] in ("GET", "HEAD") and READ.fullmatch(path)):
            reason = 404, "There is nothing at this address."
        elif len(query) > LONGEST_QUERY:
            reason = 414, f"A query may have {LONGEST_QUERY} bytes, this has {len(query)}."
        elif path == ANSWERS and _session(query) not in self.sessions:
            reason = 404, "Nobody waits for an answer under this name."
        scope = dict(scope, query_string=query if path in ASKED else b"", headers=_without_forwarded_host(scope))
        if reason is None and path == EVENT:
            try:
                body = self.events.check(await _read(receive))
            except EventError as error:
                reason = 400, str(error)
            except _TooLargeError:
                reason = 413, f"An event may have {LARGEST_EVENT} bytes. Write less."
            except TimeoutError:
                reason = 408, f"The event did not come within {EVENT_SECONDS:.0f} s."
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
    """More bytes came than an event may have."""


def _is_own_origin(headers: Headers) -> bool:
    """Whether a request comes from the page itself, or from no page."""
    origin = headers.get("origin")
    if origin is None:
        return True
    try:
        return urlsplit(origin).netloc.lower() == headers.get("host", "").lower() != ""
    except ValueError:
        return False


def _without_forwarded_host(scope: Scope) -> list[tuple[bytes, bytes]]:
    """Drop the host that a visitor only claims; Gradio would write its links for it."""
    return [each for each in scope["headers"] if each[0] != b"x-forwarded-host"]


async def _read(receive: Receive) -> bytes:
    body = bytearray()
    with anyio.fail_after(EVENT_SECONDS):
        while True:
            message = await receive()
            body += message.get("body", b"")
            if len(body) > LARGEST_EVENT:
                raise _TooLargeError
            if not message.get("more_body", False):
                return bytes(body)


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand a body that was read on; afterwards what else comes, which is that the visitor has gone."""
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
