"""Hits and answers as HTML: what is said of their scores."""

import re
from dataclasses import replace

from clipbert_mm.apis import Answer, AnswerResult, Hit, SearchResult
from clipbert_mm.apis.page.rendering import render_answers, render_hits
from clipbert_mm.index import Entry

ENTRY = Entry("/a.mp4", 1, 1, None, None, (2, 2))


def test_a_hit_says_the_kind_of_its_score_and_a_probability_only_if_it_has_one():
    def match(score: float, probability: float | None, kind: str) -> str:
        result = SearchResult("a dog", 7, (Hit(ENTRY.path, score, probability, None, ()),), score_kind=kind)
        page = render_hits(result, {ENTRY.path: ENTRY}, {})
        return page.partition('<div class="match">')[2].partition("</div>")[0]

    assert match(2.0, 0.88, "log-odds") == "88.0% match, log-odds 2.00"
    assert match(4.5, 0.2, "logit + similarity") == "20.0% match, logit + similarity 4.50"
    assert match(0.3125, None, "cosine") == "cosine 0.312"
    assert match(1.0, None, "<b>") == "&lt;b&gt; 1.00"


def test_an_answer_has_its_probability_or_its_score():
    def cells(answer: Answer, kind: str) -> tuple[str, bool]:
        page = render_answers(AnswerResult(ENTRY.path, "which", (answer,), score_kind=kind), ENTRY, {})
        return page.partition("<td>")[2].partition("</td>")[0], "scored by" in page

    assert cells(Answer("brown", -0.7, 0.5, None, ()), "log-probability") == ("50.0%", False)
    assert cells(Answer("brown", -3.25, None, None, ()), "log-likelihood") == ("-3.25", True)
    assert cells(Answer("3.2", 3.2, None, None, ()), "count") == ("", False)


def test_what_ranked_the_hits_is_said():
    def title(by_vectors: int, by_model: int, stage: str) -> tuple[str, bool]:
        hit = Hit(ENTRY.path, 1.0, None, None, (), stage)
        result = SearchResult("a", 2000, (hit,), score_kind="cosine", by_vectors=by_vectors, by_model=by_model)
        page = render_hits(result, {ENTRY.path: ENTRY}, {})
        return page.partition("<p>")[2].partition("</p>")[0], "cosine 1.000, by vectors<" in page

    assert title(0, 2000, "model") == ("1 of 2,000 videos for “a”, all ranked by the model", False)
    assert title(2000, 128, "model") == (
        "1 of 2,000 videos for “a”: the best 128 by vectors, ranked by the model",
        False,
    )
    assert title(2000, 0, "vectors") == ("1 of 2,000 videos for “a”, ranked by vectors alone", True)


def test_hits_come_in_pages_of_which_the_first_is_shown():
    entries = {f"/{i}.mp4": replace(ENTRY, path=f"/{i}.mp4") for i in range(23)}
    hits = tuple(Hit(path, 1.0, None, None, ()) for path in entries)
    result = SearchResult("a", 23, hits, score_kind="cosine")
    page = render_hits(result, entries, {})
    assert re.findall(r'<ol class="hits" data-label="(.*?)"( hidden)?>', page) == [
        ("1–10 of 23 hits", ""),
        ("11–20 of 23 hits", " hidden"),
        ("21–23 of 23 hits", " hidden"),
    ]
    assert page.count("<nav") == 2
    assert "<video" not in page
    few = render_hits(replace(result, hits=hits[:10]), entries, {})
    assert "<nav" not in few
    none = render_hits(replace(result, hits=()), entries, {})
    assert "<ol" not in none
    assert "<nav" not in none
