"""Results in words and numbers."""

import math

import pytest
import torch

from clipbert_mm.apis import Answer, AnswerResult, Hit, IndexReport, Moment, RankedText, Ranking, SearchResult
from clipbert_mm.apis.results import best_of, clock, moments_of, probability
from clipbert_mm.apis.search_results import is_good_match


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0, "00:00"), (59.9, "00:59"), (60, "01:00"), (3599.9, "59:59"), (3600, "1:00:00"), (36061, "10:01:01")],
)
def test_times(seconds: float, said: str):
    assert clock(seconds) == said


@pytest.mark.parametrize("score", [-1000.0, -3.0, -1e-9, 0.0, 2.0, 1000.0])
def test_a_probability_is_the_sigmoid_of_the_score(score: float):
    assert probability(score) == pytest.approx(float(torch.sigmoid(torch.tensor(score, dtype=torch.float64))))


def test_the_moments_of_a_video():
    moments = moments_of([(0, 1), (1, 2.5)], torch.tensor([0.5, 2.0]))
    assert moments == (Moment(0.0, 1.0, 0.5), Moment(1.0, 2.5, 2.0))
    assert best_of(moments) is moments[1]
    assert str(moments[1]) == "00:01–00:03"
    assert (moments_of(None, [0.5]), best_of(())) == ((), None), "an image has none"
    with pytest.raises(ValueError, match="shorter"):
        moments_of([(0, 1), (1, 2.5)], [0.5])


def test_a_hit_is_a_line():
    hits = (Hit("/a.mp4", 2.0, 0.88, Moment(1.0, 2.5, 2.0), ()), Hit("/b.jpg", -math.inf, 0.0, None, ()))
    assert str(SearchResult("a dog", 7, hits, score_kind="log-odds")).splitlines() == [
        "'a dog' in 7 videos, scored by log-odds",
        "  1.    2.00   88.0%  00:01–00:03   /a.mp4",
        "  2.    -inf    0.0%                /b.jpg",
    ]


def test_a_ranked_text_and_an_answer_are_lines_too():
    moment = Moment(59.2, 60.3, 2.0)
    texts = (RankedText("a dog", 2.0, 0.88, moment, (moment,)), RankedText("a cat", -1.5, 0.18, None, ()))
    assert str(Ranking("/a.mp4", texts, ("zyxw",), score_kind="log-odds")).splitlines() == [
        "/a.mp4, scored by log-odds",
        "warning: the model does not know 'zyxw'; these words do not help it",
        "  1.    2.00   88.0%  00:59–01:01   a dog",
        "  2.   -1.50   18.0%                a cat",
    ]
    answers = (Answer("brown", -0.7, 0.5, moment, (moment,)), Answer("blue", -1.2, 0.3, None, ()))
    assert str(AnswerResult("/a.mp4", "which color", answers, score_kind="log-probability")).splitlines() == [
        "which color  (/a.mp4)",
        "  1.  50.0%  00:59–01:01   brown",
        "  2.  30.0%                blue",
    ]
    assert (
        AnswerResult("/a.mp4", "which color", answers, score_kind="x").to_dict()["answers"][0]["moment"]["end"] == 60.3
    )


def test_scores_that_are_no_probabilities_say_what_they_are():
    moment = Moment(1.0, 2.5, 0.25)
    result = SearchResult("a dog", 7, (Hit("/a.mp4", 0.3125, None, moment, (moment,)),), score_kind="cosine")
    assert str(result).splitlines() == [
        "'a dog' in 7 videos, scored by cosine",
        "  1.   0.312  00:01–00:03   /a.mp4",
    ]
    assert (result.to_dict()["score_kind"], result.to_dict()["hits"][0]["probability"]) == ("cosine", None)
    assert (result.good_match, result.warnings) == (None, [])
    ranked = Ranking("/a.mp4", (RankedText("a dog", 4.5, None, None, ()),), score_kind="rank")
    assert str(ranked).splitlines() == ["/a.mp4, scored by rank", "  1.    4.50                a dog"]
    # Scores of another kind beside probabilities: what matches best need not be what is most probable.
    hits = (Hit("/a.mp4", 4.5, 0.2, None, ()), Hit("/b.mp4", 4.0, 0.4, None, ()))
    both = SearchResult("a dog", 7, hits, good_match=False, score_kind="logit + similarity")
    assert str(both).splitlines() == [
        "'a dog' in 7 videos, scored by logit + similarity",
        "no good match: the best has 40.0%, and a good match has 50% or more",
        "  1.    4.50   20.0%                /a.mp4",
        "  2.    4.00   40.0%                /b.mp4",
    ]
    likely = AnswerResult("/a.mp4", "which", (Answer("brown", -3.25, None, None, ()),), score_kind="log-likelihood")
    assert str(likely).splitlines() == [
        "which  (/a.mp4), scored by log-likelihood",
        "  1.  -3.25                brown",
    ]
    count = AnswerResult("/a.mp4", "how many", (Answer("3.2", 3.2, None, None, ()),), score_kind="count")
    assert str(count).splitlines() == ["how many  (/a.mp4)", "  1.               3.2"]
    assert is_good_match(None, ["a dog"], []) is None


@pytest.mark.parametrize(("count", "named", "more"), [(1, 1, None), (5, 5, None), (7, 5, "and 2 more")])
def test_five_are_named_and_the_others_counted(count: int, named: int, more: str | None):
    left_out = {f"/{i}.mp4": "its file is gone" for i in range(count)}
    words = tuple(f"zyx{i}" for i in range(count))
    _, warning, *lines = str(SearchResult("a", 7, (), left_out, words, score_kind="cosine")).splitlines()
    assert lines[0].endswith(f"{count} videos")
    assert lines[1 : 1 + named] == [f"  /{i}.mp4: its file is gone" for i in range(named)]
    assert lines[1 + named :] == ([f"  {more}"] if more else [])
    assert warning.count("'zyx") == named
    assert ("2 more" in warning) == (more is not None)


def test_a_report_counts_and_names_what_could_not_be_read():
    report = IndexReport(
        ("/a",) * 3, ("/b",) * 2, ("/c",) * 4, ("/d",), {"/e": "it is empty", "/f": "it is cut"}, ("/f",)
    )
    counts, first, second = str(report).splitlines()
    assert counts == "3 added, 2 changed, 4 unchanged, 1 removed, 2 unreadable"
    assert first == "  /e: it is empty"
    assert second.startswith("  /f: it is cut (")
    assert "--retry" in second
    gone = str(IndexReport((), (), (), (), {}, gone=("/a", "/b"))).splitlines()
    assert len(gone) == 2
    assert gone[1].startswith("2 videos")
    assert "--prune" in gone[1]
