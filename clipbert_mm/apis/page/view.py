"""Components and events of the page: search, questions, and uploads."""

import functools
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from clipbert_mm.apis.indexing import VIDEOS
from clipbert_mm.apis.page.events import MAX_HITS, MAX_TEXT_LENGTH, Hits, Key, Text
from clipbert_mm.apis.page.playback import PlayableMedia
from clipbert_mm.apis.page.rendering import escaped, render_answers, render_hits, shown_name
from clipbert_mm.apis.page.uploads import DECODE_SECONDS, Uploads
from clipbert_mm.apis.video_qa import CHOICE, VideoQA
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import BrokenMediaError, OptionError

if TYPE_CHECKING:
    import gradio as gr  # takes seconds, so that each function imports it

MAX_LISTED = 1000
"""Most videos in the lists of the page; a search covers all videos."""
MAX_MESSAGE_LENGTH = 500
"""Most characters of a message."""
QUEUE_SIZE = 32
"""Most events that wait; for further ones the page reports that it is busy."""
MAX_SESSIONS = 1000
"""Most visitors whose page is kept at a time."""
EVENT: dict[str, Any] = dict(preprocess=False, api_visibility="private")
"""Options of every event, whose values the gate has validated, and which is not part of Gradio's API."""
UPLOAD = """
async () => {
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
}
"""
"""Script that uploads the chosen files one by one, before the list of videos is refreshed."""


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

    def find(text: Text, topk: Hits) -> str:
        if not search.video_index.count():
            raise OptionError("There are no videos yet. Upload some under Videos.")
        result = search.search(text, topk)
        entries = search.video_index.found([hit.path for hit in result.hits])
        return render_hits(result, entries, uploads.names, search.video_index.folders)

    with gr.Row():
        text = gr.Textbox(
            label="What does the video show?", scale=4, min_width=320, elem_id="search-text", max_length=MAX_TEXT_LENGTH
        )
        topk = gr.Slider(1, MAX_HITS, value=5, step=1, label="Hits")
    button = gr.Button("Search", variant="primary")
    hits = gr.HTML(elem_id="hits")
    gr.on([button.click, text.submit], _guarded(find, uploads), [text, topk], hits, **EVENT)


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

    def choices() -> gr.Dropdown:
        listed, folders = search.video_index.listed(most=MAX_LISTED), search.video_index.folders
        return gr.Dropdown(choices=[(shown_name(entry.path, uploads.names, folders), entry.key) for entry in listed])

    with gr.Row():
        video = gr.Dropdown(label="Video", elem_id="ask-video", scale=2)
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
    video.focus(_guarded(choices, uploads), None, video, **EVENT)
    view.load(_guarded(choices, uploads), None, video, **EVENT)


def _videos_part(view: "gr.Blocks", search: VideoSearch, uploads: Uploads) -> None:
    import gradio as gr

    def listed() -> list[list[str]]:
        folders = search.video_index.folders
        return [
            [shown_name(entry.path, uploads.names, folders), "" if entry.seconds is None else f"{entry.seconds:.1f}"]
            for entry in search.video_index.listed(most=MAX_LISTED)
        ]

    chosen = "document.querySelector('#upload-send').click()"
    gr.HTML(
        f"<label>Upload videos, at most {uploads.max_bytes / 1e6:.0f} MB each: <input type='file' multiple "
        f"accept='{','.join(VIDEOS)}' data-max-bytes='{uploads.max_bytes}' onchange=\"{chosen}\"></label>"
        "<div role='status' style='white-space: pre-line'></div>",
        elem_id="upload",
    )
    send = gr.Button("Upload", visible="hidden", elem_id="upload-send")
    table = gr.Dataframe(headers=["video", "seconds"], interactive=False, elem_id="videos", wrap=True)
    send.click(_guarded(listed, uploads), None, table, js=UPLOAD, **EVENT)
    view.load(_guarded(listed, uploads), None, table, **EVENT)
