"""Answers to questions: open-ended, multiple choice, soft labels, counts (Sections 4.1 and 4.4, appendix B of the paper)."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipbert_mm.errors import OptionError
from clipbert_mm.models.heads.task_head import TaskHead
from clipbert_mm.registry import MODELS
from clipbert_mm.structures import COUNT, LOG_ODDS, LOG_PROBABILITY, VideoTextSample


class AnswerHead(TaskHead):
    """One logit per answer of a vocabulary.

    Args:
        in_channels: Width D of the encoder.
        num_answers: Answers C of the vocabulary.
        hidden_channels: Width of the hidden layer, 2·D in the paper's release; None for one linear layer.
        dropout: Dropout probability before the classifier.
        init_cfg: MMEngine's initialization config.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        num_answers: int,
        hidden_channels: int | None,
        dropout: float = 0.1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=num_answers,
            hidden_channels=hidden_channels,
            dropout=dropout,
            init_cfg=init_cfg,
        )
        self.num_answers = num_answers


@MODELS.register_module()
class OpenEndedHead(AnswerHead):
    """Open-ended questions: a softmax over the answers; 1,500 for MSRVTT-QA. Arguments as for :class:`AnswerHead`."""

    task = "open-ended questions"
    score_kind = LOG_PROBABILITY

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the cross entropy of pooled logits and, for the log, the accuracy.

        Args:
            logits: Logits of every question, pooled over clips, (M, C).
            data_samples: The items with their ``answer_labels``, one per question, M in all.

        Raises:
            OptionError: If a label is missing or out of the vocabulary.
        """
        labels = self.labels_of(data_samples, "answer_labels", logits)  # (M,)
        if int(labels.min()) < 0 or int(labels.max()) >= self.num_answers:
            wrong = next(
                s for s in data_samples if ((s.answer_labels < 0) | (s.answer_labels >= self.num_answers)).any()
            )
            raise OptionError(
                f"OpenEndedHead has {self.num_answers} answers, got answer_labels {wrong.answer_labels.tolist()} for "
                f"{wrong.path}. Set num_answers of the head to the size of the answer vocabulary."
            )
        accuracy = (logits.detach().argmax(dim=1) == labels).float().mean()
        return {"loss_answer": F.cross_entropy(logits, labels), "answer_accuracy": accuracy}

    def scores(self, logits: Tensor) -> Tensor:
        """Return log-probabilities of the answers, (M, C)."""
        return logits.log_softmax(dim=1)


@MODELS.register_module()
class SoftAnswerHead(AnswerHead):
    """Questions with several answers of graded truth, as the 3,129 of VQA 2.0: one sigmoid per answer.

    Args:
        in_channels: Width D of the encoder.
        num_answers: Answers C of the vocabulary.
        hidden_channels: Width of the hidden layer, 2·D in the paper's release; None for one linear layer.
        hidden_norm: Whether the hidden layer has a LayerNorm and GELU, as ViLT's, instead of ReLU.
        dropout: Dropout probability before the classifier.
        init_cfg: MMEngine's initialization config.

    Raises:
        OptionError: If a norm is asked for without a hidden layer.
    """

    task = "questions with several answers"
    score_kind = LOG_ODDS

    def __init__(
        self,
        *,
        in_channels: int,
        num_answers: int,
        hidden_channels: int | None,
        hidden_norm: bool = False,
        dropout: float = 0.1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            num_answers=num_answers,
            hidden_channels=hidden_channels,
            dropout=dropout,
            init_cfg=init_cfg,
        )
        if not hidden_norm:
            return
        if hidden_channels is None:
            raise OptionError(
                "SoftAnswerHead has no hidden layer for hidden_norm=True, got hidden_channels=None. Set its width, 2·D in ViLT."
            )
        self.classifier = nn.Sequential(
            nn.Linear(in_channels, hidden_channels),
            nn.LayerNorm(hidden_channels),
            nn.GELU(),
            nn.Linear(hidden_channels, num_answers),
        )

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the binary cross entropy, summed over answers and averaged over questions, and the soft accuracy.

        Args:
            logits: Logits of every question, pooled over clips, (M, C).
            data_samples: The items with their ``answer_scores``, float32 in [0, 1], (m, C) per item.

        Raises:
            OptionError: If scores are missing or for another number of answers.
        """
        targets = self.labels_of(data_samples, "answer_scores", logits)  # (M, C)
        if targets.shape != logits.shape:
            raise OptionError(
                f"SoftAnswerHead expects answer_scores of shape {tuple(logits.shape)}, got {tuple(targets.shape)}. Set "
                "num_answers of the head to the size of the answer vocabulary."
            )
        accuracy = targets.gather(1, logits.detach().argmax(dim=1, keepdim=True)).mean()
        loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
        return {"loss_answer": loss, "answer_accuracy": accuracy}

    def scores(self, logits: Tensor) -> Tensor:
        """Return the logits of the answers, (M, C); each goes through its own sigmoid."""
        return logits


class SingleOutputHead(TaskHead):
    """A head with a single output.

    Args:
        in_channels: Width D of the encoder.
        hidden_channels: Width of the hidden layer, 2·D in the paper's release; None for one linear layer.
        dropout: Dropout probability before the classifier.
        init_cfg: MMEngine's initialization config.
    """

    def __init__(
        self,
        *,
        in_channels: int,
        hidden_channels: int | None,
        dropout: float = 0.1,
        init_cfg: dict | list | None = None,
    ) -> None:
        super().__init__(
            in_channels=in_channels,
            out_channels=1,
            hidden_channels=hidden_channels,
            dropout=dropout,
            init_cfg=init_cfg,
        )

    def scores(self, logits: Tensor) -> Tensor:
        """Return the output, (M,), of logits (M, 1)."""
        return logits[:, 0]


@MODELS.register_module()
class MultipleChoiceHead(SingleOutputHead):
    """Multiple choice: each text is a question with one of its options; one logit per text, a softmax over the options.

    Arguments as for :class:`SingleOutputHead`.
    """

    task = "multiple choice"
    score_kind = "logit"

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the cross entropy over the options and, for the log, the accuracy.

        Args:
            logits: Logits of every option, pooled over clips, (M, 1).
            data_samples: The items with their ``answer_labels``, one per question: an item with q questions has m = q·o
                texts, the o options of its first question, then those of the next.

        Raises:
            OptionError: If a label is missing, or the numbers of texts and labels do not fit.
        """
        labels = self.concatenate(data_samples, "answer_labels", logits.device)  # (questions,)
        losses, is_correct = [], []
        texts = logits[:, 0].split([len(sample.texts) for sample in data_samples])
        questions = labels.split([len(sample.answer_labels) for sample in data_samples])
        for sample, text_logits, answers in zip(data_samples, texts, questions, strict=True):
            options = len(text_logits) // max(1, len(answers))
            if options * len(answers) != len(text_logits) or int(answers.min()) < 0 or int(answers.max()) >= options:
                raise OptionError(
                    f"MultipleChoiceHead expects the same number of options for each question and labels below it, got "
                    f"{len(text_logits)} texts and answer_labels {answers.tolist()} for {sample.path}."
                )
            choice = text_logits.unflatten(0, (len(answers), options))  # (q, o)
            losses.append(F.cross_entropy(choice, answers, reduction="none"))
            is_correct.append(choice.detach().argmax(dim=1) == answers)
        return {"loss_answer": torch.cat(losses).mean(), "answer_accuracy": torch.cat(is_correct).float().mean()}


@MODELS.register_module()
class CountHead(SingleOutputHead):
    """Regression of how often something happens: TGIF-QA's Count, which the paper leaves to future work.

    The output is the count itself, so clips are pooled by the mean. Arguments as for :class:`SingleOutputHead`.
    """

    task = "counting"
    score_kind = COUNT

    def loss(self, logits: Tensor, data_samples: list[VideoTextSample]) -> dict[str, Tensor]:
        """Compute the mean square error and, for the log, the accuracy after rounding.

        Args:
            logits: Outputs of every question, pooled over clips, (M, 1).
            data_samples: The items with their ``counts``, float32, one per question, M in all.

        Raises:
            OptionError: If a count is missing.
        """
        counts = self.labels_of(data_samples, "counts", logits)  # (M,)
        predicted = logits[:, 0]
        accuracy = (predicted.detach().round() == counts).float().mean()
        return {"loss_count": F.mse_loss(predicted, counts), "count_accuracy": accuracy}
