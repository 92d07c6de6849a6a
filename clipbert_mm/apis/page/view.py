"""The page: searching, asking, bringing videos along."""

import functools
import logging
from collections.abc import Callable
from itertools import islice
from typing import Any

import gradio as gr

from clipbert_mm.apis.index_records import Entry
from clipbert_mm.apis.indexing import VIDEOS
from clipbert_mm.apis.page.events import LONGEST_TEXT, MOST_HITS, Hits, Key, Text
from clipbert_mm.apis.page.playback import PlayableMedia
from clipbert_mm.apis.page.rendering import escaped, render_answers, render_hits, shown_name
from clipbert_mm.apis.page.uploads import DECODE_SECONDS, Uploads
from clipbert_mm.apis.video_qa import CHOICE, VideoQA
from clipbert_mm.apis.video_search import VideoSearch
from clipbert_mm.errors import BrokenMediaError, OptionError

MOST_LISTED = 1000
"""Videos that the page lists; a search looks at all of them."""
LONGEST_MESSAGE = 500
"""Letters of a message."""
WAITING = 32
"""Events that wait; to more the page says that it is busy."""
SESSIONS = 1000
"""Visitors whose page is remembered at a time."""
EVENT: dict[str, Any] = dict(preprocess=False, api_visibility="private")
"""How events are made, with the values that the gate has checked, and not for programs."""
UPLOAD = """
async () => {
  const input = document.querySelector('#upload input'), said = document.querySelector('#upload [role=status]');
  const lines = [];
  const say = (line) => { lines.push(line); said.textContent = lines.join('\\n'); };
  for (const file of input.files) {
    if (file.size > input.dataset.most) { say(`${file.name}: it is too large.`); continue; }
    said.textContent = [...lines, `${file.name}: is taken …`].join('\\n');
    try {
      const answer = await fetch('/uploads?' + new URLSearchParams({name: file.name}), {method: 'POST', body: file});
      const words = await answer.json();
      say(answer.ok ? `${words.name}: is there.` : words.detail);
    } catch (error) { say(`${file.name}: the connection was lost.`); }
  }
  input.value = '';
}
"""
"""Sends the chosen files one by one, before the list of videos is asked for anew."""


def build_view(search: VideoSearch, qa: VideoQA | None, uploads: Uploads, media: PlayableMedia) -> gr.Blocks:
    """Build the page.

    Args:
        search: Searches the gallery.
        qa: Answers questions; None leaves that part out.
        uploads: Takes what visitors bring along.
        media: Knows the videos by their keys.
    """
    with gr.Blocks(title="clipbert_mm", analytics_enabled=False) as view:
        gr.Markdown("# Your videos")
        with gr.Tab("Search"):
            _search_part(search, uploads)
        if qa is not None:
            with gr.Tab("Ask"):
                _ask_part(view, search, qa, uploads, media)
        with gr.Tab("Videos"):
            _videos_part(view, search, uploads)
    view.queue(max_size=WAITING, default_concurrency_limit=1, api_open=False)
    view.state_session_capacity = SESSIONS
    view.has_launched = True  # else Gradio takes any file of this machine that an event names for its own
    return view


def _guarded(step: Callable[..., Any], uploads: Uploads) -> Callable[..., Any]:
    """Show a visitor's mistakes as such, without a path of this machine; other errors go to the log alone."""

    @functools.wraps(step)  # its annotations say what the event takes
    def run(*arguments: Any) -> Any:  # noqa: ANN401
        try:
            return step(*arguments)
        except BrokenMediaError as error:
            name = shown_name(error.path, uploads.names)
            words = f"{name}: {error.reason.replace(error.path, name)}"
        except OptionError as error:
            words = str(error)
        except Exception:
            logging.getLogger(__name__).exception("an event of the page failed")
            words = "That did not work. The log of the page says why, to whom it belongs."
        raise gr.Error(escaped(words[:LONGEST_MESSAGE]), duration=None, print_exception=False)

    return run


def _current(search: VideoSearch) -> dict[str, Entry]:
    """Return the videos by path, with what another process has changed."""
    search.gallery.refresh()
    return search.gallery.entries


def _search_part(search: VideoSearch, uploads: Uploads) -> None:
    def find(text: Text, topk: Hits) -> str:
        if not _current(search):
            raise OptionError("There are no videos yet. Bring some along under Videos.")
        return render_hits(search.search(text, topk), _current(search), uploads.names)

    with gr.Row():
        text = gr.Textbox(
            label="What is to be seen?", scale=4, min_width=320, elem_id="search-text", max_length=LONGEST_TEXT
        )
        topk = gr.Slider(1, MOST_HITS, value=5, step=1, label="Hits")
    button = gr.Button("Search", variant="primary")
    hits = gr.HTML(elem_id="hits")
    gr.on([button.click, text.submit], _guarded(find, uploads), [text, topk], hits, **EVENT)


def _ask_part(view: gr.Blocks, search: VideoSearch, qa: VideoQA, uploads: Uploads, media: PlayableMedia) -> None:
    def answer(video: Key | None, question: Text, options: Text | None) -> str:
        if video is None:
            raise OptionError("Choose a video first.")
        _current(search)
        entry = media.entry(video)
        if entry is None:
            raise OptionError("That video is not there any more. Choose another one.")
        chosen = [line.strip() for line in (options or "").splitlines() if line.strip()] or None
        return render_answers(qa.ask(entry.path, question, chosen, timeout=DECODE_SECONDS), entry, uploads.names)

    def choices() -> gr.Dropdown:
        listed = islice(_current(search).items(), MOST_LISTED)
        return gr.Dropdown(choices=[(shown_name(path, uploads.names), entry.key) for path, entry in listed])

    with gr.Row():
        video = gr.Dropdown(label="Video", elem_id="ask-video", scale=2)
        question = gr.Textbox(label="Question", elem_id="ask-question", scale=3, min_width=320, max_length=LONGEST_TEXT)
    options = gr.Textbox(
        label="Options, one a line",
        lines=3,
        visible=qa.predictor.task == CHOICE,
        elem_id="ask-options",
        max_length=LONGEST_TEXT,
    )
    button = gr.Button("Ask", variant="primary")
    answers = gr.HTML(elem_id="answers")
    gr.on([button.click, question.submit], _guarded(answer, uploads), [video, question, options], answers, **EVENT)
    video.focus(_guarded(choices, uploads), None, video, **EVENT)
    view.load(_guarded(choices, uploads), None, video, **EVENT)


def _videos_part(view: gr.Blocks, search: VideoSearch, uploads: Uploads) -> None:
    def listed() -> list[list[str]]:
        return [
            [shown_name(path, uploads.names), "" if entry.seconds is None else f"{entry.seconds:.1f}"]
            for path, entry in islice(_current(search).items(), MOST_LISTED)
        ]

    chosen = "document.querySelector('#upload-send').click()"
    gr.HTML(
        f"<label>Bring videos along, at most {uploads.max_bytes / 1e6:.0f} MB each: <input type='file' multiple "
        f"accept='{','.join(VIDEOS)}' data-most='{uploads.max_bytes}' onchange=\"{chosen}\"></label>"
        "<div role='status' style='white-space: pre-line'></div>",
        elem_id="upload",
    )
    send = gr.Button("Upload", visible="hidden", elem_id="upload-send")
    table = gr.Dataframe(headers=["video", "seconds"], interactive=False, elem_id="videos", wrap=True)
    send.click(_guarded(listed, uploads), None, table, js=UPLOAD, **EVENT)
    view.load(_guarded(listed, uploads), None, table, **EVENT)
