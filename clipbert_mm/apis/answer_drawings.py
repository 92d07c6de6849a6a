"""What a tested model answers, to be drawn into the videos of the test: queries with their rank, questions with answers."""

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from clipbert_mm.apis.predictor import Predictor
from clipbert_mm.apis.ranking import TextsToRank
from clipbert_mm.apis.results import Moment, format_score
from clipbert_mm.apis.video_qa import CHOICE, COUNTING, TASKS, Question
from clipbert_mm.datasets.transforms import ClipBertTransforms
from clipbert_mm.datasets.wrappers import leaves
from clipbert_mm.engine.bare_model import bare_model
from clipbert_mm.engine.mmengine_habits import is_retrieval
from clipbert_mm.errors import BrokenMediaError, OptionError
from clipbert_mm.evaluation import read_rankings
from clipbert_mm.registry import MODELS
from clipbert_mm.visualization.answer_video import Drawing, draw_answer, opener_of
from clipbert_mm.visualization.backends import add_video

ANSWERS = 3
"""Answers that are drawn."""


class AnswerVideoHook(Hook):
    """Write videos with what the model answers after a test, to a folder and to all backends of the visualizer.

    For retrieval these are queries with the video that is ranked first and the first right one, for questions the best answers.
    The best clip is marked in time.

    Args:
        folder: Folder of the videos.
        rankings_file: Rankings that the RetrievalMetric of the test writes; not used for questions.
    """

    priority = "HIGH"  # before EMAHook takes its weights away, and LoggerHook closes the visualizer

    def __init__(self, folder: str | os.PathLike, rankings_file: str | os.PathLike = "") -> None:
        self.folder, self.rankings_file = folder, rankings_file

    @master_only
    def before_test(self, runner: Runner) -> None:
        """Find out before the test whether its pipeline can be drawn from.

        Raises:
            OptionError: If it cannot.
        """
        self.tested = TestedModel(bare_model(runner.model), next(leaves(runner.test_dataloader.dataset)))

    @master_only
    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Draw."""
        if any(map(is_retrieval, runner.test_evaluator.metrics)):
            drawings = drawings_of_rankings(self.tested, read_rankings(self.rankings_file))
        else:
            drawings = drawings_of_questions(self.tested)
        for drawing in drawings:
            path = draw_answer(drawing, self.folder, opener_of(self.tested.media_steps))
            add_video(runner.visualizer, f"test_{drawing.name}", path)
        runner.logger.info(f"Wrote videos with answers to {self.folder}.")


class TestedModel(Predictor):
    """A model in memory with the transforms of the dataset that it is tested on, which also cut long texts.

    Args:
        model: The ClipBert.
        dataset: A dataset of ours in test mode.

    Raises:
        OptionError: If the pipeline of the dataset has no Tokenize.
    """

    __test__ = False  # no test of pytest's

    def __init__(self, model: Any, dataset: Any) -> None:  # noqa: ANN401
        steps = list(dataset.pipeline.transforms)
        own = [hasattr(step, "tokenizer") and not isinstance(step, ClipBertTransforms) for step in steps]
        if not any(own):
            raise OptionError(
                "Drawing what a model answers needs a test pipeline with Tokenize, of a dataset of ours such as "
                f"OpenEndedDataset, got a {type(dataset).__name__}. Test without --show-dir."
            )
        tokenizing = own.index(True)
        self.model, self.dataset = model.eval(), dataset
        self.device = next(model.parameters()).device
        self.media_steps, self.tokenize = steps[:tokenizing], steps[tokenizing]
        answers = getattr(dataset, "answers", None)
        self.answers = None if answers is None else sorted(answers, key=answers.__getitem__)
        self.pairs = model.pair_encoder()
        self.precision = "fp32"
        self.source, self.identity = "the tested model", "unknown"

    def token_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokenize texts as in the test, int64 (L,) each."""
        return self.tokenize.transform(dict(texts=list(texts)))["text_ids"]


@torch.no_grad()
def drawings_of_rankings(tested: TestedModel, rankings: Mapping[str, Any], queries: int = 4) -> Iterator[Drawing]:
    """Describe queries with the video that is ranked first and, if that is wrong, with the first right one.

    Args:
        tested: The model.
        rankings: What :func:`~clipbert_mm.evaluation.read_rankings` returned.
        queries: Number of queries, evenly spread over the texts.
    """
    scores = rankings["scores"]  # (texts, videos)
    for query in _spread(len(scores), queries):
        order = np.argsort(-scores[query], kind="stable")
        relevant = rankings["relevant"][query][order]  # (videos,), by rank
        first = int(np.flatnonzero(relevant)[0])
        for position in sorted({0, first}):
            path, text = rankings["videos"][order[position]], rankings["texts"][query]
            media = tested.read(path)
            ranking = TextsToRank(tested, path, [text]).answer(
                media, tested.encode([media.frames], [media.content_shape])
            )
            outcome = "right" if relevant[position] else f"not right, the first right one has rank {first + 1}"
            score = format_score(scores[query, order[position]], ranking.score_kind)
            answered = f"rank {position + 1} of {len(order)}, {ranking.score_kind} {score}: {outcome}"
            yield Drawing(
                f"query_{query:05d}_rank_{position + 1}",
                path,
                (text, answered),
                bool(relevant[position]),
                _spans(ranking.texts[0].moments),
            )


@torch.no_grad()
def drawings_of_questions(tested: TestedModel, questions: int = 8) -> Iterator[Drawing]:
    """Describe questions with the best answers, their probabilities or scores, and the right answer.

    Args:
        tested: The model.
        questions: Number of files, evenly spread over the test, of which the first question is drawn.
    """
    for index in _spread(len(tested.dataset), questions):
        info = tested.dataset.get_data_info(index)
        record, path = info["questions"][0], info["path"]
        try:
            media = tested.read(path)
        except BrokenMediaError:  # the test has said so
            continue
        tokens = tested.encode([media.frames], [media.content_shape])
        asked = record.get("question") or "which option fits?"
        if tested.task == CHOICE:
            texts, options = tested.dataset.texts_of([record]), record["options"]
            ranked = TextsToRank(tested, path, texts).answer(media, tokens).texts[:ANSWERS]
            names, right = [options[texts.index(each.text)] for each in ranked], [options[record["answer"]]]
            kind = tested.score_kind
            answered = [
                f"{name} ({kind} {format_score(each.score, kind)})" for name, each in zip(names, ranked, strict=True)
            ]
            moments = ranked[0].moments
        else:
            result = Question(tested, path, asked, topk=ANSWERS).answer(media, tokens)
            answers = result.answers
            names, moments = [each.text for each in answers], answers[0].moments
            answered = [f"{each.text} {result.value_of(each)}".rstrip() for each in answers]
            right = [record["answer"]] if "answer" in record else list(record.get("labels", {}))
            if tested.task == COUNTING:
                names, right = [f"{np.floor(float(names[0]) + 0.5):g}"], [f"{record['count']:g}"]
        truth = f"right: {' or '.join(right)}" if right else "the right answer is not known"
        lines = (asked, f"answer: {', '.join(answered)}", truth)
        yield Drawing(f"question_{index:05d}", path, lines, names[0] in right, _spans(moments))


def answers_questions(model: Mapping[str, Any]) -> bool:
    """Whether the config of a model has a head for questions."""
    head = (model.get("head") or {}).get("type")
    return getattr(MODELS.get(head) if isinstance(head, str) else head, "task", None) in TASKS


def _spread(count: int, chosen: int) -> list[int]:
    return np.unique(np.linspace(0, count - 1, min(chosen, count)).round().astype(int)).tolist()


def _spans(moments: Sequence[Moment]) -> tuple[tuple[float, float, float], ...]:
    return tuple((moment.start, moment.end, moment.score) for moment in moments)
