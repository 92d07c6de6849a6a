"""Accuracy of answers, counted by hand, with several questions an item and with videos that cannot be read."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from clipbert_mm.errors import ClipBertError
from clipbert_mm.evaluation import accuracy_by_type, correct_answers
from clipbert_mm.structures import IGNORED, VideoTextSample


def predicted(scores: Any, labels: list[int], broken: str | None = None) -> VideoTextSample:
    """A sample as testing leaves it."""
    sample = VideoTextSample(metainfo=dict(path=f"{len(labels)}.mp4", broken=broken))
    if broken is None:
        sample.set_data(dict(scores=torch.tensor(scores), answer_labels=np.array(labels)))
    return sample


def accuracy(*samples: VideoTextSample, **options: str) -> dict[str, float]:
    """The metric over one batch of samples."""
    evaluator = Evaluator(dict(type="AnswerAccuracy", **options))
    evaluator.process(list(samples))
    return evaluator.evaluate(len(samples))


def test_the_best_answer_counts_against_a_loop():
    rng = np.random.default_rng(0)
    scores, labels = rng.integers(0, 4, (200, 7)).astype(float), rng.integers(-1, 8, 200)  # many ties
    wanted = []
    for row, label in zip(scores, labels, strict=True):
        best = [place for place in range(7) if row[place] == max(row)]
        wanted.append(1 / len(best) if label in best else 0)
    assert correct_answers(scores, labels) == pytest.approx(wanted)


def test_accuracy_is_over_questions_not_over_videos():
    three = predicted([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 1, IGNORED])
    one = predicted([[0.9, 0.1]], [0])
    assert accuracy(three, one) == {"accuracy": 50.0, "ceiling": 75.0, "coverage": 100.0}


def test_options_of_multiple_choice_lie_side_by_side():
    two_questions = predicted([0.1, 0.5, 0.2, 0.9, 0.3, 0.1], [1, 2])
    assert accuracy(two_questions)["accuracy"] == 50.0


def test_videos_that_cannot_be_read_are_left_out_and_reported():
    read, broken = predicted([[0.9, 0.1]], [0]), predicted(None, [0, 1], broken="cut short")
    assert accuracy(read, broken, broken, read) == {"accuracy": 100.0, "ceiling": 100.0, "coverage": 50.0}
    with pytest.raises(ClipBertError, match=r"All 1 videos of the test are unreadable, the first because: "):
        accuracy(broken)


def test_the_result_of_each_question_is_written(tmp_path: Path):
    samples = [
        predicted([[1.0, 0.0], [1.0, 1.0]], [0, 1]),
        predicted([], [], "truncated"),
        predicted([[1.0, 0.0]], [1]),
    ]
    metrics = accuracy(*samples, outcomes_file=str(tmp_path / "answers.json"))
    assert json.loads((tmp_path / "answers.json").read_text()) == dict(
        paths=["2.mp4", "2.mp4", "1.mp4"], correct=[1.0, 0.5, 0.0]
    )
    assert metrics["accuracy"] == pytest.approx(50)


def test_each_type_has_an_accuracy_of_its_own():
    typed = predicted([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 1, 1])
    typed.set_metainfo(dict(answer_types=["who", "what", "who"]))
    found = accuracy(typed)
    assert found["accuracy"] == pytest.approx(200 / 3)
    assert (found["accuracy/who"], found["accuracy/what"]) == (100.0, 0.0)
    right, types = np.array([1, 0, 1, 1, 0.5]), list("aabbb")
    assert accuracy_by_type(right, types) == {
        "accuracy": 70.0,
        "accuracy/a": 50.0,
        "accuracy/b": pytest.approx(250 / 3),
    }


def test_groups_of_types_have_an_accuracy_too():
    typed = predicted([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7], [0.3, 0.7]], [1, 1, 1, 1])
    typed.set_metainfo(dict(answer_types=["who", "what", "", "how"]))
    found = accuracy(typed, groups=dict(things=["what", "who"], all=["who", "what", "how"], none=["when"]))
    assert {name: value for name, value in found.items() if name.startswith("accuracy")} == {
        "accuracy": 75.0,
        "accuracy/how": 100.0,
        "accuracy/what": 0.0,
        "accuracy/who": 100.0,
        "accuracy/things": 50.0,
        "accuracy/all": pytest.approx(200 / 3),
    }


def test_counts_by_hand():
    sample = VideoTextSample(metainfo=dict(path="a.gif", broken=None))
    sample.set_data(dict(scores=torch.tensor([2.4, 2.5, 12.0, 0.2]), counts=np.array([2, 2, 10, 3], np.float32)))
    broken = VideoTextSample(metainfo=dict(path="b.gif", broken="cut short"))
    evaluator = Evaluator(dict(type="CountError", low=1, high=10))
    evaluator.process([sample, broken])
    # 2.5 rounds up to 3; 12 is more than 10, 0.2 less than 1.
    assert evaluator.evaluate(2) == {
        "mse": pytest.approx((0.4**2 + 0.5**2 + 2**2 + 2.8**2) / 4),
        "mse_rounded": (0 + 1 + 0 + 4) / 4,
        "accuracy": 50.0,
        "coverage": 50.0,
    }


def test_pretraining_by_hand():
    samples = []
    for scores, labels, words in (([2.0, -1.0, 0.0], [1, 1, 0], [True, False, False]), ([-3.0], [0], [True])):
        samples.append(VideoTextSample(metainfo=dict(path="a.jpg", broken=None)))
        fields = dict(scores=torch.tensor(scores), match_labels=np.array(labels), mlm_correct=torch.tensor(words))
        samples[-1].set_data(fields)
    evaluator = Evaluator(dict(type="PretrainingAccuracy"))
    evaluator.process(samples)
    assert evaluator.evaluate(2) == {"matching_accuracy": 62.5, "mlm_accuracy": 50.0, "coverage": 100.0}


@pytest.mark.parametrize("metric", ["AnswerAccuracy", "CountError", "PretrainingAccuracy", "VQAAccuracy"])
def test_what_could_not_be_read_is_named(metric: str, caplog: pytest.LogCaptureFixture):
    fields = dict(
        scores=torch.zeros(1, 2) if metric in ("AnswerAccuracy", "VQAAccuracy") else torch.zeros(1),
        answer_labels=np.array([0]),
        answer_scores=np.ones((1, 2)),
        counts=np.array([0.0]),
        match_labels=np.array([0]),
        mlm_correct=torch.tensor([True]),
    )
    samples = [VideoTextSample(metainfo=dict(path="a.mp4", broken=None))]
    samples[0].set_data(fields)
    samples += [VideoTextSample(metainfo=dict(path=f"{i}.mp4", broken="cut short")) for i in range(2)]
    evaluator = Evaluator(dict(type=metric, **(dict(low=0, high=9) if metric == "CountError" else {})))
    evaluator.process(samples)
    with caplog.at_level("WARNING", logger="clipbert_mm"):
        evaluator.evaluate(3)
    assert caplog.messages == [
        "2 of 3 videos could not be read and are excluded from the metrics:\n  0.mp4: cut short\n  1.mp4: cut short"
    ]
