"""BLIP's question answering: a decoder tells how likely each candidate answer is (Li et al., ICML 2022, Section 5.3)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from mmengine.model import BaseModule
from torch import Tensor
from transformers.models.blip.modeling_blip_text import BlipTextModel

from clipbert_mm.errors import OptionError
from clipbert_mm.models.encoders.cross_pair_encoder import CrossPairEncoder
from clipbert_mm.models.heads.masked_language_head import MaskedLanguageHead
from clipbert_mm.registry import MODELS

SEQUENCES_AT_ONCE = 256
"""Pairs of a question and an answer in a pass of the decoder; their logits have one number per word each."""


@MODELS.register_module()
class AnswerEncoder(BaseModule):
    """A cross-attention encoder of questions, and a decoder that reads its states and rates candidate answers.

    The candidates are set by :meth:`set_answers`: they are no part of the weights.

    Args:
        questions: Config of the CrossEncoder, without vectors.
        start_token: Id that stands before each answer: BLIP's [DEC].

    Raises:
        OptionError: If ``questions`` has vectors, or visual tokens of another width than its states.
    """

    layers = "questions.text.encoder.layer"
    """Name of the list of layers, for activation checkpointing."""
    has_vectors = False

    def __init__(self, *, questions: dict, start_token: int) -> None:
        super().__init__()
        self.questions = MODELS.build(questions)
        sizes = (self.questions.visual_size, self.questions.text_config.hidden_size)
        if self.questions.has_vectors or sizes[0] != sizes[1]:
            raise OptionError(
                "AnswerEncoder has a decoder of the question's sizes and compares no vectors: expected questions with "
                f"vector_size=None and visual_size equal to hidden_size, got visual_size={sizes[0]} and hidden_size={sizes[1]}."
            )
        config = self.questions.text_config
        self.decoder: Any = BlipTextModel(config, add_pooling_layer=False)
        self.words = MaskedLanguageHead(
            in_channels=config.hidden_size, vocab_size=config.vocab_size, layer_norm_eps=config.layer_norm_eps
        )
        self.start_token = start_token
        self.answers: list[Tensor] = []
        """Token ids of the candidates, int64 (La,) each, [CLS] first and [SEP] last."""

    @property
    def visual_size(self) -> int:
        """Width of the visual tokens."""
        return self.questions.visual_size

    @property
    def text_config(self) -> Any:  # noqa: ANN401
        """Sizes of the text encoder, as transformers names them."""
        return self.questions.text_config

    @property
    def word_embeddings(self) -> Tensor:
        """The word embedding matrix of the questions, (vocab_size, D)."""
        return self.questions.word_embeddings

    @property
    def max_text_length(self) -> int:
        """The longest question, in tokens."""
        return self.questions.max_text_length

    def set_answers(self, answers: Sequence[np.ndarray]) -> None:
        """Set the candidate answers, as token ids (La,) each, [CLS] first and [SEP] last."""
        self.answers = [torch.as_tensor(ids) for ids in answers]

    def grid(self, values: Tensor, frame_shape: Sequence[int]) -> Tensor:
        """Arrange a value per visual token of a clip, (S,), as patches lie on square frames."""
        return self.questions.grid(values, frame_shape)

    def embed_clips(self, features: Tensor) -> Tensor:
        """Return the token sequences of clips, (B, K, D', h, w), as visual tokens, (B, K, S, D') with S = h·w."""
        return self.questions.embed_clips(features)

    def forward(self, text_ids: Tensor, text_mask: Tensor, visual_tokens: Tensor) -> Tensor:
        """Rate the candidates as answers to each question with each clip of its video.

        Args:
            text_ids: Token ids of the questions, int64 (M, L), [CLS] first.
            text_mask: 1 for tokens, 0 for padding, (M, L).
            visual_tokens: Tokens of the clips of the video of each question, (M, K, S, D').

        Returns:
            Log-likelihoods of the A candidates, as the state of one token, (M, K, 1, A).
        """
        states = self.questions(text_ids, text_mask, visual_tokens)  # (M, K, L, D)
        # Questions of one length at a time, since transformers 5.24 ignores the padding of what a BLIP's decoder reads.
        lengths = text_mask.sum(dim=1)
        indices = [(lengths == length).nonzero()[:, 0] for length in lengths.unique()]
        rated = [
            self.log_likelihoods(states[same, :, : lengths[same[0]]].flatten(0, 1)) for same in indices
        ]  # (n·K, A)
        order = torch.cat(indices).argsort()
        return torch.cat([each.unflatten(0, (-1, states.shape[1])) for each in rated])[order][:, :, None]

    def pool(self, text_states: Tensor) -> Tensor:
        """Return the log-likelihoods, (M, K, A), of states (M, K, 1, A)."""
        return text_states[:, :, 0]

    def log_likelihoods(self, states: Tensor) -> Tensor:
        """Return the log-likelihood of each candidate, (n, A): the sum of those of its tokens, the end among them.

        Args:
            states: States of the tokens of questions of one length, (n, L, D).

        Raises:
            OptionError: If no candidates were set.
        """
        if not self.answers:
            raise OptionError(
                "AnswerEncoder rates candidate answers, and none were set. Give options, or an answer vocabulary."
            )
        lengths = torch.tensor([len(ids) for ids in self.answers])
        columns: list[Tensor] = [states.new_empty(0)] * len(self.answers)
        for length in lengths.unique():
            members = (lengths == length).nonzero()[:, 0]
            at_once = max(1, SEQUENCES_AT_ONCE // len(states))
            for part in members.split(at_once):
                ids = torch.stack([self.answers[i] for i in part]).to(states.device)  # (a, La)
                for i, column in zip(part, self._rate(states, ids).unbind(dim=1), strict=True):
                    columns[i] = column
        return torch.stack(columns, dim=1)

    def _rate(self, states: Tensor, ids: Tensor) -> Tensor:
        """Return the log-likelihoods, (n, a), of candidates of one length, (a, La)."""
        count, candidates = len(states), len(ids)
        read = torch.cat([torch.full_like(ids[:, :1], self.start_token), ids[:, 1:-1]], dim=1)  # (a, La - 1)
        decoded = self.decoder(
            input_ids=read.repeat(count, 1),  # (n·a, La - 1)
            attention_mask=torch.ones_like(read).repeat(count, 1),
            encoder_hidden_states=states.repeat_interleave(candidates, dim=0),
            is_decoder=True,
            use_cache=False,
        ).last_hidden_state
        words = self.words(decoded, self.decoder.embeddings.word_embeddings.weight).log_softmax(dim=2)
        expected = ids[:, 1:].repeat(count, 1)[..., None]  # (n·a, La - 1, 1)
        return words.gather(2, expected)[..., 0].sum(dim=1).unflatten(0, (count, candidates))

    def pair_encoder(self, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> "AnswerPairEncoder":
        """Return this encoder for many pairs at once; arguments as for :class:`CrossPairEncoder`."""
        return AnswerPairEncoder(self, precision=precision, tokens_per_pass=tokens_per_pass)


class AnswerPairEncoder(CrossPairEncoder):
    """Compute ``encoder.pool(encoder(...))`` of an AnswerEncoder for any pairs of questions and videos at less cost.

    Args:
        encoder: The encoder, in eval mode or without dropout.
        precision: What the layers of the questions compute in; the decoder computes in that of its weights.
        tokens_per_pass: As of :class:`CrossPairEncoder`.
    """

    first_alone = False

    def __init__(self, encoder: AnswerEncoder, *, precision: str = "fp32", tokens_per_pass: int | None = None) -> None:
        super().__init__(encoder.questions, precision=precision, tokens_per_pass=tokens_per_pass)
        self.answerer = encoder

    @property
    def width(self) -> int:
        """Width of the result, which is the number of candidates."""
        return len(self.answerer.answers)

    def outputs(self, states: Tensor) -> Tensor:
        """Return log-likelihoods, (c, t, A), of the last states of questions, (c, t, L, D)."""
        flat = states.flatten(0, 1).to(self.answerer.word_embeddings.dtype)
        return self.answerer.log_likelihoods(flat).unflatten(0, states.shape[:2])
