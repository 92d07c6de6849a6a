"""VQA 2.0: normalization of answers as on the test server, soft accuracy, and the submission file."""

import json
import re
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric

from clipbert_mm.errors import OptionError
from clipbert_mm.evaluation.answer_accuracy import accuracy_by_type
from clipbert_mm.evaluation.coverage import readable
from clipbert_mm.fileio import atomic_write
from clipbert_mm.log import logger
from clipbert_mm.registry import METRICS
from clipbert_mm.structures import read_answers

MARKS = ';/[]"{}()=+\\_-><@`,?!'
"""Punctuation that the server removes. Colons, apostrophes and other signs stay."""
GROUPED_DIGITS = re.compile(r"\d,\d")
PERIOD = re.compile(r"\.(?!\d)")
MAX_PERIODS = 32
"""How many periods the server removes, because it passes a flag of this value where ``re`` expects a count."""
DIGITS = {"none": "0", "zero": "0", "one": "1", "two": "2", "three": "3", "four": "4", "five": "5"}
DIGITS |= {"six": "6", "seven": "7", "eight": "8", "nine": "9", "ten": "10"}
ARTICLES = ("a", "an", "the")
CONTRACTED = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd he'd've he's "
    "how'd how'll how's isn't it'd it'd've it'll ma'am might've mightn't mightn't've must've mustn't needn't not've o'clock "
    "oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've somebody'll somebody's someone'd "
    "someone'd've someone'll someone's something'd something'd've something'll that's there'd there'd've there're there's "
    "they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll what're what's what've when's where'd "
    "where's where've who'd who'd've who'll who's who've why'll why're why's won't would've wouldn't wouldn't've y'all "
    "y'all'd've y'all'll you'd you'd've you'll you're you've"
)
REPAIRED = {word[:i] + word[i + 1 :]: word for word in CONTRACTED.split() for i, sign in enumerate(word) if sign == "'"}
"""Contractions without one apostrophe, and their correct form."""
REPAIRED["somebody'd"] = "somebodyd"  # as on the server


@lru_cache(maxsize=1 << 18)  # there are few answers, and each occurs thousands of times
def normalize_answer(text: str) -> str:
    """Normalize an answer as the VQA test server does before it compares answers.

    The steps and their order are the server's (visualqa.org/evaluation, and the code published with it):

    1. Replace each mark of :data:`MARKS` by a space; remove it instead if somewhere in the answer a space is next to such a
       mark. A comma between two digits, as in ``1,000``, makes all marks be removed.
    2. Remove periods that no digit follows.
    3. Lower case; number words up to ten become digits, "none" becomes 0, and articles are removed.
    4. Add the missing apostrophe to contractions.

    >>> (
    ...     normalize_answer("The two dogs."),
    ...     normalize_answer("1,000"),
    ...     normalize_answer("black/white"),
    ...     normalize_answer("dont"),
    ... )
    ('2 dogs', '1000', 'black white', "don't")
    """
    text = _without_breaks(text)
    grouped = GROUPED_DIGITS.search(text) is not None
    traceless = {mark: grouped or f"{mark} " in text or f" {mark}" in text for mark in MARKS}
    text = text.translate({ord(mark): "" if gone else " " for mark, gone in traceless.items()})
    text = PERIOD.sub("", text, count=MAX_PERIODS)
    words = [DIGITS.get(word, word) for word in text.lower().split()]
    return " ".join(REPAIRED.get(word, word) for word in words if word not in ARTICLES)


def agreement_score(same: int, annotators: int) -> float:
    """Score an answer by how many annotators gave it: the mean of min(1, n / 3) over all subsets without one annotator.

    Args:
        same: Number of annotators who gave it.
        annotators: Number of annotators; 10 in VQA.

    >>> [agreement_score(same, 10) for same in (0, 1, 2, 3, 4, 10)]
    [0.0, 0.3, 0.6, 0.9, 1.0, 1.0]
    """
    thirds = same * min(same - 1, 3) + (annotators - same) * min(
        same, 3
    )  # without one who gave it, and without one who did not
    return thirds / (3 * annotators)


def soft_scores(answers: Sequence[str]) -> dict[str, float]:
    """Score each answer of a question as the VQA test server does.

    The server normalizes answers before it compares them, except where all annotators gave the same answer: ten times "two"
    matches only "two".

    Args:
        answers: Raw answers of the annotators; 10 in VQA.

    Returns:
        Answers in the form that is compared, with their scores in [0, 1], see :func:`agreement_score`; others score 0.

    >>> soft_scores(["Two"] * 3 + ["2"] * 6 + ["a cat"])
    {'2': 1.0, 'cat': 0.3}
    >>> soft_scores(["two"] * 10)
    {'two': 1.0}
    """
    raw = list(map(_without_breaks, answers))
    counts = Counter(raw if len(set(raw)) == 1 else map(normalize_answer, raw))
    return {answer: agreement_score(same, len(answers)) for answer, same in counts.items()}


def vqa_accuracy(predicted: str, answers: Sequence[str]) -> float:
    """Score a predicted answer in [0, 1] as the VQA test server does; see :func:`soft_scores`.

    Args:
        predicted: The answer.
        answers: What the annotators said; 10 in VQA.

    >>> vqa_accuracy("two.", ["2"] * 2 + ["3"] * 8), vqa_accuracy("two.", ["2"] * 10)
    (0.6, 0.0)
    """
    unanimous = len(set(map(_without_breaks, answers))) == 1
    compared = _without_breaks(predicted) if unanimous else normalize_answer(predicted)
    return soft_scores(answers).get(compared, 0.0)


def _without_breaks(text: str) -> str:
    """Replace line breaks and tabs, as the server does with all answers."""
    return text.replace("\n", " ").replace("\t", " ").strip()


def chosen_scores(scores: np.ndarray, answer_scores: np.ndarray) -> np.ndarray:
    """Return how correct the best answer of each question is, or the mean of answers that tie for the best score.

    Args:
        scores: Score of each question and answer as predicted, (q, C), unrounded.
        answer_scores: How correct each answer is, in [0, 1], (q, C).

    Returns:
        float (q,).

    >>> chosen_scores(np.array([[0.1, 0.9], [0.5, 0.5]]), np.array([[0.0, 0.3], [1.0, 0.0]])).tolist()
    [0.3, 0.5]
    """
    best = scores == scores.max(axis=1, keepdims=True)  # (q, C)
    return (answer_scores * best).sum(axis=1) / best.sum(axis=1)


@METRICS.register_module()
class VQAAccuracy(BaseMetric):
    """Soft accuracy in percent over all questions and by answer type, and the submission file for the test server.

    ``ceiling`` is the accuracy of a model that always gives the best answer of the vocabulary. ``coverage`` is the share of
    images that could be read; questions of the others are excluded. Without ``answer_scores``, as in the test splits, only
    the submission file is written.

    Args:
        submission_file: JSON file for the server, a list of ``{"question_id": 1, "answer": "yes"}``; None writes no file.
        answer_file: JSON file of the answer vocabulary, for ``submission_file``.
        collect_device: Device that gathers the results of all ranks, "cpu" or "gpu".
        prefix: Prefix of the metrics' names.
        collect_dir: Folder that gathers the results of all ranks by way of the disk.

    Raises:
        OptionError: If there is a ``submission_file`` but no ``answer_file``.
        AnnotationError: If the vocabulary is invalid.
    """

    default_prefix = ""

    def __init__(
        self,
        *,
        submission_file: str | None = None,
        answer_file: str | None = None,
        collect_device: str = "cpu",
        prefix: str | None = None,
        collect_dir: str | None = None,
    ) -> None:
        super().__init__(collect_device=collect_device, prefix=prefix, collect_dir=collect_dir)
        if submission_file is not None and answer_file is None:
            raise OptionError(
                f"VQAAccuracy expects an answer_file for the submission_file {submission_file}: the vocabulary of the model."
            )
        indices = read_answers(answer_file) if answer_file is not None else {}
        self.submission_file = submission_file
        self.answers = sorted(indices, key=indices.__getitem__)

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:  # noqa: ANN401
        """Add the predictions of some items.

        Raises:
            OptionError: If the numbers of scores and of answers in the vocabulary differ, or question_ids are missing.
        """
        for sample in data_samples:
            entry = dict(path=sample["path"], broken=sample["broken"])
            if sample["broken"] is None:
                scores = sample["scores"].double().cpu().numpy()  # (m, C)
                if sample.get("answer_scores") is not None:
                    targets = np.asarray(sample["answer_scores"], float)  # (m, C)
                    types = sample.get("answer_types", [""] * len(scores))
                    entry |= dict(correct=chosen_scores(scores, targets), best=targets.max(axis=1), types=types)
                if self.submission_file is not None:
                    entry["submission"] = self.submit(sample, scores)
            self.results.append(entry)

    def submit(self, sample: dict, scores: np.ndarray) -> list[dict[str, Any]]:
        """Return the entries of the submission file for an item with ``scores`` (m, C)."""
        if scores.shape[1] != len(self.answers):
            raise OptionError(
                f"VQAAccuracy has {len(self.answers)} answers in its answer_file, got scores of {scores.shape[1]} for "
                f"{sample['path']}. Set answer_file to the vocabulary that the model was trained with."
            )
        if "question_ids" not in sample:
            raise OptionError(
                f"VQAAccuracy expects question_ids for the submission_file, {sample['path']} has none. Add a question_id to "
                "every line of the annotation file."
            )
        best = scores.argmax(axis=1)
        return [
            dict(question_id=question, answer=self.answers[index])
            for question, index in zip(sample["question_ids"], best, strict=True)
        ]

    def compute_metrics(self, results: list[dict]) -> dict[str, float]:
        """Compute the metrics over all items, and write the submission file.

        Raises:
            OptionError: If there are neither correct answers nor a submission file.
        """
        read, coverage = readable(results)
        metrics = {}
        if all("correct" in entry for entry in read):
            correct, best = (np.concatenate([entry[key] for entry in read]) for key in ("correct", "best"))
            metrics = accuracy_by_type(correct, [kind for entry in read for kind in entry["types"]])
            metrics["ceiling"] = float(best.mean() * 100)
        elif self.submission_file is None:
            raise OptionError(
                "VQAAccuracy expects answer_scores in the annotations, got none. For a test split set submission_file."
            )
        if self.submission_file is not None:
            self.write_submission([answer for entry in read for answer in entry["submission"]], coverage)
        return metrics | {"coverage": coverage}

    def write_submission(self, answers: list[dict[str, Any]], coverage: float) -> None:
        """Write the submission file."""
        with atomic_write(str(self.submission_file)) as file:
            json.dump(answers, file)
        logger.info(f"Wrote {len(answers):,} answers to the submission file {self.submission_file}.")
        if coverage < 100:
            logger.warning(
                f"{self.submission_file} lacks the questions of unreadable files; the test server expects all questions."
            )
