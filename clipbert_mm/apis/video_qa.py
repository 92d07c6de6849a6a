"""Ask questions about a video."""

import math
import os
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from clipbert_mm.apis.predictor import ModelSource, Predictor
from clipbert_mm.apis.results import Answer, AnswerResult, best_of, moments_of
from clipbert_mm.deprecation import renamed_arguments
from clipbert_mm.errors import OptionError, is_count, quoted
from clipbert_mm.json_text import is_blank
from clipbert_mm.structures import COUNT, LOG_ODDS, LOG_PROBABILITY, read_answers
from clipbert_mm.structures.answer_vocabulary import CANDIDATES

if TYPE_CHECKING:
    from clipbert_mm.apis.explanation import Explanation
    from clipbert_mm.media.media_file import Media

OPEN = ("open-ended questions", "questions with several answers")
CHOICE, COUNTING = "multiple choice", "counting"
TASKS = (*OPEN, CHOICE, COUNTING, CANDIDATES)
"""Tasks that a model for questions may be trained for."""


class VideoQA:
    """Answer questions about a video, or an image, with a model trained on questions.

    Args:
        config_or_checkpoint: Checkpoint of ours; a config, as its file or as MMEngine's object; or a public model, as a Hugging
            Face folder or name.
        device: Device of the model; None for a GPU if there is one.
        weights: With a config, its checkpoint.
        revision: With a name on the Hugging Face hub, its branch, tag or commit; None for the main branch.
        precision: As of :class:`~clipbert_mm.apis.predictor.Predictor`.
        pooling: How the clips of a video become one score; as of :class:`~clipbert_mm.apis.predictor.Predictor`.
        answers: Answer vocabulary, for a model that rates candidate answers; each question may come with options instead.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit.
        OptionError: If the model was trained for another task.

    Example:
        >>> qa = VideoQA("qa.pth")  # doctest: +SKIP
        >>> print(qa.ask("a.mp4", "what is the man doing?"))  # doctest: +SKIP
    """

    def __init__(
        self,
        config_or_checkpoint: ModelSource,
        device: str | torch.device | None = None,
        *,
        weights: str | os.PathLike | None = None,
        revision: str | None = None,
        precision: str | None = None,
        pooling: str | None = None,
        answers: str | os.PathLike | None = None,
    ) -> None:
        self.predictor = Predictor(
            config_or_checkpoint,
            weights=weights,
            device=device,
            revision=revision,
            precision=precision,
            pooling=pooling,
        )
        if self.predictor.task not in TASKS:
            raise OptionError(
                f"VideoQA needs a model trained for questions, and {self.predictor.source} was trained for "
                f"{self.predictor.task}. Search and rank with VideoSearch (clipbert search)."
            )
        if answers is not None:
            if not self.predictor.rates_candidates:
                raise OptionError(
                    f"answers= goes with a model that rates candidate answers, and {self.predictor.source} was trained for "
                    f"{self.predictor.task}. Leave it out."
                )
            indices = read_answers(os.fspath(answers))
            self.predictor.answers = sorted(indices, key=indices.__getitem__)

    def ask(
        self,
        video: str | os.PathLike,
        question: str,
        options: Sequence[str] | None = None,
        topk: int = 5,
        *,
        timeout: float | None = None,
    ) -> AnswerResult:
        """Answer a question.

        Args:
            video: The video; an image for a model trained on images.
            question: The question.
            options: The options; required by a model for multiple choice, the candidates of a model that rates candidate
                answers, and refused by others.
            topk: Most answers to return.
            timeout: Most seconds for a separate process to read the video, which may crash; None reads it in this process.

        Raises:
            BrokenMediaError: If the video cannot be read.
            OptionError: If the question is empty or too long, options are missing, not allowed, or equal to the model, or
                ``topk`` is below 1.
        """
        asked = Question(self.predictor, os.fspath(video), question, options, topk)
        media = self.predictor.read(asked.path, timeout)
        return asked.answer(media, self.predictor.encode([media.frames], [media.content_shape]))

    @renamed_arguments(picture="out_file")
    def explain(
        self,
        video: str | os.PathLike,
        question: str,
        options: Sequence[str] | None = None,
        out_file: str | os.PathLike | None = None,
    ) -> "Explanation":
        """Explain the best answer: its score by each clip, the best clip, and which parts of it the score is from.

        Args:
            video: The video.
            question: The question.
            options: As of :meth:`ask`.
            out_file: PNG file to draw the explanation to; None draws nothing.

        Raises:
            BrokenMediaError: If the video cannot be read.
            OptionError: As of :meth:`ask`.
        """
        result = self.ask(video, question, options, topk=1)
        explanation = Question(self.predictor, os.fspath(video), question, options).explain(result)
        if out_file is not None:
            explanation.draw(out_file)
        return explanation


class Question:
    """A question about a video, checked before the video is read.

    Args:
        predictor: A model trained for questions.
        path: The video, or an image.
        text: The question.
        options: The options of multiple choice, or candidate answers; None for other tasks.
        topk: Most answers to return.

    Raises:
        OptionError: As of :meth:`VideoQA.ask`.
    """

    def __init__(
        self, predictor: Predictor, path: str, text: str, options: Sequence[str] | None = None, topk: int = 5
    ) -> None:
        self.predictor, self.path, self.text, self.options, self.topk = predictor, path, text, options, topk
        self.texts = self._texts(text, options, topk)
        self.token_ids = predictor.token_ids(self.texts)
        if options is not None:
            _check_distinct(options, self.token_ids if predictor.task == CHOICE else predictor.token_ids(options))

    def answer(self, media: "Media", tokens: Tensor) -> AnswerResult:
        """Answer it for the video that was read, with its visual tokens, (1, K, S, D)."""
        unknown = self.predictor.unknown_words(self.texts)
        with self._candidates():
            logits, clip_logits = self.predictor.logits_of_both(tokens, self.token_ids)  # (M, 1, K, C)
        scores, clips = self.predictor.pooled_scores(logits)[:, 0], self.predictor.clip_scores(clip_logits)[:, 0]
        if self.predictor.task == COUNTING:
            count, moments = float(scores[0]), moments_of(media.clip_times, clips[0].numpy())
            answer = Answer(f"{count:.1f}", count, None, None, moments)
            return AnswerResult(self.path, self.text, (answer,), unknown, score_kind=COUNT, model=self.predictor.name)
        kind = self._kind
        scores, alone = self._scores_of_answers(scores), self._scores_of_answers(clips)  # (A,) and (K, A)
        names = self._names()
        answers = []
        for i in np.argsort(-scores.numpy(), kind="stable")[: self.topk]:
            moments, score = moments_of(media.clip_times, alone[:, i].numpy()), float(scores[i])
            likely = math.exp(score) if kind == LOG_PROBABILITY else None
            answers.append(Answer(names[i], score, likely, best_of(moments), moments))
        return AnswerResult(self.path, self.text, tuple(answers), unknown, score_kind=kind, model=self.predictor.name)

    def explain(self, result: AnswerResult) -> "Explanation":
        """Explain the best answer of what :meth:`answer` returned."""
        from clipbert_mm.apis.explanation import explain

        best, token_ids, output = result.answers[0], self.token_ids[0], None
        if self.predictor.task == CHOICE:
            token_ids = self.token_ids[list(self.options or ()).index(best.text)]
        elif self.predictor.task != COUNTING:
            output = list(self._names()).index(best.text)
        with self._candidates():
            return explain(self.predictor, self.path, self.text, token_ids, answer=best.text, output=output)

    def _candidates(self) -> AbstractContextManager[None]:
        """Set the candidate answers for a block, if the model rates them."""
        return self.predictor.candidates(self._names()) if self.predictor.rates_candidates else nullcontext()

    def _texts(self, question: str, options: Sequence[str] | None, topk: int) -> list[str]:
        """Return the texts that the model reads: the question, or one per option."""
        if not is_count(topk):
            raise OptionError(f"ask expects topk >= 1, got {quoted(topk)}.")
        if not isinstance(question, str):
            raise OptionError(
                f"The question is one text, got {quoted(question)}. Ask several one by one; with a ClipBertInferencer, give "
                "[dict(video=..., question=...) for each of them]."
            )
        if is_blank(question):
            raise OptionError("The question is empty.")
        if self.predictor.task == CANDIDATES and options is None:
            self._names()  # there has to be a vocabulary
            return [question]
        if self.predictor.task not in (CHOICE, CANDIDATES):
            if options is not None:
                raise OptionError(
                    f"The model was trained for {self.predictor.task}, which has no options. Leave them out."
                )
            return [question]
        if not _are_texts(options) or len(set(options)) != len(options) or len(options) < 2:
            given = "none" if options is None else quoted(options)
            raise OptionError(
                f"The model was trained for {self.predictor.task} and expects two or more different options, got {given}. Give "
                "each with --option on the command line, or all as options=[...]."
            )
        if any(map(is_blank, options)):
            raise OptionError(f"Multiple choice expects options that are not empty, got {quoted(options)}.")
        if self.predictor.task == CANDIDATES:
            return [question]
        return [f"{question} {option}".strip() for option in options]

    @property
    def _kind(self) -> str:
        """What the scores of the answers are; options, and answers with log-odds of their own, have log-probabilities."""
        kind = self.predictor.score_kind
        return LOG_PROBABILITY if self.predictor.task == CHOICE or kind == LOG_ODDS else kind

    def _scores_of_answers(self, scores: Tensor) -> Tensor:
        """Return the scores of the answers, (..., A), from the head's: of options (M, ...), else (1, ..., A)."""
        if self.predictor.task == CHOICE:
            return scores.movedim(0, -1).log_softmax(dim=-1)
        return logsigmoid(scores[0]) if self.predictor.score_kind == LOG_ODDS else scores[0]

    def _names(self) -> Sequence[str]:
        """Return what the scores are of: the options, or the answers of the vocabulary.

        Raises:
            OptionError: If there are none.
        """
        if self.options is not None:
            return self.options
        if self.predictor.rates_candidates:
            if not self.predictor.answers:
                raise OptionError(
                    f"{self.predictor.source} rates candidate answers, and none were given. Give each with --option on the "
                    "command line, or all as options=[...]; or an answer vocabulary with --answers, or answers=."
                )
            return self.predictor.answers
        count = self.predictor.model.head.num_answers
        if self.predictor.answers is None or len(self.predictor.answers) != count:
            raise OptionError(
                f"The model has {count} answers, and its vocabulary {len(self.predictor.answers or ())}. Use a checkpoint that "
                "contains its vocabulary, or a config whose test dataset has the answer_file of the training."
            )
        return self.predictor.answers


def _are_texts(options: object) -> TypeGuard[Sequence[str]]:
    return isinstance(options, (list, tuple)) and all(isinstance(each, str) for each in options)


def _check_distinct(options: Sequence[str], token_ids: Sequence[np.ndarray]) -> None:
    """Check that no two options have the same tokens, as with other case: the model could not choose between them.

    Raises:
        OptionError: If two have.
    """
    first: dict[bytes, str] = {}
    for option, ids in zip(options, token_ids, strict=True):
        if (other := first.setdefault(ids.tobytes(), option)) != option:
            raise OptionError(
                f"The options {quoted(other)} and {quoted(option)} have the same tokens: the model ignores case, and all words "
                "unknown to it look the same. Give options that differ in other words."
            )
