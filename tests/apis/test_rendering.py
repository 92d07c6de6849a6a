"""Hits and answers as HTML: what is said of their scores."""

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
