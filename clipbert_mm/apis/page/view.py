"""The page: searching, asking, bringing videos along."""

import os
from collections.abc import Callable
from typing import Any

import gradio as gr

from clipbert_mm.apis.indexing import VIDEOS
from clipbert_mm.apis.page.rendering import render_answers, render_hits, shown_name
from clipbert_mm.apis.page.uploads import UploadError, Uploads
from clipbert_mm.apis.video_qa import CHOICE, VideoQA
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import BrokenMediaError, GalleryError, OptionError

MINE = (BrokenMediaError, GalleryError, UploadError, ValueError)
"""Errors that are a visitor's to mend."""


def build_view(search: VideoSearch, qa: VideoQA | None, uploads: Uploads) -> gr.Blocks:
    """Build the page.

    Args:
        search: Searches the gallery.
        qa: Answers questions; None leaves that part out.
        uploads: Takes what visitors bring along.
    """
    with gr.Blocks(title="clipbert_mm", analytics_enabled=False, delete_cache=(3600, 3600)) as view:
        gr.Markdown("# Your videos")
        with gr.Tab("Search"):
            _search_part(search, uploads)
        if qa is not None:
            with gr.Tab("Ask"):
                _ask_part(view, search, qa, uploads)
        with gr.Tab("Videos"):
            _videos_part(view, search, uploads)
    return view


def _guarded(step: Callable[..., Any]) -> Callable[..., Any]:
    """Show a visitor's mistakes as such; other errors go to the log."""

    def run(*arguments: Any) -> Any:  # noqa: ANN401
        try:
            return step(*arguments)
        except MINE as error:
            raise gr.Error(str(error), duration=None, print_exception=False) from error

    return run


def _search_part(search: VideoSearch, uploads: Uploads) -> None:
    def find(text: str, topk: float) -> str:
        return render_hits(search.search(text, int(topk)), search.gallery.entries, uploads.names)

    with gr.Row():
        text = gr.Textbox(label="What is to be seen?", scale=4, min_width=320, elem_id="search-text")
        topk = gr.Slider(1, 20, value=5, step=1, label="Hits")
    button = gr.Button("Search", variant="primary")
    hits = gr.HTML(elem_id="hits")
    gr.on([button.click, text.submit], _guarded(find), [text, topk], hits)


def _ask_part(view: gr.Blocks, search: VideoSearch, qa: VideoQA, uploads: Uploads) -> None:
    def answer(path: str | None, question: str, options: str | None) -> str:
        if path not in search.gallery.entries:
            raise OptionError("Choose a video first.")
        chosen = [line.strip() for line in (options or "").splitlines() if line.strip()] or None
        result = qa.ask(path, question, chosen)
        return render_answers(result, search.gallery.entries[path], uploads.names)

    def choices() -> gr.Dropdown:
        return gr.Dropdown(choices=[(shown_name(path, uploads.names), path) for path in search.gallery.entries])

    with gr.Row():
        video = gr.Dropdown(label="Video", elem_id="ask-video", scale=2)
        question = gr.Textbox(label="Question", elem_id="ask-question", scale=3, min_width=320)
    options = gr.Textbox(
        label="Options, one a line", lines=3, visible=qa.predictor.task == CHOICE, elem_id="ask-options"
    )
    button = gr.Button("Ask", variant="primary")
    answers = gr.HTML(elem_id="answers")
    gr.on([button.click, question.submit], _guarded(answer), [video, question, options], answers)
    video.focus(choices, None, video)
    view.load(choices, None, video)


def _videos_part(view: gr.Blocks, search: VideoSearch, uploads: Uploads) -> None:
    def listed() -> list[list[str]]:
        return [
            [shown_name(path, uploads.names), "" if entry.seconds is None else f"{entry.seconds:.1f}"]
            for path, entry in search.gallery.entries.items()
        ]

    def add(files: list[str] | None) -> tuple[None, list[list[str]]]:
        for file in files or ():
            uploads.add(file, os.path.basename(file))
        return None, listed()

    gr.Markdown(f"Bring videos along: at most {uploads.max_bytes / 1e6:.0f} MB each.")
    files = gr.File(file_count="multiple", file_types=list(VIDEOS), label="Upload", elem_id="upload", height=140)
    table = gr.Dataframe(headers=["video", "seconds"], interactive=False, elem_id="videos", wrap=True)
    files.upload(_guarded(add), files, [files, table])
    view.load(listed, None, table)
