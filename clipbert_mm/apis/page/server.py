"""The web application: Gradio's page, and the videos of the gallery."""

import logging

import gradio as gr
import uvicorn
from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from clipbert_mm.apis.page.media import PlayableMedia
from clipbert_mm.apis.page.rendering import STYLE
from clipbert_mm.apis.page.uploads import Uploads
from clipbert_mm.apis.page.view import build_view
from clipbert_mm.apis.video_qa import VideoQA
from clipbert_mm.apis.video_search import VideoSearch


def build_app(search: VideoSearch, qa: VideoQA | None = None, *, max_upload: int = 200_000_000) -> FastAPI:
    """Build the application. It serves the page and, under ``/media``, the videos of the gallery by their keys.

    Args:
        search: Searches the gallery.
        qa: Answers questions; None leaves that part of the page out.
        max_upload: Size of the largest upload in bytes.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    media = PlayableMedia(search.gallery)

    @app.get("/media/{key}")
    def play(key: str) -> FileResponse:
        try:
            path, kind = media.find(key)
        except FileNotFoundError:
            raise HTTPException(404, "There is no such video in the gallery.") from None
        return FileResponse(path, media_type=kind, headers={"X-Content-Type-Options": "nosniff"})

    view = build_view(search, qa, Uploads(search, max_upload))
    theme = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
    return gr.mount_gradio_app(
        app, view, path="/", max_file_size=max_upload, theme=theme, css=STYLE, ssr_mode=False, show_error=False
    )


def serve(
    search: VideoSearch,
    qa: VideoQA | None = None,
    *,
    host: str = "127.0.0.1",
    port: int = 7860,
    max_upload: int = 200_000_000,
) -> None:
    """Serve the page until it is stopped. Other machines reach it only if ``host`` says so.

    Args:
        search: Searches the gallery.
        qa: Answers questions; None leaves that part of the page out.
        host: Address to listen at.
        port: Port to listen at.
        max_upload: Size of the largest upload in bytes.
    """
    logging.getLogger("httpx").setLevel(logging.WARNING)
    uvicorn.run(build_app(search, qa, max_upload=max_upload), host=host, port=port, log_level="warning")
