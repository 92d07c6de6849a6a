"""Accuracy of answers, counted by hand, with several questions an item and with videos that cannot be read."""

from typing import Any

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator

from clipbert_mm.evaluation import right_answers
from clipbert_mm.structures import IGNORED, VideoTextSample


def predicted(scores: Any, labels: list[int], broken: str | None = None) -> VideoTextSample:
    """A sample as testing leaves it."""
    sample = VideoTextSample(metainfo=dict(path=f"{len(labels)}.mp4", broken=broken))
    if broken is None:
        sample.set_data(dict(scores=torch.tensor(scores), answer_labels=np.array(labels)))
    return sample


def accuracy(*samples: VideoTextSample) -> dict[str, float]:
    """The metric over one batch of samples."""
    evaluator = Evaluator(dict(type="AnswerAccuracy"))
    evaluator.process(list(samples))
    return evaluator.evaluate(len(samples))


def test_the_best_answer_counts_against_a_loop():
    rng = np.random.default_rng(0)
    scores, labels = rng.normal(size=(50, 7)), rng.integers(-1, 7, 50)
    wanted = [max(range(7), key=lambda c: row[c]) == label for row, label in zip(scores, labels, strict=True)]
    assert right_answers(scores, labels).tolist() == wanted


def test_accuracy_is_over_questions_not_over_videos():
    three = predicted([[0.1, 0.9], [0.8, 0.2], [0.3, 0.7]], [1, 1, IGNORED])
    one = predicted([[0.9, 0.1]], [0])
    assert accuracy(three, one) == {"accuracy": 50.0, "coverage": 100.0}


def test_options_of_multiple_choice_lie_side_by_side():
    two_questions = predicted([0.1, 0.5, 0.2, 0.9, 0.3, 0.1], [1, 2])
    assert accuracy(two_questions)["accuracy"] == 50.0


def test_videos_that_cannot_be_read_are_left_out_and_reported():
    read, broken = predicted([[0.9, 0.1]], [0]), predicted(None, [0, 1], broken="cut short")
    assert accuracy(read, broken, broken, read) == {"accuracy": 100.0, "coverage": 50.0}
    with pytest.raises(RuntimeError, match=r"None of the 1 videos of the test could be read\."):
        accuracy(broken)
