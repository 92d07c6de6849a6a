"""Hits and answers as HTML. All text from users and files is escaped."""

import html
from collections.abc import Mapping, Sequence

from clipbert_mm.apis.results import AnswerResult, Moment, format_score, format_unknown
from clipbert_mm.apis.search_results import Hit, SearchResult
from clipbert_mm.errors import printable
from clipbert_mm.index.records import Entry, name_below

WIDTH, HEIGHT, EDGE = 320, 64, 6
"""Size of a score line in pixels, and the margin above and below it."""
STYLE = """
.hits { list-style: none; margin: 0; padding: 0; display: grid; gap: 1rem; }
.hit { display: grid; grid-template-columns: minmax(0, 320px) minmax(0, 1fr); gap: .4rem 1rem; align-items: start;
  border: 1px solid var(--border-color-primary); border-radius: .5rem; padding: .75rem; }
.hit video { width: 100%; max-height: 240px; background: #000; border-radius: .25rem; }
.hit .name { font-weight: 600; overflow-wrap: anywhere; }
.hit .match { color: var(--body-text-color-subdued); }
.hit button { margin: .4rem 0; padding: .25rem .6rem; border: 1px solid currentColor; border-radius: .25rem; cursor: pointer;
  font-variant-numeric: tabular-nums; }
.hit svg { width: 100%; height: 64px; cursor: pointer; display: block; }
.answers td { padding: .2rem .8rem .2rem 0; font-variant-numeric: tabular-nums; }
@media (max-width: 640px) { .hit { grid-template-columns: minmax(0, 1fr); } }
"""
PLAY = "const v=this.closest('.hit').querySelector('video');v.currentTime={};v.play()"
"""Script of a click that plays a hit from a given time."""


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
    left_out = f", {len(result.left_out)} could not be searched" if result.left_out else ""
    title = f"{len(result.hits)} of {result.searched} videos{left_out} for “{escaped(result.text)}”"
    return f'<p>{title}</p>{_paragraphs(result.warnings)}<ol class="hits">{"".join(items)}</ol>'


def _render_hit(moments: Sequence[Moment], best: Moment | None, entry: Entry, name: str, rank: int, match: str) -> str:
    key = entry.key
    start = 0.0 if best is None else best.start
    button = "" if best is None else f'<button onclick="{PLAY.format(round(start, 2))}">▶ {best}</button>'
    return (
        f'<li class="hit"><video controls muted preload="metadata" src="/media/{key}#t={start:.2f}"></video>'
        f'<div><div class="name">{rank}. {escaped(name)}</div>{match}{button}'
        f"{render_line(moments, best, entry.seconds)}</div></li>"
    )


def _match(hit: Hit, kind: str) -> str:
    """Render the probability of a hit, if it has one, and its score with its kind."""
    probability = "" if hit.probability is None else f"{hit.probability:.1%} match, "
    return f'<div class="match">{probability}{escaped(kind)} {format_score(hit.score, kind)}</div>'


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
