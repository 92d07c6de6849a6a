"""The web application: Gradio's page, and the videos of the gallery."""

import errno
import logging
import socket
from collections.abc import Callable, Sequence

import anyio
import anyio.to_thread
import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from fastapi.responses import FileResponse, JSONResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect

from clipbert_mm.apis.page.events import Events
from clipbert_mm.apis.page.gate import Gate
from clipbert_mm.apis.page.playback import PlayableMedia
from clipbert_mm.apis.page.rendering import STYLE
from clipbert_mm.apis.page.uploads import UploadError, Uploads
from clipbert_mm.apis.page.view import build_view
from clipbert_mm.apis.video_qa import VideoQA
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import OptionError, printable, quoted

LOCAL = ("localhost", "127.0.0.1", "[::1]")
"""What this machine is called by itself."""
CONNECTIONS = 512
"""Connections that are served at a time; each open page holds one or two."""


def build_app(
    search: VideoSearch,
    qa: VideoQA | None = None,
    *,
    max_upload: int = 200_000_000,
    max_uploads: int = 100,
    hosts: Sequence[str] = LOCAL,
) -> FastAPI:
    """Build the application. It serves the page and, under ``/media``, the videos of the gallery by their keys.

    Args:
        search: Searches the gallery.
        qa: Answers questions; None leaves that part of the page out.
        max_upload: Size of the largest upload in bytes.
        max_uploads: Most uploads that are kept.
        hosts: What the page is called in the address; requests for any other host are refused.

    Raises:
        VideoIndexError: If what the page keeps in the gallery is damaged, or a link that may lead out of it.
        OptionError: If a bound makes no sense, or a name is none of a host.
    """
    if max_upload < 1 or max_uploads < 0:
        raise OptionError(f"max_upload >= 1 and max_uploads >= 0 are expected, got {max_upload} and {max_uploads}.")
    odd = [host for host in hosts if "*" in host.removeprefix("*.")]
    if odd:
        raise OptionError(f"Names of hosts are expected, as videos.example or *.videos.example, got {quoted(odd[0])}.")
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    media, uploads = PlayableMedia(search.gallery), Uploads(search, max_upload, max_uploads)
    one = anyio.CapacityLimiter(1)  # one video is written anew at a time; who waits for it holds no thread

    @app.get("/media/{key}")
    async def play(key: str) -> FileResponse:
        try:
            found = (
                media.find(key) if media.is_known(key) else await anyio.to_thread.run_sync(media.find, key, limiter=one)
            )
        except FileNotFoundError:
            raise HTTPException(404, "There is no such video in the gallery.") from None
        return FileResponse(found.path, media_type=found.kind)

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
    app.add_middleware(Gate, events=events, sessions=view._queue.pending_messages_per_session)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False)
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app,
        view,
        path="/",
        theme=theme,
        css=STYLE,
        show_error=False,
        ssr_mode=False,
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        footer_links=[],
    )


def serve(
    search: VideoSearch,
    qa: VideoQA | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    allow_hosts: Sequence[str] = (),
    max_upload: int = 200_000_000,
    max_uploads: int = 100,
    ready: Callable[[str], None] | None = None,
) -> None:
    """Serve the page until it is stopped. Other machines reach it only if ``host`` says so.

    Videos are decoded in processes of their own, so a script calls this below ``if __name__ == "__main__":``.

    Args:
        search: Searches the gallery.
        qa: Answers questions; None leaves that part of the page out.
        host: Address to listen at.
        port: Port to listen at; 0 for any that is free.
        allow_hosts: What the page is called in the address, beside ``host`` and this machine's own names.
        max_upload: Size of the largest upload in bytes.
        max_uploads: Most uploads that are kept.
        ready: Is told the address once the port is the page's.

    Raises:
        OptionError: If it cannot listen there, or a bound makes no sense.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    named = f"[{host}]" if ":" in host else host
    with _bind(host, port) as listener:
        hosts = (*LOCAL, named, *allow_hosts)
        app = build_app(search, qa, max_upload=max_upload, max_uploads=max_uploads, hosts=hosts)
        config = uvicorn.Config(
            app, log_level="warning", limit_concurrency=CONNECTIONS, timeout_graceful_shutdown=3, server_header=False
        )
        if ready is not None:
            ready(f"http://{named}:{listener.getsockname()[1]}")
        uvicorn.Server(config).run([listener])


def _bind(host: str, port: int) -> socket.socket:
    """Make an address and port this process's own.

    Raises:
        OptionError: If they are another program's, or not to be had.
    """
    try:
        family = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise OptionError(f"--host {host} is no address to listen at: {error.strerror or error}.") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # else a page that ended holds it for a minute
        listener.bind((host, port))
        listener.listen(1)  # a port that another one has bound is refused here at the latest
    except (OSError, OverflowError) as error:
        listener.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise OptionError(
                f"Port {port} of {host} is another program's already. Choose another one: --port PORT."
            ) from error
        raise OptionError(
            f"The page cannot listen at port {port} of {host}: {getattr(error, 'strerror', None) or error}."
        ) from error
    return listener
