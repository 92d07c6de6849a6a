"""Web application: Gradio's page, the videos of the index, and uploads."""

import asyncio
import errno
import logging
import socket
from collections.abc import Callable, Container, Sequence

import anyio
import anyio.to_thread
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from clipbert_mm.apis.page.api import Api
from clipbert_mm.apis.page.events import Events
from clipbert_mm.apis.page.gate import Gate
from clipbert_mm.apis.page.playback import PlayableMedia
from clipbert_mm.apis.page.rendering import SCRIPT, STYLE
from clipbert_mm.apis.page.thumbnails import BusyError, Thumbnails
from clipbert_mm.apis.page.uploads import UploadError, Uploads
from clipbert_mm.apis.page.view import build_view
from clipbert_mm.apis.video_qa import VideoQA
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import OptionError, printable, quoted

LOCAL = ("localhost", "127.0.0.1", "[::1]")
"""Names of this machine."""
CONNECTIONS = 512
"""Most connections at a time; each open page holds one or two."""
KEPT = "private, max-age=604800, immutable"
"""How long browsers keep a thumbnail; that of a changed video has another name."""


def build_app(
    search: VideoSearch,
    qa: VideoQA | None = None,
    *,
    max_upload: int = 200_000_000,
    max_uploads: int = 100,
    hosts: Sequence[str] = LOCAL,
    paths: bool = False,
) -> FastAPI:
    """Build the application, which serves the page and, by key, videos under ``/media`` and their ``/thumbnails``.

    Args:
        search: Searches the index.
        qa: Answers questions; None for a page without questions.
        max_upload: Most bytes of an upload.
        max_uploads: Most uploads to keep.
        hosts: Host names of the page; requests for other hosts are rejected.
        paths: Whether the routes for scripts tell and take paths of this machine.

    Raises:
        VideoIndexError: If the page's files in the index are damaged, or a symbolic link that may lead out of it.
        OptionError: If a limit or a host name is invalid.
    """
    import gradio as gr  # takes seconds

    if max_upload < 1 or max_uploads < 0:
        raise OptionError(f"Expected max_upload >= 1 and max_uploads >= 0, got {max_upload} and {max_uploads}.")
    app = _new_app(search, hosts, paths)
    media, uploads = PlayableMedia(search.video_index), Uploads(search, max_upload, max_uploads)
    thumbnails = Thumbnails(search.video_index)
    one = anyio.CapacityLimiter(1)  # re-encode one video at a time; waiting requests hold no thread

    @app.get("/media/{key}")
    async def play(key: str) -> FileResponse:
        try:
            playable = (
                media.find(key) if media.is_known(key) else await anyio.to_thread.run_sync(media.find, key, limiter=one)
            )
        except FileNotFoundError:
            raise HTTPException(404, "There is no such video in the index.") from None
        return FileResponse(playable.path, media_type=playable.media_type)

    @app.get("/thumbnails/{name}")
    async def show(name: str) -> Response:
        try:
            found = await anyio.to_thread.run_sync(thumbnails.find, name)
            # Shielded, since others may wait for the same one.
            content = found if isinstance(found, bytes) else await asyncio.shield(asyncio.wrap_future(found))
        except BusyError:
            raise HTTPException(503, "Too many pictures are being made. Try again in a minute.") from None
        except FileNotFoundError:
            content = None
        if content is None:
            raise HTTPException(404, "There is no picture of this video.")
        return Response(content, media_type="image/jpeg", headers={"Cache-Control": KEPT})

    @app.post("/uploads")
    async def take(request: Request, name: str = "") -> JSONResponse:
        try:
            return JSONResponse(dict(name=await uploads.receive(request.stream(), name)))
        except UploadError as error:
            return JSONResponse(dict(detail=printable(str(error))), error.status)
        except ClientDisconnect:
            return JSONResponse(dict(detail="The connection was lost."), 400)

    view = build_view(search, qa, uploads, media)
    events = Events({number: event.fn for number, event in view.fns.items() if event.fn})
    _protect(app, events, view._queue.pending_messages_per_session, hosts)
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app,
        view,
        path="/",
        theme=theme,
        css=STYLE,
        head=SCRIPT,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        footer_links=[],
    )


def build_api(search: VideoSearch, *, hosts: Sequence[str] = LOCAL, paths: bool = False) -> FastAPI:
    """Build an application of the routes for scripts alone, which takes no Gradio; arguments are those of :func:`build_app`.

    Raises:
        OptionError: If a host name is invalid.
    """
    app = _new_app(search, hosts, paths)
    _protect(app, Events({}), (), hosts)
    return app


def _new_app(search: VideoSearch, hosts: Sequence[str], paths: bool) -> FastAPI:
    """Build an application with the routes for scripts.

    Raises:
        OptionError: If a host name is invalid.
    """
    invalid = [host for host in hosts if "*" in host.removeprefix("*.")]
    if invalid:
        raise OptionError(f"Expected host names such as videos.example or *.videos.example, got {quoted(invalid[0])}.")
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    Api(search, paths=paths).add_to(app)
    return app


def _protect(app: FastAPI, events: Events, sessions: Container[str], hosts: Sequence[str]) -> None:
    app.add_middleware(Gate, events=events, sessions=sessions)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)


def serve(
    search: VideoSearch,
    qa: VideoQA | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    allow_hosts: Sequence[str] = (),
    max_upload: int = 200_000_000,
    max_uploads: int = 100,
    paths: bool = False,
    api_only: bool = False,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the page until it is stopped. Other machines can reach it only if ``host`` allows it.

    Videos are decoded in separate processes, so a script calls this below ``if __name__ == "__main__":``.

    Args:
        search: Searches the index.
        qa: Answers questions; None for a page without questions.
        host: Address to listen on.
        port: Port to listen on; 0 for a free one.
        allow_hosts: Host names of the page, besides ``host`` and the names of this machine.
        max_upload: Most bytes of an upload.
        max_uploads: Most uploads to keep.
        paths: Whether the routes for scripts tell and take paths of this machine.
        api_only: Whether to serve these routes alone, which takes no Gradio.
        ready: Called with the address once the page listens.

    Raises:
        OptionError: If it cannot listen there, or a limit or a host name is invalid.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    named = f"[{host}]" if ":" in host else host
    with _bind(host, port) as listener:
        hosts = (*LOCAL, named, *allow_hosts)
        if api_only:
            app = build_api(search, hosts=hosts, paths=paths)
        else:
            app = build_app(search, qa, max_upload=max_upload, max_uploads=max_uploads, hosts=hosts, paths=paths)
        config = uvicorn.Config(
            app, log_level="warning", limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=3, server_header=False
        )
        if ready is not None:
            ready(f"http://{named}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run([listener])


def _bind(host: str, port: int) -> socket.socket:
    """Bind a socket to an address and a port.

    Raises:
        OptionError: If they are in use or cannot be bound.
    """
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise OptionError(f"Cannot listen on --host {host}: {error.strerror or error}.") from error
    try:
        listener.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # without it a stopped page holds the port for a minute
        listener.bind((host, port))
        listener.listen(1)  # fails here at the latest if the port is in use
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise OptionError(
                f"Port {port} of {host} is in use by another program. Choose another one: --port PORT."
            ) from error
        raise OptionError(
            f"Cannot listen on port {port} of {host}: {getattr(error, 'strerror', None) or error}."
        ) from error
    return listener
