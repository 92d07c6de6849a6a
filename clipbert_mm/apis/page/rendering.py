"""Hits and answers as HTML. All text from users and files is escaped."""

import html
from collections.abc import Mapping, Sequence

from clipbert_mm.apis.page.thumbnails import thumbnail_name
from clipbert_mm.apis.results import AnswerResult, Moment, clock, format_score, format_unknown
from clipbert_mm.apis.search_results import Hit, SearchResult
from clipbert_mm.errors import printable
from clipbert_mm.index.records import Entry, name_below

WIDTH, HEIGHT, EDGE = 320, 64, 6
"""Size of a score line in pixels, and the margin above and below it."""
STYLE = """
.hits { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem; }
.hits[hidden] { display: none; }
.hit { display: grid; grid-template-columns: minmax(0, 320px) minmax(0, 1fr); gap: .4rem 1rem; align-items: start;
  border: 1px solid var(--border-color-primary); border-radius: .5rem; padding: .75rem; }
.hit .name, .video .name { font-weight: 600; overflow-wrap: anywhere; }
.hit .match, .video .match { color: var(--body-text-color-subdued); }
.hit button.moment, .pages button { margin: .4rem 0; padding: .25rem .6rem; border: 1px solid currentColor;
  border-radius: .25rem; cursor: pointer; font-variant-numeric: tabular-nums; }
.hit svg { width: 100%; height: 64px; cursor: pointer; display: block; }
.videos { list-style: none; margin: 0; padding: 0; display: grid; gap: .75rem;
  grid-template-columns: repeat(auto-fill, minmax(130px, 1fr)); }
.video .name { font-weight: 400; }
.video:has(video) { grid-column: span 2; }
#upload input { max-width: 100%; box-sizing: border-box; }
.poster { display: block; position: relative; width: 100%; aspect-ratio: 16 / 9; padding: 0; border: 0; cursor: pointer;
  background: #3a3f47; border-radius: .25rem; overflow: hidden; }
.poster img { width: 100%; height: 100%; object-fit: contain; display: block; margin: 0; }
.poster span { position: absolute; left: .4rem; bottom: .4rem; padding: 0 .35rem; background: #000a; color: #fff !important;
  border-radius: .25rem; }
.hit video, .video video { display: block; width: 100%; aspect-ratio: 16 / 9; background: #000; border-radius: .25rem; }
.pages { display: flex; gap: .75rem; align-items: center; margin: .5rem 0; flex-wrap: wrap; }
.pages button:disabled { opacity: .4; cursor: default; }
.answers td { padding: .2rem .8rem .2rem 0; font-variant-numeric: tabular-nums; }
@media (max-width: 640px) { .hit { grid-template-columns: minmax(0, 1fr); } }
"""
SCRIPT = """
<script>
function clipbertPlay(element, seconds) {  // the player takes the place of the picture
  const item = element.closest('[data-key]');
  let video = item.querySelector('video');
  if (!video) {
    const poster = item.querySelector('.poster'), image = poster.querySelector('img');
    video = document.createElement('video');
    Object.assign(video, {controls: true, muted: true, playsInline: true, src: '/media/' + item.dataset.key});
    if (image) video.poster = image.src;
    video.onerror = () => {
      const line = document.createElement('p');
      line.textContent = 'This video cannot be played: its file is missing, or has changed since it was indexed.';
      video.replaceWith(line);
    };
    poster.replaceWith(video);
  }
  video.currentTime = seconds;
  video.play().catch(() => {});
}
function clipbertTurn(element, step) {  // to another page of hits, all of which are here
  const result = element.closest('.result'), pages = [...result.querySelectorAll('.hits')];
  const shown = pages.findIndex((page) => !page.hidden) + step;
  pages.forEach((page, i) => { page.hidden = i !== shown; });
  result.querySelectorAll('video').forEach((video) => video.pause());
  result.querySelectorAll('.pages').forEach((bar) => {
    bar.querySelector('span').textContent = pages[shown].dataset.label;
    const [previous, next] = bar.querySelectorAll('button');
    previous.disabled = shown === 0;
    next.disabled = shown === pages.length - 1;
  });
  result.scrollIntoView();
}
</script>
"""
"""Functions of the browser, which the HTML below calls."""
PLAY = "clipbertPlay(this,{})"
"""Script of a click that plays a video from a given time."""
HITS_PER_PAGE = 10
"""Most hits that are shown at a time."""


def shown_name(path: str, names: Mapping[str, str], folders: Sequence[str] = ()) -> str:
    """Return the name of a video on the page: the name of the upload, or the path below the indexed folder."""
    return names.get(path) or printable(name_below(path, folders))


def escaped(text: str) -> str:
    r"""Escape text for HTML; unpaired surrogates, which no response can contain, become question marks.

    >>> escaped("<\ud83d>")
    '&lt;?&gt;'
    """
    return html.escape(text.encode(errors="replace").decode())


def render_hits(
    result: SearchResult, entries: Mapping[str, Entry], names: Mapping[str, str], folders: Sequence[str] = ()
) -> str:
    """Render the hits of a search, each with its score and kind, a player at its best moment, and a score line.

    Args:
        result: The hits.
        entries: The videos of the index, by path.
        names: Names of uploads, by path.
        folders: The indexed folders.
    """
    items = [
        _render_hit(
            hit.moments,
            hit.moment,
            entries[hit.path],
            shown_name(hit.path, names, folders),
            rank,
            _match(hit, result.score_kind),
        )
        for rank, hit in enumerate(result.hits, start=1)
        if hit.path in entries  # it may have been removed meanwhile
    ]
    left_out = f", {len(result.left_out):,} could not be searched" if result.left_out else ""
    title = f"{len(result.hits)} of {result.searched:,} videos{left_out} for “{escaped(result.text)}”{_stages(result)}"
    pages = [items[first : first + HITS_PER_PAGE] for first in range(0, len(items), HITS_PER_PAGE)]
    labels = [page_label(i * HITS_PER_PAGE, len(page), len(items), "hits") for i, page in enumerate(pages)]
    lists = "".join(
        f'<ol class="hits" data-label="{label}"{" hidden" if i else ""}>{"".join(page)}</ol>'
        for i, (page, label) in enumerate(zip(pages, labels, strict=True))
    )
    bar = ""
    if len(pages) > 1:
        bar = f'<nav class="pages">{_button("Previous", -1, "disabled")}<span>{labels[0]}</span>{_button("Next", 1)}</nav>'
    return f'<div class="result"><p>{title}</p>{_paragraphs(result.warnings)}{bar}{lists}{bar}</div>'


def _stages(result: SearchResult) -> str:
    """Say what ranked the hits."""
    if not result.by_vectors:
        return ", all ranked by the model"
    if not result.by_model:
        return ", ranked by vectors alone"
    return f": the best {result.by_model:,} by vectors, ranked by the model"


def _button(text: str, step: int, state: str = "") -> str:
    return f'<button onclick="clipbertTurn(this,{step})" {state}>{text}</button>'


def page_label(first: int, count: int, total: int, what: str) -> str:
    """Return which of all videos or hits a page shows.

    >>> page_label(50, 50, 1234, "videos")
    '51–100 of 1,234 videos'
    """
    return f"{first + 1:,}–{first + count:,} of {total:,} {what}" if count else f"no {what}"


def render_videos(
    videos: Sequence[Entry], first: int, total: int, names: Mapping[str, str], folders: Sequence[str] = ()
) -> str:
    """Render a page of the list of videos, each with its thumbnail, name and length.

    Args:
        videos: The videos of the page.
        first: Number of those before them.
        total: Number of all.
        names: Names of uploads, by path.
        folders: The indexed folders.
    """
    items = []
    for entry in videos:
        name = escaped(shown_name(entry.path, names, folders))
        length = "" if entry.seconds is None else f'<div class="match">{clock(entry.seconds)}</div>'
        items.append(
            f'<li class="video" data-key="{entry.key}">{_poster(entry, name, 0.0)}<div class="name">{name}</div>{length}</li>'
        )
    return f'<p>{page_label(first, len(videos), total, "videos")}</p><ul class="videos">{"".join(items)}</ul>'


def _poster(entry: Entry, name: str, start: float) -> str:
    """Render the picture of a video, which is loaded when it is on screen; a click plays the video from a time."""
    picture = f'<img loading="lazy" src="/thumbnails/{thumbnail_name(entry)}" alt="" onerror="this.remove()">'
    play = PLAY.format(round(start, 2))
    return f'<button class="poster" onclick="{play}" aria-label="Play {name}">{picture}<span>▶</span></button>'


def _render_hit(moments: Sequence[Moment], best: Moment | None, entry: Entry, name: str, rank: int, match: str) -> str:
    start = 0.0 if best is None else best.start
    button = (
        "" if best is None else f'<button class="moment" onclick="{PLAY.format(round(start, 2))}">▶ {best}</button>'
    )
    return (
        f'<li class="hit" data-key="{entry.key}">{_poster(entry, escaped(name), start)}'
        f'<div><div class="name">{rank}. {escaped(name)}</div>{match}{button}'
        f"{render_line(moments, best, entry.seconds)}</div></li>"
    )


def _match(hit: Hit, kind: str) -> str:
    """Render the probability of a hit, if it has one, its score with its kind, and if vectors alone ranked it."""
    probability = "" if hit.probability is None else f"{hit.probability:.1%} match, "
    stage = "" if hit.stage == "model" else f", by {escaped(hit.stage)}"
    return f'<div class="match">{probability}{escaped(kind)} {format_score(hit.score, kind)}{stage}</div>'


def render_line(moments: Sequence[Moment], best: Moment | None, seconds: float | None) -> str:
    """Render the scores of the clips over time; a click plays from there."""
    if not moments or not seconds:
        return ""
    scores = [moment.score for moment in moments]
    low, high = min(scores), max(scores)

    def height(score: float) -> float:
        share = 0.5 if high == low else (score - low) / (high - low)
        return HEIGHT - EDGE - share * (HEIGHT - 2 * EDGE)

    def position(time: float) -> float:
        return min(WIDTH, time / seconds * WIDTH)

    points = " ".join(f"{position((m.start + m.end) / 2):.1f},{height(m.score):.1f}" for m in moments)
    bars = "".join(
        f'<line x1="{position(m.start):.1f}" x2="{position(m.end):.1f}" y1="{height(m.score):.1f}" y2="{height(m.score):.1f}" '
        f'stroke="{"#1a9641" if m == best else "#4878a8"}" stroke-width="5"><title>{m}: {m.score:.2f}</title></line>'
        for m in moments
    )
    click = PLAY.format(f"(event.clientX-this.getBoundingClientRect().left)/this.clientWidth*{seconds:.3f}")
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" preserveAspectRatio="none" role="img" aria-label="score of each clip over time" '
        f'onclick="{click}"><polyline points="{points}" fill="none" stroke="#999" stroke-width="1"/>{bars}</svg>'
    )


def _paragraphs(lines: Sequence[str]) -> str:
    """Render lines, such as warnings, if there are any."""
    return "".join(f"<p>{escaped(line)}</p>" for line in lines)


def render_answers(result: AnswerResult, entry: Entry, names: Mapping[str, str], folders: Sequence[str] = ()) -> str:
    """Render the answers to a question, with the video and the score line of the best one."""
    rows = "".join(
        f"<tr><td>{result.value_of(answer)}</td>"
        f"<td>{escaped(answer.text)}</td><td>{'' if answer.moment is None else answer.moment}</td></tr>"
        for answer in result.answers
    )
    best = result.answers[0]
    title = f"“{best.text}” in {shown_name(result.path, names, folders)}"
    hit = _render_hit(best.moments, best.moment, entry, title, 1, "")
    kind = [result.scored_by] if result.scored_by else []
    warnings = _paragraphs([*kind, *format_unknown(result.unknown_words)])
    return f'{warnings}<table class="answers">{rows}</table><ol class="hits">{hit}</ol>'
