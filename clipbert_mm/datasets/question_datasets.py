"""Datasets of videos or images with questions: open-ended, multiple choice, counting, and VQA 2.0."""

import os
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from types import NoneType
from typing import Any, ClassVar

import numpy as np

from clipbert_mm.datasets.media_dataset import MediaDataset
from clipbert_mm.datasets.text_check import check_texts
from clipbert_mm.errors import AnnotationError, quoted
from clipbert_mm.json_text import is_blank
from clipbert_mm.log import logger
from clipbert_mm.registry import DATASETS
from clipbert_mm.structures import IGNORED, read_answers

MAX_COUNT = 1_000_000_000
"""Largest count that an annotation may have."""


class QuestionDataset(MediaDataset):
    """Base of the question datasets; a subclass defines what an answer is.

    A line of the annotation file is a JSON object with a file, a ``question``, the keys of the class, and optionally an
    ``answer_type`` and a ``question_id``. In testing all questions of a file share a visual pass.

    Args:
        questions_per_item: Questions of a file that share a visual pass in training; a file with more of them has several
            items.
        **options: Options of :class:`~clipbert_mm.datasets.media_dataset.MediaDataset`.

    Raises:
        AnnotationError: If a file cannot be used, files that it names are missing, or two questions of a test have the same
            ``question_id``.
    """

    HAS_OPTIONS = False
    """Whether the texts of a question are its options."""

    def __init__(self, *, questions_per_item: int = 1, **options: Any) -> None:  # noqa: ANN401
        self.questions_per_item = questions_per_item
        super().__init__(**options)

    def load_data_list(self) -> list[dict[str, Any]]:
        """Read the annotation file; return one dict with ``path`` and ``questions`` (the records) per item."""
        records = self.records()
        if self.test_mode:
            self.check_ids(records)
        steps = self.pipeline.transforms
        check_texts(self.ann_file, steps, records, lambda record: self.texts_of([record]), are_options=self.HAS_OPTIONS)
        grouped: dict[str, list[dict[str, Any]]] = {}
        for record in self.select(records):
            grouped.setdefault(self.path_of(record.pop("media")), []).append(record)
        grouped = self.usable(grouped)
        size = max(map(len, grouped.values())) if self.test_mode else self.questions_per_item
        return [
            dict(path=path, questions=questions[start : start + size])
            for path, questions in grouped.items()
            for start in range(0, len(questions), size)
        ]

    def fault_of(self, record: Mapping[str, Any]) -> str:
        """Check that ``answer_type`` and ``question_id`` are text or whole numbers, if given."""
        for name in ("answer_type", "question_id"):
            value = record.get(name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, (str, int))):
                return f'expected text or a whole number under the key "{name}", got {quoted(value)}.'
        return ""

    def check_ids(self, records: list[dict[str, Any]]) -> None:
        """Check that the ids of the questions of a test are unique.

        Raises:
            AnnotationError: If they are not.
        """
        ids = Counter(record["question_id"] for record in records if record.get("question_id") is not None)
        if duplicates := [name for name, count in ids.items() if count > 1]:
            raise AnnotationError(
                f"{self.ann_file}: expected each question_id once, {len(duplicates)} occur several times, such as "
                f"{quoted(duplicates[0])}. It identifies a result: remove the duplicate questions, or all ids."
            )

    def select(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Check the records together; return those to use."""
        return records

    def prepare(self, idx: int, rng: np.random.Generator) -> dict[str, Any]:
        """Return the questions of the item and their labels."""
        return self.prepare_test(idx) | dict(rng=rng)

    def prepare_test(self, idx: int) -> dict[str, Any]:
        """Return the questions of the item and their labels."""
        info = self.get_data_info(idx)
        questions = info.pop("questions")
        if any(question.get("answer_type") is not None for question in questions):
            types = (question.get("answer_type") for question in questions)
            info["answer_types"] = ["" if kind is None else str(kind) for kind in types]
        if all(question.get("question_id") is not None for question in questions):
            info["question_ids"] = [question["question_id"] for question in questions]
        return info | dict(texts=self.texts_of(questions)) | self.labels_of(questions)

    def texts_of(self, questions: list[dict[str, Any]]) -> list[str]:
        """Return the texts that the model reads."""
        return [question["question"] for question in questions]

    @abstractmethod
    def labels_of(self, questions: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Return the labels of questions, by their names on the sample."""


class VocabularyDataset(QuestionDataset):
    """Base of the datasets whose answers are words of a vocabulary.

    Args:
        answer_file: File of the answer vocabulary, as :func:`~clipbert_mm.structures.read_answers` takes it, relative to
            ``data_root``.
        **options: Options of :class:`QuestionDataset`.
    """

    def __init__(self, *, answer_file: str, data_root: str = "", **options: Any) -> None:  # noqa: ANN401
        self.answers = read_answers(os.path.join(data_root, answer_file))
        super().__init__(data_root=data_root, **options)

    def select(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Keep, in training, the questions that the vocabulary can answer.

        Raises:
            AnnotationError: If the vocabulary can answer none.
        """
        known = [record for record in records if self.has_known_answer(record)]
        if len(known) < len(records):
            consequence = "count as wrong" if self.test_mode else "are left out"
            logger.warning(
                f"{self.ann_file}: the answers of {len(records) - len(known)} of {len(records)} questions are not in the "
                f"vocabulary of {len(self.answers)}; these questions {consequence}."
            )
        if not known:
            raise AnnotationError(
                f"{self.ann_file}: none of the answers is in the vocabulary of {len(self.answers)} answers. The first question "
                f"is {quoted(records[0]['question'])}. Set answer_file of the dataset to the vocabulary made with this file."
            )
        return records if self.test_mode else known

    @abstractmethod
    def has_known_answer(self, record: dict[str, Any]) -> bool:
        """Whether a correct answer of the question is in the vocabulary."""


@DATASETS.register_module()
class OpenEndedDataset(VocabularyDataset):
    """Open-ended questions with one correct answer each: MSRVTT-QA, TGIF-QA's frameQA.

    An answer outside the vocabulary cannot be learnt: training leaves its question out, in testing its question counts as
    wrong. A line may have further correct answers, ``"references": ["chef"]``, which :class:`~clipbert_mm.evaluation.WUPS`
    takes too. Arguments are those of :class:`VocabularyDataset`.
    """

    KEYS: ClassVar = {"question": str, "answer": str}
    EXAMPLE = '{"video": "a.mp4", "question": "what is the man doing?", "answer": "cook", "answer_type": "what"}'

    def fault_of(self, record: Mapping[str, Any]) -> str:
        """Check that ``references`` are texts, if given."""
        references = record.get("references", [])
        if isinstance(references, list) and all(isinstance(text, str) and not is_blank(text) for text in references):
            return super().fault_of(record)
        return f'expected a list of answers under the key "references", got {quoted(references)}.'

    def has_known_answer(self, record: dict[str, Any]) -> bool:
        """Whether the answer is in the vocabulary."""
        return record["answer"] in self.answers

    def prepare_test(self, idx: int) -> dict[str, Any]:
        """Return the questions of the item and their labels; in testing also ``references``, all correct answers of each."""
        item = super().prepare_test(idx)
        if self.test_mode:
            questions = self.get_data_info(idx)["questions"]
            item["references"] = [[question["answer"], *question.get("references", [])] for question in questions]
        return item

    def labels_of(self, questions: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Return ``answer_labels``; ``IGNORED`` for an answer outside the vocabulary."""
        return dict(answer_labels=np.array([self.answers.get(question["answer"], IGNORED) for question in questions]))

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the indices of an item's answers in the vocabulary, which MMEngine's ClassBalancedDataset balances."""
        answers = [question["answer"] for question in self.get_data_info(idx)["questions"]]
        return [self.answers[answer] for answer in answers if answer in self.answers]


@DATASETS.register_module()
class SoftAnswerDataset(VocabularyDataset):
    """Questions with several answers, each with a score: VQA 2.0. Files for a test server have no ``labels``.

    Arguments are those of :class:`VocabularyDataset`.
    """

    KEYS: ClassVar = {"question": str}
    EXAMPLE = '{"image": "a.jpg", "question": "what is it?", "question_id": 7, "labels": {"cat": 1.0, "kitten": 0.3}}'

    def fault_of(self, record: Mapping[str, Any]) -> str:
        """Check that the labels are scores."""
        labels = record.get("labels", {})
        if isinstance(labels, dict) and all(map(_is_score, labels.values())):
            return super().fault_of(record)
        return f"expected labels from answers to scores in [0, 1], as in {self.EXAMPLE}, got {quoted(labels)}."

    def check_ids(self, records: list[dict[str, Any]]) -> None:
        """Check that either all questions of a test have a unique id, by which answers are submitted, or none has.

        Raises:
            AnnotationError: If not.
        """
        super().check_ids(records)
        without_id = sum(record.get("question_id") is None for record in records)
        if 0 < without_id < len(records):
            raise AnnotationError(
                f"{self.ann_file}: expected a question_id in every line or in none, {without_id} of {len(records)} have none. "
                "Answers are submitted by it: add it, or leave out all ids."
            )

    def select(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Check that all records have labels, or in testing none; keep the questions that the vocabulary can answer."""
        unlabeled = [record for record in records if "labels" not in record]
        if unlabeled and not (self.test_mode and len(unlabeled) == len(records)):
            raise AnnotationError(
                f"{self.ann_file}: expected labels in every line, as in {self.EXAMPLE}, got {len(unlabeled)} of {len(records)} "
                f"questions without; the first is {quoted(unlabeled[0]['question'])}. Only files for a test server have none."
            )
        return records if unlabeled else super().select(records)

    def has_known_answer(self, record: dict[str, Any]) -> bool:
        """Whether an answer of the vocabulary has a score."""
        return any(answer in self.answers for answer in record["labels"])

    def labels_of(self, questions: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Return ``answer_scores``, (m, C); nothing for questions without labels."""
        if "labels" not in questions[0]:
            return {}
        scores = np.zeros((len(questions), len(self.answers)), np.float32)
        for row, question in zip(scores, questions, strict=True):
            for answer, score in question["labels"].items():
                if answer in self.answers:
                    row[self.answers[answer]] = score
        return dict(answer_scores=scores)

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the indices in the vocabulary of the answers that have a score, for MMEngine's ClassBalancedDataset."""
        labels = [question.get("labels", {}) for question in self.get_data_info(idx)["questions"]]
        return [self.answers[answer] for each in labels for answer in each if each[answer] and answer in self.answers]


def _is_score(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1


@DATASETS.register_module()
class MultipleChoiceDataset(QuestionDataset):
    """Multiple choice: TGIF-QA's action and transition, and MSRVTT's test, which has options without a question.

    Each option is a text: the question, if there is one, and the option. Arguments are those of :class:`QuestionDataset`.
    """

    KEYS: ClassVar = {"options": list, "answer": int}
    HAS_OPTIONS = True
    EXAMPLE = '{"video": "a.gif", "question": "what does he do?", "options": ["jump", "sit"], "answer": 0}'

    def fault_of(self, record: Mapping[str, Any]) -> str:
        """Check that there are two or more options and that the answer is the index of one."""
        options, answer = record["options"], record["answer"]
        valid_options = len(options) > 1 and all(isinstance(option, str) and not is_blank(option) for option in options)
        question = record.get("question")
        if not isinstance(question, (str, NoneType)):
            return f'expected text under the key "question", got {quoted(question)}.'
        if valid_options and 0 <= answer < len(options):
            return super().fault_of(record)
        return (
            f"expected two or more options and the index of the correct one, as in {self.EXAMPLE}, got {quoted(options)} and "
            f"{quoted(answer)}."
        )

    def select(self, records: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Check that all questions of a video have the same number of options.

        Raises:
            AnnotationError: If they have not.
        """
        sizes: dict[str, int] = {}
        for record in records:
            options = record["options"]
            if sizes.setdefault(record["media"], len(options)) != len(options):
                raise AnnotationError(
                    f"{self.ann_file}: expected the same number of options in all questions of {quoted(record['media'])}, got "
                    f"{sizes[record['media']]} and {len(options)}."
                )
        return records

    def texts_of(self, questions: list[dict[str, Any]]) -> list[str]:
        """Return the question with each of its options."""
        return [
            f"{question.get('question') or ''} {option}".strip()
            for question in questions
            for option in question["options"]
        ]

    def labels_of(self, questions: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Return ``answer_labels``."""
        return dict(answer_labels=np.array([question["answer"] for question in questions]))


@DATASETS.register_module()
class CountDataset(QuestionDataset):
    """Questions that ask for a count: TGIF-QA's Count. Arguments are those of :class:`QuestionDataset`."""

    KEYS: ClassVar = {"question": str, "count": (int, float)}
    EXAMPLE = '{"video": "a.gif", "question": "how many times does he jump?", "count": 3}'

    def fault_of(self, record: Mapping[str, Any]) -> str:
        """Check that the count is in range."""
        if 0 <= record["count"] <= MAX_COUNT:
            return super().fault_of(record)
        return f"expected a count of 0 to {MAX_COUNT:,}, got {quoted(record['count'])}."

    def labels_of(self, questions: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        """Return ``counts``."""
        return dict(counts=np.array([question["count"] for question in questions], np.float32))

    def get_cat_ids(self, idx: int) -> list[int]:
        """Return the counts of an item, rounded, which MMEngine's ClassBalancedDataset balances."""
        return [round(question["count"]) for question in self.get_data_info(idx)["questions"]]
