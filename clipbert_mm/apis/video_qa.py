"""Ask questions of a video."""

import os
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.apis.explanation import Explanation, explain
from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.apis.results import Answer, AnswerResult, best_of, moments_of
from clipbert_mm.errors import OptionError, quoted
from clipbert_mm.json_text import is_blank

OPEN = ("open-ended questions", "questions with several answers")
CHOICE, COUNTING = "multiple choice", "counting"


class VideoQA:
    """Answer questions about a video, or an image, with a model trained on questions.

    Args:
        config_or_checkpoint: Checkpoint of ours, or a config file.
        device: Where the model runs; None for a GPU where there is one.
        weights: Checkpoint beside a config file; None for the config's ``load_from``.

    Raises:
        CheckpointError: If the checkpoint cannot be read or does not fit.
        OptionError: If the model was trained for another task.

    Example:
        >>> qa = VideoQA("qa.pth")  # doctest: +SKIP
        >>> print(qa.ask("a.mp4", "what is the man doing?"))  # doctest: +SKIP
    """

    def __init__(
        self,
        config_or_checkpoint: str | os.PathLike,
        device: str | torch.device | None = None,
        *,
        weights: str | os.PathLike | None = None,
    ) -> None:
        self.predictor = Predictor(config_or_checkpoint, weights=weights, device=device)
        if self.predictor.task not in (*OPEN, CHOICE, COUNTING):
            raise OptionError(
                f"{config_or_checkpoint} was trained for {self.predictor.task}, and a question needs a model for questions. "
                "Search and rank with VideoSearch (clipbert search)."
            )

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
            options: The options, which a model for multiple choice needs and others do not take.
            topk: Most answers.
            timeout: Seconds in which a process of its own has to read the video, which may crash; None reads it in this one.

        Raises:
            BrokenMediaError: If the video cannot be read.
            OptionError: If the question is empty or too long, options are missing, not wanted, or the same to the model, or
                ``topk`` is below 1.
        """
        texts = self._texts(question, options, topk)
        pieces = self.predictor.word_pieces(texts)
        if options is not None:
            _tell_apart(options, pieces)
        unknown = self.predictor.unknown_words(texts)
        media = self.predictor.read(os.fspath(video), timeout)
        logits = self.predictor.clip_logits(self.predictor.encode([media.frames]), pieces)  # (M, 1, K, C)
        scores, clips = self.predictor.pooled_scores(logits)[:, 0], self.predictor.clip_scores(logits)[:, 0]
        if self.predictor.task == COUNTING:
            count = Answer(f"{float(scores[0]):.1f}", None, None, moments_of(media.clip_times, clips[0].numpy()))
            return AnswerResult(os.fspath(video), question, (count,), unknown)
        shares, alone, names = self._shares(scores, clips, options)
        answers = []
        for i in np.argsort(-shares.numpy(), kind="stable")[:topk]:
            moments = moments_of(media.clip_times, alone[:, i].numpy())
            answers.append(Answer(names[i], float(shares[i]), best_of(moments), moments))
        return AnswerResult(os.fspath(video), question, tuple(answers), unknown)

    def explain(
        self,
        video: str | os.PathLike,
        question: str,
        options: Sequence[str] | None = None,
        picture: str | os.PathLike | None = None,
    ) -> Explanation:
        """Show why the best answer is given: each clip's score for it, the best clip, and where in it the score comes from.

        Args:
            video: The video.
            question: The question.
            options: As of :meth:`ask`.
            picture: PNG file to draw it in; None draws nothing.

        Raises:
            BrokenMediaError: If the video cannot be read.
            OptionError: As of :meth:`ask`.
        """
        best = self.ask(video, question, options, topk=1).answers[0]
        texts = self._texts(question, options, 1)
        text, output = texts[0], None
        if options is not None:
            text = texts[list(options).index(best.text)]
        elif self.predictor.task in OPEN:
            output = self._names().index(best.text)
        (pieces,) = self.predictor.word_pieces([text])
        found = explain(self.predictor, os.fspath(video), question, pieces, answer=best.text, output=output)
        if picture is not None:
            found.draw(picture)
        return found

    def _texts(self, question: str, options: Sequence[str] | None, topk: int) -> list[str]:
        """Return what the model reads."""
        if topk < 1:
            raise OptionError(f"ask expects topk >= 1, got {topk}.")
        if is_blank(question):
            raise OptionError("The question is empty.")
        if self.predictor.task != CHOICE:
            if options is not None:
                raise OptionError(f"The model was trained for {self.predictor.task}, which takes no options.")
            return [question]
        if options is None or isinstance(options, str) or len(set(options)) != len(options) or len(options) < 2:
            raise OptionError(f"Multiple choice needs two different options or more, got {quoted(options)}.")
        if any(map(is_blank, options)):
            raise OptionError(f"Multiple choice needs options with text, got {quoted(options)}.")
        return [f"{question} {option}".strip() for option in options]

    def _shares(
        self, scores: Tensor, clips: Tensor, options: Sequence[str] | None
    ) -> tuple[Tensor, Tensor, Sequence[str]]:
        """Return the probability of each answer, (A,), the scores of each clip for each, (K, A), and the answers' names."""
        if options is not None:
            return scores.softmax(dim=0), clips.log_softmax(dim=0).T, options  # of (M,) and (M, K)
        names = self._names()
        if self.predictor.task == OPEN[0]:
            return scores[0].exp(), clips[0], names  # they are log-probabilities
        return scores[0].sigmoid(), torch.nn.functional.logsigmoid(clips[0]), names

    def _names(self) -> list[str]:
        count = self.predictor.model.head.num_answers
        if self.predictor.answers is None or len(self.predictor.answers) != count:
            raise OptionError(
                f"The model knows {count} answers, their words are not known ({len(self.predictor.answers or ())} given). Use "
                "a checkpoint that carries them, or a config whose test dataset has their answer_file."
            )
        return self.predictor.answers


def _tell_apart(options: Sequence[str], pieces: Sequence[np.ndarray]) -> None:
    """See that no two options are the same word pieces, as in other case: the model could not choose among them.

    Raises:
        OptionError: If two are.
    """
    first: dict[bytes, str] = {}
    for option, ids in zip(options, pieces, strict=True):
        if (other := first.setdefault(ids.tobytes(), option)) != option:
            raise OptionError(
                f"The options {quoted(other)} and {quoted(option)} are the same to the model: it tells neither case nor words "
                "that it does not know apart. Give options that differ in other words."
            )
