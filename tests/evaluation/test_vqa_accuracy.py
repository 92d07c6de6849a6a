"""VQA answers against mmpretrain's and against the definition, soft accuracy counted by hand, and the server's file."""

import json
import logging
import os
import random
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from clipbert_mm import compat
from clipbert_mm.errors import AnnotationError
from clipbert_mm.evaluation.vqa_accuracy import (
    ARTICLES,
    CONTRACTED,
    DIGITS,
    MARKS,
    REPAIRED,
    VQAAccuracy,
    agreement_score,
    chosen_scores,
    normalize_answer,
    soft_scores,
    vqa_accuracy,
)
from clipbert_mm.structures import VideoTextSample


@pytest.fixture(scope="module")
def twin() -> Callable[[str], str]:
    """The same rules as mmpretrain has them."""
    compat.import_mmpretrain()
    from mmpretrain.evaluation import VQAAcc

    return VQAAcc()._process_answer


@pytest.mark.parametrize(
    ("said", "compared"),
    [
        ("Yes.", "yes"),
        ("  The black and\twhite\nCAT ", "black and white cat"),
        ("one, two", "1 2"),
        ("None", "0"),
        ("someone", "someone"),
        ("1,000", "1000"),
        ("1,000 - 2,000 (dollars)", "1000 2000 dollars"),
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("a/b, c", "b c"),  # the comma next to a space says nothing of the slash
        ("$1.50", "$1.50"),
        ("3.", "3"),
        (".5", ".5"),
        ("u.s.a.", "usa"),
        ("10:30 p.m.", "10:30 pm"),
        ("DONT", "don't"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),
        ("shed", "shed"),
        ("somebody'd", "somebodyd"),
        ("Im", "im"),
        ("the", ""),
        ("", ""),
    ],
)
def test_the_server_compares(twin: Callable, said: str, compared: str):
    assert normalize_answer(said) == compared == twin(said)


def test_every_word_of_the_tables_is_as_in_the_twin(twin: Callable):
    words = [*CONTRACTED.split(), *REPAIRED, *DIGITS, *ARTICLES]
    words += [word.replace("'", "") for word in words] + [word.upper() for word in words]
    words += [f"{mark}{word} {word}{mark}{word}" for word in ("a", "2") for mark in MARKS + ".:'&%#*|~^$€’"]
    assert [normalize_answer(word) for word in words] == [twin(word) for word in words]


def test_random_answers_are_as_in_the_twin(twin: Callable):
    rng = random.Random(7)
    parts = [
        *MARKS,
        *".,.,'':$%€é \n\t  ",
        *"0123456789",
        "a",
        "an",
        "the",
        "None",
        "Ten",
        "isnt",
        "y'all",
        "dog",
        "T-shirt",
    ]
    answers = ["".join(rng.choices(parts, k=rng.randint(1, 12))) for _ in range(20_000)]
    assert [normalize_answer(answer) for answer in answers] == [twin(answer) for answer in answers]
    dots = ["." * count for count in (31, 32, 33, 80)]
    assert [normalize_answer(answer) for answer in dots] == [twin(answer) for answer in dots]


def test_the_score_is_the_mean_over_all_sets_of_nine_annotators():
    for same in range(11):
        answers = ["red"] * same + [f"other{i}" for i in range(10 - same)]
        sets = list(combinations(answers, 9))
        mean = sum(min(Fraction(chosen.count("red"), 3), Fraction(1)) for chosen in sets) / len(sets)
        # The two formulas in use agree: the server's, and 0.3 for each annotator, at most 1, of the training targets.
        assert agreement_score(same, 10) == float(mean) == min(1.0, round(0.3 * same, 1))
        assert soft_scores(answers).get("red", 0.0) == vqa_accuracy("red", answers) == float(mean)


def test_scores_of_a_question_by_hand():
    answers = ["Two"] * 2 + ["2"] + ["dont know"] + ["don't know."] + ["a cat"] + ["cats"] * 4
    assert soft_scores(answers) == {"2": 0.9, "don't know": 0.6, "cat": 0.3, "cats": 1.0}
    assert vqa_accuracy("the cat", answers) == 0.3
    assert vqa_accuracy("dog", answers) == 0.0


def test_the_score_of_the_best_answer_against_a_loop():
    rng = np.random.default_rng(0)
    scores, wanted = rng.integers(0, 3, (60, 4)).astype(float), rng.random((60, 4))
    found = chosen_scores(scores, wanted)
    for row, truth, value in zip(scores, wanted, found, strict=True):
        tied = [truth[c] for c in range(4) if row[c] == max(row)]
        assert value == pytest.approx(sum(tied) / len(tied))


def predicted(scores: Any, wanted: Any = None, broken: str | None = None, **metainfo: Any) -> VideoTextSample:
    """A sample as testing leaves it."""
    sample = VideoTextSample(metainfo=dict(path=f"{scores}.jpg", broken=broken, **metainfo))
    if broken is None:
        sample.scores = torch.tensor(scores)
    if wanted is not None:
        sample.answer_scores = np.array(wanted, np.float32)
    return sample


def measure(*samples: VideoTextSample, **options: Any) -> dict[str, float]:
    """The metric over one batch of samples."""
    evaluator = Evaluator(dict(type="VQAAccuracy", **options))
    evaluator.process(list(samples))
    return evaluator.evaluate(len(samples))


def test_accuracy_is_over_questions_and_by_answer_type():
    first = predicted([[0.1, 0.9, 0.0], [0.8, 0.2, 0.0]], [[0, 0.5, 1], [1, 0, 0]], answer_types=["other", "yes/no"])
    second = predicted([[0.0, 0.0, 0.7]], [[0.75, 0, 0]], answer_types=["yes/no"])
    broken = predicted(None, broken="cut short")
    assert measure(first, second, broken, second) == {
        "accuracy": 37.5,
        "accuracy/other": 50.0,
        "accuracy/yes/no": pytest.approx(100 / 3),
        "ceiling": 87.5,
        "coverage": 75.0,
    }
    assert measure(predicted([[1.0, 0.0]], [[0.5, 0.0]])) == {"accuracy": 50.0, "ceiling": 50.0, "coverage": 100.0}


@pytest.fixture
def vocabulary(tmp_path: Path) -> str:
    """Three answers, not in the order of their places."""
    (tmp_path / "answers.json").write_text(json.dumps({"no": 2, "yes": 0, "2": 1}))
    return str(tmp_path / "answers.json")


def test_the_submission_has_an_answer_a_question(vocabulary: str, tmp_path: Path):
    samples = [
        predicted([[0.1, 0.9, 0.0], [0.1, 0.2, 0.3]], question_ids=[11, 7]),
        predicted([[0.4, 0.1, 0.2]], question_ids=[5]),
    ]
    target = tmp_path / "new" / "submission.json"
    assert measure(*samples, submission_file=str(target), answer_file=vocabulary) == {"coverage": 100.0}
    assert json.loads(target.read_text()) == [
        {"question_id": 11, "answer": "2"},
        {"question_id": 7, "answer": "no"},
        {"question_id": 5, "answer": "yes"},
    ]
    assert os.listdir(target.parent) == ["submission.json"]


def test_a_validation_split_has_accuracy_and_submission(vocabulary: str, tmp_path: Path):
    sample = predicted([[0.1, 0.9, 0.0]], [[0, 0.3, 0]], question_ids=[4])
    found = measure(sample, submission_file=str(tmp_path / "val.json"), answer_file=vocabulary)
    assert found["accuracy"] == pytest.approx(30)
    assert json.loads((tmp_path / "val.json").read_text()) == [{"question_id": 4, "answer": "2"}]


def test_a_submission_that_is_not_whole_is_said(vocabulary: str, tmp_path: Path, caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO, "clipbert_mm")
    samples = [predicted([[0.1, 0.9, 0.0]], question_ids=[4]), predicted(None, broken="empty")]
    measure(*samples, submission_file=str(tmp_path / "dev.json"), answer_file=vocabulary)
    said = [text for text in caplog.messages if "dev.json" in text]
    assert "Wrote 1 answers to the submission file" in said[0]
    assert "dev.json lacks the questions of unreadable files; the test server expects all questions." in said[1]


def test_what_cannot_be_measured_is_named(vocabulary: str, tmp_path: Path):
    target = str(tmp_path / "submission.json")
    with pytest.raises(ValueError, match=r"expects answer_scores .* got none\. For a test split set submission_file\."):
        measure(predicted([[0.1, 0.9]]))
    with pytest.raises(ValueError, match=r"expects an answer_file for the submission_file .*submission\.json"):
        VQAAccuracy(submission_file=target)
    with pytest.raises(AnnotationError, match=r"There is no answer vocabulary .*nowhere\.json"):
        VQAAccuracy(submission_file=target, answer_file=str(tmp_path / "nowhere.json"))
    with pytest.raises(
        ValueError, match=r"has 3 answers in its answer_file, got scores of 2 for .*\.jpg\. Set answer_file"
    ):
        measure(predicted([[0.1, 0.9]], question_ids=[1]), submission_file=target, answer_file=vocabulary)
    with pytest.raises(ValueError, match=r"expects question_ids for the submission_file, .*\.jpg has none"):
        measure(predicted([[0.1, 0.9, 0.2]]), submission_file=target, answer_file=vocabulary)
    assert not os.path.exists(target)
