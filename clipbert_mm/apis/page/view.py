"""Components and events of the page: search, questions, and uploads."""

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clipbert_mm.apis.indexing import VIDEOS
from clipbert_mm.apis.page.events import MAX_HITS, MAX_TEXT_LENGTH, Hits, Key, Number, Seconds, Text
from clipbert_mm.apis.page.playback import PlayableMedia
from clipbert_mm.apis.page.rendering import (
    escaped,
    page_label,
    render_answers,
    render_hits,
    render_videos,
    shown_name,
)
from clipbert_mm.apis.page.uploads import DECODE_SECONDS, Uploads
from clipbert_mm.apis.video_qa import CHOICE, VideoQA
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import BrokenMediaError, OptionError
from clipbert_mm.index import Entry, Filter, NamePart, VideoIndex, folder_called

if TYPE_CHECKING:
    import gradio as gr  # takes seconds, so that each function imports it

PER_PAGE = 50
"""Videos of a page of their list."""
CHOICES = 10
"""Most videos to choose from for a question; a part of the name finds others."""
MAX_MESSAGE_LENGTH = 500
"""Most characters of a message."""
QUEUE_SIZE = 32
"""Most events that wait; for further ones the page reports that it is busy."""
MAX_SESSIONS = 1000
"""Most visitors whose page is kept at a time."""
EVENT: dict[str, Any] = dict(preprocess=False, api_visibility="private")
"""Options of every event, whose values the gate has validated, and which is not part of Gradio's API."""
UPLOAD = """
async (...values) => {
  const input = document.querySelector('#upload input'), status = document.querySelector('#upload [role=status]');
  const lines = [];
  const say = (line) => { lines.push(line); status.textContent = lines.join('\\n'); };
  for (const file of input.files) {
    if (file.size > input.dataset.maxBytes) { say(`${file.name} is too large.`); continue; }
    status.textContent = [...lines, `${file.name}: uploading …`].join('\\n');
    try {
      const response = await fetch('/uploads?' + new URLSearchParams({name: file.name}), {method: 'POST', body: file});
      const result = await response.json();
      say(response.ok ? `${result.name}: uploaded.` : result.detail);
    } catch (error) { say(`${file.name}: the connection was lost.`); }
  }
  input.value = '';
  return values;
}
"""
"""Script that uploads the chosen files one by one, before the list of videos is refreshed."""
TURN = "(name, page) => [name, Math.min(1e9, Math.max(1, Math.round(page || 1) + ({})))]"
"""Script that turns a number of pages of the list of videos."""
FIRST = "(name, page) => [name, 1]"
"""Script that turns to the first page."""


def build_view(search: VideoSearch, qa: VideoQA | None, uploads: Uploads, media: PlayableMedia) -> "gr.Blocks":
    """Build the page.

    Args:
        search: Searches the index.
        qa: Answers questions; None for a page without questions.
        uploads: Stores uploads.
        media: Finds videos by key.
    """
    import gradio as gr

    with gr.Blocks(title="clipbert_mm", analytics_enabled=False) as view:
        gr.Markdown("# Your videos")
        with gr.Tab("Search"):
            _search_part(search, uploads)
        if qa is not None:
            with gr.Tab("Ask"):
                _ask_part(view, search, qa, uploads, media)
        with gr.Tab("Videos"):
            _videos_part(view, search, uploads)
    view.queue(max_size=QUEUE_SIZE, default_concurrency_limit=1, api_open=False)
    view.state_session_capacity = MAX_SESSIONS
    view.has_launched = True  # without it Gradio accepts paths of this machine in events
    return view


def _guarded(step: Callable[..., Any], uploads: Uploads) -> Callable[..., Any]:
    """Show a visitor's mistakes without paths of this machine; other errors go to the log only."""

    @functools.wraps(step)  # its annotations are the types of the event
    def run(*arguments: Any) -> Any:  # noqa: ANN401
        try:
            return step(*arguments)
        except BrokenMediaError as error:
            name = shown_name(error.path, uploads.names)
            message = f"{name}: {error.reason.replace(error.path, name)}"
        except OptionError as error:
            message = str(error)
        except Exception:
            logging.getLogger(__name__).exception("an event of the page failed")
            message = "This failed on the server. The owner of the page finds the reason in its log."
        import gradio as gr

        raise gr.Error(escaped(message[:MAX_MESSAGE_LENGTH]), duration=None, print_exception=False)

    return run


def _search_part(search: VideoSearch, uploads: Uploads) -> None:
    import gradio as gr

    def find(text: Text, topk: Hits, folder: Text | None, least: Seconds | None, most: Seconds | None) -> str:
        index = search.video_index
        if not index.count():
            raise OptionError("There are no videos yet. Upload some under Videos.")
        where = _filter(index, folder, least, most)
        if where is not None and not index.count(where):
            raise OptionError("No video is in this folder and of this length.")
        result = search.search(text, topk, where=where)
        entries = index.found([hit.path for hit in result.hits])
        return render_hits(result, entries, uploads.names, index.folders)

    with gr.Row():
        text = gr.Textbox(
            label="What does the video show?", scale=4, min_width=320, elem_id="search-text", max_length=MAX_TEXT_LENGTH
        )
        topk = gr.Slider(1, MAX_HITS, value=20, step=1, label="Hits")
    with gr.Accordion("Only some of the videos", open=False), gr.Row():
        folder = gr.Textbox(
            label="In the folder", placeholder="cats/2024", elem_id="search-folder", max_length=MAX_TEXT_LENGTH
        )
        least = gr.Number(label="Seconds, at least", value=None, minimum=0, elem_id="search-least")
        most = gr.Number(label="Seconds, at most", value=None, minimum=0, elem_id="search-most")
    button = gr.Button("Search", variant="primary")
    hits = gr.HTML(elem_id="hits")
    asked = [text, topk, folder, least, most]
    gr.on(
        [button.click, *(each.submit for each in (text, folder, least, most))],
        _guarded(find, uploads),
        asked,
        hits,
        **EVENT,
    )


def _filter(video_index: VideoIndex, folder: str | None, least: float | None, most: float | None) -> Filter | None:
    """Return the conditions of a search; None if there are none.

    Raises:
        OptionError: If there is no such folder, or no video can have the length.
    """
    folders = folder_called(folder.strip(), video_index.folders) if folder and folder.strip() else None
    if least is not None and most is not None and least > most:
        raise OptionError(f"Expected at least as many seconds at most as at least, got {most:g} and {least:g}.")
    return None if (folders, least, most) == (None, None, None) else Filter(folders, least, most)


def _ask_part(view: "gr.Blocks", search: VideoSearch, qa: VideoQA, uploads: Uploads, media: PlayableMedia) -> None:
    import gradio as gr

    def answer(video: Key | None, question: Text, options: Text | None) -> str:
        if video is None:
            raise OptionError("Choose a video first.")
        entry = media.entry(video)
        if entry is None:
            raise OptionError("This video no longer exists. Choose another one.")
        chosen = [line.strip() for line in (options or "").splitlines() if line.strip()] or None
        answers = qa.ask(entry.path, question, chosen, timeout=DECODE_SECONDS)
        return render_answers(answers, entry, uploads.names, search.video_index.folders)

    def choices(name: Text) -> gr.Radio:
        found, total = _named(search, uploads, name, 0, CHOICES)
        folders = search.video_index.folders
        listed = [(shown_name(entry.path, uploads.names, folders), entry.key) for entry in found]
        label = f"Video: {page_label(0, len(found), total, 'videos')}"
        return gr.Radio(choices=listed, value=listed[0][1] if total == 1 else None, label=label)

    name = gr.Textbox(
        label="Find a video by a part of its name", elem_id="ask-name", max_length=MAX_TEXT_LENGTH, value=""
    )
    video = gr.Radio(label="Video", elem_id="ask-video")
    with gr.Row():
        question = gr.Textbox(
            label="Question", elem_id="ask-question", scale=3, min_width=320, max_length=MAX_TEXT_LENGTH
        )
    options = gr.Textbox(
        label="Options, one per line",
        lines=3,
        visible=qa.predictor.task == CHOICE,
        elem_id="ask-options",
        max_length=MAX_TEXT_LENGTH,
    )
    button = gr.Button("Ask", variant="primary")
    answers = gr.HTML(elem_id="answers")
    gr.on([button.click, question.submit], _guarded(answer, uploads), [video, question, options], answers, **EVENT)
    gr.on(
        [view.load, name.input, name.submit],
        _guarded(choices, uploads),
        name,
        video,
        trigger_mode="always_last",
        **EVENT,
    )


def _named(search: VideoSearch, uploads: Uploads, name: str, first: int, most: int) -> tuple[list[Entry], int]:
    """Return some of the videos with a text in their names, and how many there are."""
    index = search.video_index
    part = NamePart(name.strip(), index.folders, str(uploads.folder), uploads.names)
    return index.named(part, first=first, most=most)


def _videos_part(view: "gr.Blocks", search: VideoSearch, uploads: Uploads) -> None:
    import gradio as gr

    def listed(name: Text, number: Number) -> tuple[str, int]:
        first = (number - 1) * PER_PAGE
        found, total = _named(search, uploads, name, first, PER_PAGE)
        if first and first >= total:  # after the last page
            first = max(0, total - 1) // PER_PAGE * PER_PAGE
            found, total = _named(search, uploads, name, first, PER_PAGE)
        html = render_videos(found, first, total, uploads.names, search.video_index.folders)
        return html, first // PER_PAGE + 1

    chosen = "document.querySelector('#upload-send').click()"
    gr.HTML(
        f"<label>Upload videos, at most {uploads.max_bytes / 1e6:.0f} MB each: <input type='file' multiple "
        f"accept='{','.join(VIDEOS)}' data-max-bytes='{uploads.max_bytes}' onchange=\"{chosen}\"></label>"
        "<div role='status' style='white-space: pre-line'></div>",
        elem_id="upload",
    )
    send = gr.Button("Upload", visible="hidden", elem_id="upload-send")
    name = gr.Textbox(
        label="Find videos by a part of their names", elem_id="videos-name", max_length=MAX_TEXT_LENGTH, value=""
    )
    with gr.Row():
        previous = gr.Button("Previous", min_width=80, elem_id="videos-previous")
        number = gr.Number(
            1, label="Page", show_label=False, precision=0, minimum=1, min_width=80, elem_id="videos-number"
        )
        following = gr.Button("Next", min_width=80, elem_id="videos-next")
    videos = gr.HTML(elem_id="videos")
    step = _guarded(listed, uploads)
    view.load(step, [name, number], [videos, number], **EVENT)
    for event, script in (
        (name.input, FIRST),
        (name.submit, FIRST),
        (number.submit, TURN.format(0)),
        (previous.click, TURN.format(-1)),
        (following.click, TURN.format(1)),
        (send.click, UPLOAD),
    ):
        event(step, [name, number], [videos, number], js=script, trigger_mode="always_last", **EVENT)
