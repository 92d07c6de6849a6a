"""A trained model with everything needed to use it: from one checkpoint of ours, or from a config and weights."""

import os
import threading
import weakref
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from torch import Tensor

from clipbert_mm.apis.equality import check_equality
from clipbert_mm.apis.opening import ModelSource, find_device, find_precision, open_model, steps_for_images
from clipbert_mm.checkpoint import damaged_metadata
from clipbert_mm.deprecation import warn_renamed
from clipbert_mm.errors import OptionError, quoted
from clipbert_mm.fileio import temporary_folder
from clipbert_mm.json_text import is_blank, is_valid_unicode
from clipbert_mm.media.listing import IMAGES
from clipbert_mm.structures.answer_vocabulary import CANDIDATES

if TYPE_CHECKING:
    from clipbert_mm.media.media_file import Media
    from clipbert_mm.models import ClipBert
    from clipbert_mm.models.encoders import EncodedTexts

COMPARED_TEXTS = ("a dog runs", "two people talk")
"""Texts by which a public model is compared with the library's own."""


class Predictor:
    """A trained model in eval mode and the transforms that feed it.

    Args:
        config_or_checkpoint: Checkpoint of ours, which contains the config of its model; the work folder of a training, for the
            checkpoint that validation selected; a config, as its file or as MMEngine's object; or a public model, as a Hugging
            Face folder or name ("Salesforce/blip-itm-base-coco", or with "@revision"). The transforms are the config's
            ``test_pipeline``, or those of its ``test_dataloader``.
        weights: With a config, a checkpoint of any kind that ``load_from`` takes.
        device: Device of the model; None for a GPU if there is one.
        revision: With a name on the Hugging Face hub, its branch, tag or commit; None for the main branch.
        precision: What visual tower and joint encoder compute in: "fp32", "bf16" or "fp16"; None for "bf16" of a public
            model on a GPU that computes in it, else "fp32". Visual tokens do not depend on it but for rounding, and the
            identity of an index not at all.
        pooling: How the clips of a video become one score, one of "mean", "max", "logsumexp", "query-weighted", "concat" and
            "mean-vector"; None for what the model's config says, or its authors' protocol.

    Raises:
        CheckpointError: If the checkpoint cannot be read, is incomplete, or does not fit the config.
        OptionError: If there are no weights, the transforms do not produce what the model takes, or this machine has no such
            device, or cannot compute in that precision.
    """

    def __init__(
        self,
        config_or_checkpoint: ModelSource,
        *,
        weights: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
        revision: str | None = None,
        precision: str | None = None,
        pooling: str | None = None,
    ) -> None:
        self.device = find_device(device)
        resources = ExitStack()
        weakref.finalize(self, resources.close)
        text_folder = str(resources.enter_context(temporary_folder()))
        opened = open_model(config_or_checkpoint, text_folder, weights=weights, revision=revision, pooling=pooling)
        self.source, self.weights = opened.source, opened.weights
        self.model = cast("ClipBert", opened.model)
        self.media_steps, self.tokenize = opened.media_steps, opened.tokenize
        self.answers, self.cfg = opened.recipe.answers, opened.recipe.config
        self.identity = opened.identity
        self.precision = find_precision(precision, self.device, is_public=opened.public is not None)
        self.image_steps = None if opened.public is None else steps_for_images(self.media_steps)
        self.model.requires_grad_(False).eval()
        self._asking = threading.RLock()
        if self.rates_candidates:
            self.model.encoder.set_answers(self.token_ids(COMPARED_TEXTS))  # for the checks below
        if opened.public is not None:
            check_equality(self.model, opened.public, self.token_ids(COMPARED_TEXTS), self.frame_shape, self.identity)
        self.model.to(self.device)
        self.pairs = self.model.pair_encoder(precision=self.precision)
        # The config of a public model is of our making, and its parts have been run for the comparison.
        if not opened.is_config and opened.public is None:
            with damaged_metadata(self.source):
                self._try_out()

    @property
    def frame_shape(self) -> tuple[int, int]:
        """Height and width of the frames that the model takes."""
        from clipbert_mm.datasets.transforms import ResizeFrames

        return next(step.frame_shape for step in reversed(self.media_steps) if isinstance(step, ResizeFrames))

    def _try_out(self) -> None:
        """Check that the parts that a checkpoint describes fit together: run one black clip and two tokens through them."""
        from clipbert_mm.models import JointEncoder
        from clipbert_mm.models.backbones import ClipEncoder

        if isinstance(self.model.encoder, JointEncoder):
            self.model.encoder.check_architecture()  # it was built without its weights
        num_frames = self.model.backbone.num_frames if isinstance(self.model.backbone, ClipEncoder) else 1
        tokens = self.encode([np.zeros((1, num_frames, *self.frame_shape, 3), np.uint8)])
        self.clip_scores(self.logits(tokens, [np.zeros(2, np.int64)]))

    @property
    def name(self) -> str:
        """The checkpoint, or the public model with its commit, and the digest, as results tell them."""
        return f"{self.source} (digest {self.identity})"

    @property
    def task(self) -> str:
        """The task that the model was trained for, such as "retrieval".

        Raises:
            OptionError: If its head does not name one.
        """
        task = getattr(self.model.head, "task", None)
        if not isinstance(task, str):
            raise OptionError(
                f"{self.source}: its head {type(self.model.head).__name__} does not name a task. Give the class an attribute, "
                'such as task = "retrieval".'
            )
        return task

    @property
    def rates_candidates(self) -> bool:
        """Whether the model rates candidate answers, which come with each question or from a vocabulary."""
        return getattr(self.model.head, "task", None) == CANDIDATES

    @contextmanager
    def candidates(self, answers: Sequence[str]) -> Iterator[None]:
        """Set the candidate answers of a model that rates them, for a block; other threads wait until it ends.

        Raises:
            OptionError: As of :meth:`token_ids`.
        """
        token_ids = self.token_ids(answers)
        with self._asking:
            self.model.encoder.set_answers(token_ids)
            yield

    def read(self, path: str, timeout: float | None = None) -> "Media":
        """Read a video or an image and apply the test transforms.

        Args:
            path: The file.
            timeout: Most seconds for a separate process to read it, which may crash; None reads it in this process.

        Raises:
            BrokenMediaError: If it cannot be read.
        """
        from clipbert_mm.media.media_file import read_media, read_media_isolated

        is_image = path.lower().endswith(IMAGES)
        steps = self.image_steps if is_image and self.image_steps is not None else self.media_steps
        return read_media(steps, path) if timeout is None else read_media_isolated(steps, path, timeout)

    @torch.no_grad()
    def encode(self, frames: Sequence[np.ndarray], content_shapes: Sequence[tuple[int, int]] | None = None) -> Tensor:
        """Encode videos as visual tokens (B, K, S, D).

        Args:
            frames: Frames of the videos, (K, T, H, W, 3) each.
            content_shapes: Height and width of the frames of each video without their padding; None for no padding.
        """
        with self._visual_precision():
            return self.model.encode_video(self._normalized(frames, content_shapes)).float()

    @torch.no_grad()
    def encode_for_index(
        self, frames: Sequence[np.ndarray], content_shapes: Sequence[tuple[int, int]] | None = None
    ) -> dict[str, Tensor]:
        """Encode videos as ``clips`` (B, K, S, D), with ``vectors`` (B, K, P), or without as ``coarse`` tokens (B, 1, S, D)."""
        batch, encoder = self._normalized(frames, content_shapes), self.model.encoder
        with self._visual_precision():
            if encoder.has_vectors:
                clips = self.model.encode_video(batch)
                tokens = dict(clips=clips, vectors=encoder.clip_vectors(clips))
            else:
                tokens = self.model.encode_with_coarse_tokens(batch)
        return {name: value.float() for name, value in tokens.items()}

    def _visual_precision(self) -> AbstractContextManager:
        if self.precision == "fp32":
            return nullcontext()
        from clipbert_mm.models.encoders import PRECISIONS

        return torch.autocast(self.device.type, PRECISIONS[self.precision])

    def _normalized(self, frames: Sequence[np.ndarray], content_shapes: Sequence[tuple[int, int]] | None) -> Tensor:
        batch = torch.from_numpy(np.stack(frames)).to(self.device)
        return self.model.data_preprocessor.normalize(batch, content_shapes)

    def token_ids(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokenize texts, int64 (L,) each.

        Raises:
            OptionError: If a text is no str, is empty, contains an unpaired surrogate, or is too long for the model.
        """
        for text in texts:
            if not isinstance(text, str):
                raise OptionError(f"A text for the model is a str, got {quoted(text)}. Give a list of str for several.")
            if not is_valid_unicode(text):
                raise OptionError(f"The text {quoted(text)} contains an unpaired surrogate. Encode it as UTF-8.")
        token_ids = [np.array(ids, np.int64) for ids in self.tokenize.encode(texts)]
        for text, ids in zip(texts, token_ids, strict=True):
            if is_blank(text) or len(ids) <= self.tokenize.num_special_tokens:
                raise OptionError("The text is empty. Describe what the video shows.")
            if len(ids) > self.tokenize.max_length:
                raise OptionError(
                    f"The text {quoted(text)} has {len(ids)} tokens, and the model takes at most {self.tokenize.max_length}. "
                    "Shorten it."
                )
        return token_ids

    def word_pieces(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Tokenize texts; deprecated name of :meth:`token_ids`."""
        warn_renamed("Predictor.word_pieces", "Predictor.token_ids")
        return self.token_ids(texts)

    def unknown_words(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the words that mean nothing to the model: the tokenizer does not know them, or training never had them."""
        unknown = {*self.tokenize.unknown_words(texts), *self.tokenize.new_words(texts)}
        return tuple(dict.fromkeys(word for text in texts for word in text.split() if word in unknown))

    @property
    def score_kind(self) -> str:
        """What the scores are, such as "log-odds" or "cosine"; "rank" if the head does not say it."""
        return getattr(self.model.head, "score_kind", "rank")

    def logits(self, tokens: Tensor, token_ids: Sequence[np.ndarray]) -> Tensor:
        """Predict every text with every video as :meth:`clip_logits` does, after joining its clips if the model joins them."""
        return self.clip_logits(self.model.clip_fusion(tokens), token_ids)

    def logits_of_both(self, tokens: Tensor, token_ids: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Return :meth:`logits` and :meth:`clip_logits`, which are computed once where they are the same."""
        logits = self.logits(tokens, token_ids)
        return logits, self.clip_logits(tokens, token_ids) if self.model.joins_clips else logits

    @torch.no_grad()
    def clip_logits(self, tokens: Tensor, token_ids: Sequence[np.ndarray]) -> Tensor:
        """Predict every text with every clip of every video alone.

        Args:
            tokens: Visual tokens of videos, (V, K, S, D).
            token_ids: Token ids of texts, (L,) each.

        Returns:
            Clip logits on the CPU, (M, V, K, C).
        """
        shape = (len(token_ids), len(tokens))
        text_of, video_of = torch.arange(shape[0]).repeat_interleave(shape[1]), torch.arange(shape[1]).repeat(shape[0])
        return self.pair_logits(tokens, self.encode_texts(token_ids), text_of, video_of).unflatten(0, shape)

    @torch.no_grad()
    def encode_texts(self, token_ids: Sequence[np.ndarray]) -> "EncodedTexts":
        """Read texts, token ids (L,) each, as far as they do not depend on a video."""
        self.model.data_preprocessor.check_token_ids(token_ids)
        return self.pairs.encode_texts(token_ids)

    @torch.no_grad()
    def pair_logits(self, tokens: Tensor, texts: "EncodedTexts", text_of: Tensor, video_of: Tensor) -> Tensor:
        """Predict some pairs of a text and a video clip by clip, as :meth:`clip_logits` does all.

        Args:
            tokens: Visual tokens of videos, (V, K, S, D).
            texts: Texts that :meth:`encode_texts` read.
            text_of: Text of each pair, (P,).
            video_of: Video of each pair, (P,).

        Returns:
            Logits on the CPU, (P, K, C).
        """
        return self.model.score_pairs(self.pairs, texts, tokens, text_of, video_of).cpu()

    def score(self, tokens: Tensor, token_ids: Sequence[np.ndarray]) -> Tensor:
        """Predict the same in one forward pass, on the device and with gradients unless they are disabled."""
        videos = torch.arange(len(tokens), device=tokens.device).repeat(len(token_ids))  # (M·V,)
        batch = self.model.data_preprocessor.pad_texts(token_ids)
        repeated = {key: value.to(self.device).repeat_interleave(len(tokens), dim=0) for key, value in batch.items()}
        clip_logits = self.model.score(tokens, repeated["text_ids"], repeated["text_mask"], videos)  # (M·V, K, C)
        return clip_logits.unflatten(0, (len(token_ids), len(tokens)))

    def pooled_scores(self, clip_logits: Tensor) -> Tensor:
        """Return the head's scores of logits (M, V, K, C) pooled over the clips: (M, V), or (M, V, C) for answers."""
        return self.model.pool_scores(clip_logits.flatten(0, 1)).unflatten(0, clip_logits.shape[:2])

    def log_odds(self, logits: Tensor) -> Tensor | None:
        """Return the log-odds of a match, (M, V), of logits (M, V, K, C); None if the head gives none."""
        log_odds = self.model.head.log_odds(self.model.aggregator(logits.flatten(0, 1)))
        return None if log_odds is None else log_odds.unflatten(0, logits.shape[:2])

    def clip_scores(self, clip_logits: Tensor) -> Tensor:
        """Return the head's scores of each clip alone, as of a video of one clip: (M, V, K), or (M, V, K, C) for answers."""
        return self.model.pool_scores(clip_logits.flatten(0, 2)[:, None]).unflatten(0, clip_logits.shape[:3])


def indices_by_shape(frames: Sequence[np.ndarray]) -> list[list[int]]:
    """Group videos whose frames have one shape, which can be encoded together.

    >>> indices_by_shape([np.zeros((1, 2)), np.zeros((1, 3)), np.zeros((1, 2))])
    [[0, 2], [1]]
    """
    groups: dict[tuple[int, ...], list[int]] = {}
    for i, each in enumerate(frames):
        groups.setdefault(each.shape, []).append(i)
    return list(groups.values())
