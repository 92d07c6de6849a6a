"""A trained model with all that it takes to use it: from a checkpoint of ours alone, or from a config and weights."""

import copy
import hashlib
import json
import os
import weakref
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from mmengine.registry import DefaultScope
from torch import Tensor

from clipbert_mm.checkpoint import (
    LoadedCheckpoint,
    WithoutInitialization,
    build_model,
    check_fit,
    damaged_metadata,
    load_weights,
    read_source,
)
from clipbert_mm.checkpoint.metadata import metadata_of
from clipbert_mm.errors import CheckpointError, OptionError, quoted
from clipbert_mm.fileio import temporary_folder
from clipbert_mm.json_text import is_blank, is_valid_unicode
from clipbert_mm.media.media_file import Media, read_media, read_media_isolated
from clipbert_mm.registry import MODELS, TRANSFORMS
from clipbert_mm.structures import read_answers

if TYPE_CHECKING:
    from clipbert_mm.datasets.transforms import Tokenize
    from clipbert_mm.models import ClipBert


@dataclass(frozen=True)
class Recipe:
    """How a model is built and fed.

    Args:
        model: Config of the model, to build it from.
        pipeline: Configs of the transforms of testing.
        answers: The answers in their places, where there is a vocabulary of them.
        written: Config of the model as it was written down, with what its training started from.
    """

    model: dict[str, Any]
    pipeline: list[dict[str, Any]]
    answers: list[str] | None
    written: dict[str, Any]


class Predictor:
    """A trained model in eval mode and the transforms that feed it.

    Args:
        config_or_checkpoint: Checkpoint of ours, which says how its model is built; or a config file.
        weights: Checkpoint of any kind that ``load_from`` takes, beside a config file; None for the config's ``load_from``.
        device: Where the model runs; None for a GPU where there is one.

    Raises:
        CheckpointError: If the checkpoint cannot be read, is not whole, or does not fit the config.
        OptionError: If there are no weights, or the transforms do not end in what the model takes.
    """

    def __init__(
        self,
        config_or_checkpoint: str | os.PathLike,
        *,
        weights: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.source = os.path.abspath(config_or_checkpoint)
        is_config = self.source.endswith(".py")
        if weights is not None and not is_config:
            raise OptionError(f"weights go with a config file; {config_or_checkpoint} is a checkpoint itself.")
        used = ExitStack()
        weakref.finalize(self, used.close)
        text_folder = str(used.enter_context(temporary_folder()))
        if is_config:
            recipe, self.weights = _recipe_of_config(self.source, weights)
            source = read_source(self.weights)
            with DefaultScope.overwrite_default_scope("clipbert_mm"):
                with WithoutInitialization():
                    model = MODELS.build(recipe.model)
                self.media_steps, self.tokenize = _split(recipe.pipeline)
        else:
            self.weights = self.source
            source = read_source(self.weights)
            recipe = _recipe_of_checkpoint(source, text_folder)
            model = build_model(recipe.model, source.tensors, self.source)
            with damaged_metadata(self.source), DefaultScope.overwrite_default_scope("clipbert_mm"):
                self.media_steps, self.tokenize = _split(recipe.pipeline)
                _check_agreement(model, self.tokenize, recipe.answers)
        self.model = cast("ClipBert", model)
        self.answers = recipe.answers
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        check_fit(self.model, [source], whole=True)
        load_weights(self.model, source.tensors, self.weights)
        self.model.requires_grad_(False).to(self.device).eval()
        self.pairs = self.model.pair_encoder()
        self.identity = _digest(recipe, self.weights)
        if not is_config:
            with damaged_metadata(self.source):
                self._try_out()

    def _try_out(self) -> None:
        """See that the parts that a checkpoint describes go together: one black frame and two word pieces pass through them."""
        from clipbert_mm.models import JointEncoder

        if isinstance(self.model.encoder, JointEncoder):
            self.model.encoder.check_architecture()  # it was built without its weights
        size = next(step.size for step in reversed(self.media_steps) if hasattr(step, "size"))
        tokens = self.encode([np.zeros((1, 1, size, size, 3), np.uint8)])
        self.clip_scores(self.clip_logits(tokens, [np.zeros(2, np.int64)]))

    @property
    def task(self) -> str:
        """What the model was trained for, in words.

        Raises:
            OptionError: If its head does not say.
        """
        task = getattr(self.model.head, "task", None)
        if not isinstance(task, str):
            raise OptionError(
                f"{self.source} has a {type(self.model.head).__name__}, which does not say what for. Give the class a task, "
                'such as task = "retrieval".'
            )
        return task

    def read(self, path: str, timeout: float | None = None) -> Media:
        """Read a video or image as the model takes it.

        Args:
            path: The file.
            timeout: Seconds in which a process of its own has to read it, which may crash; None reads it in this one.

        Raises:
            BrokenMediaError: If it cannot be read.
        """
        if timeout is None:
            return read_media(self.media_steps, path)
        return read_media_isolated(self.media_steps, path, timeout)

    @torch.no_grad()
    def encode(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Encode videos, each (K, T, H, W, 3), as visual tokens (B, K, S, D)."""
        return self.model.encode_video(self._normalized(frames))

    @torch.no_grad()
    def encode_with_coarse_tokens(self, frames: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Encode the same as ``clips``, and as coarse tokens: ``coarse`` (B, 1, S, D), one clip of all frames."""
        return self.model.encode_with_coarse_tokens(self._normalized(frames))

    def _normalized(self, frames: Sequence[np.ndarray]) -> Tensor:
        batch = torch.from_numpy(np.stack(frames)).to(self.device)
        return self.model.data_preprocessor.normalize(batch)

    def word_pieces(self, texts: Sequence[str]) -> list[np.ndarray]:
        """Turn texts into word pieces, int64 (L,) each.

        Raises:
            OptionError: If a text is empty, has half a character, or is longer than what the model was trained on.
        """
        for text in texts:
            if not is_valid_unicode(text):
                raise OptionError(
                    f"A text has half a character (an unpaired surrogate), {quoted(text)}. Give it as UTF-8."
                )
        pieces = [np.array(ids, np.int64) for ids in self.tokenize.tokenizer(list(texts))["input_ids"]]
        for text, ids in zip(texts, pieces, strict=True):
            if is_blank(text) or len(ids) <= 2:  # [CLS] and [SEP] alone
                raise OptionError("A text is empty. Say what is to be seen in the video.")
            if len(ids) > self.tokenize.max_length:
                raise OptionError(
                    f"The model takes texts of {self.tokenize.max_length} word pieces, {quoted(text)} has {len(ids)}. Say it "
                    "shorter."
                )
        return pieces

    def unknown_words(self, texts: Sequence[str]) -> tuple[str, ...]:
        """Return the words of texts that the tokenizer does not know, which the model cannot tell apart."""
        return tuple(self.tokenize.unknown_words(texts))

    @torch.no_grad()
    def clip_logits(self, tokens: Tensor, pieces: Sequence[np.ndarray]) -> Tensor:
        """Predict every text beside every clip of every video.

        Args:
            tokens: Visual tokens of videos, (V, K, S, D).
            pieces: Word pieces of texts, (L,) each.

        Returns:
            Clip logits on the CPU, (M, V, K, C).
        """
        shape = (len(pieces), len(tokens))
        text_of, video_of = torch.arange(shape[0]).repeat_interleave(shape[1]), torch.arange(shape[1]).repeat(shape[0])
        self.model.data_preprocessor.check_token_ids(pieces)
        texts = self.pairs.encode_texts(pieces)
        logits = self.model.score_pairs(self.pairs, texts, tokens, text_of, video_of)  # (M·V, K, C)
        return logits.cpu().unflatten(0, shape)

    def score(self, tokens: Tensor, pieces: Sequence[np.ndarray]) -> Tensor:
        """Predict the same in one pass of the model, on the device; with gradients unless they are switched off."""
        videos = torch.arange(len(tokens), device=tokens.device).repeat(len(pieces))  # (M·V,)
        batch = self.model.data_preprocessor.pad_texts(pieces)
        repeated = {key: value.to(self.device).repeat_interleave(len(tokens), dim=0) for key, value in batch.items()}
        clip_logits = self.model.score(tokens, repeated["text_ids"], repeated["text_mask"], videos)  # (M·V, K, C)
        return clip_logits.unflatten(0, (len(pieces), len(tokens)))

    def pooled_scores(self, clip_logits: Tensor) -> Tensor:
        """Return what the head makes of logits pooled over the clips: (M, V), or (M, V, C) for answers."""
        return self.model.pool_scores(clip_logits.flatten(0, 1)).unflatten(0, clip_logits.shape[:2])

    def clip_scores(self, clip_logits: Tensor) -> Tensor:
        """Return the same of each clip alone, as for a video of one clip: (M, V, K), or (M, V, K, C) for answers."""
        return self.model.pool_scores(clip_logits.flatten(0, 2)[:, None]).unflatten(0, clip_logits.shape[:3])


def _recipe_of_checkpoint(source: LoadedCheckpoint, text_folder: str) -> Recipe:
    contents = metadata_of(source.rest, source.path)
    with damaged_metadata(source.path):
        contents.write_text_files(text_folder)
        model, pipeline = contents.model_config(text_folder), contents.pipeline(text_folder)
        return Recipe(model, pipeline, contents.answers, contents.model)


def _check_agreement(model: Any, tokenize: "Tokenize", answers: Sequence[str] | None) -> None:  # noqa: ANN401
    """See that what a checkpoint carries beside its model goes with the model.

    Raises:
        CheckpointError: If it does not.
    """
    parts = ("data_preprocessor", "backbone", "projection", "temporal_fusion", "encoder", "head", "aggregator")
    lacking = [name for name in parts if not hasattr(model, name)]
    if lacking:
        raise CheckpointError(f"its model, {type(model).__name__}, is no ClipBert: it has no {', '.join(lacking)}.")
    longest, places = tokenize.max_length, model.encoder.max_text_length
    if type(longest) is not int or not 3 <= longest <= places:
        raise CheckpointError(f"its texts are of {quoted(longest)} word pieces, and its model takes {places}.")
    expected = getattr(model.head, "num_answers", None)
    if expected is not None and len(answers or ()) != expected:
        raise CheckpointError(f"it has {len(answers or ())} answers, and the head of its model {expected}.")


def _recipe_of_config(path: str, weights: str | os.PathLike | None) -> tuple[Recipe, str]:
    from clipbert_mm.engine.config import load_config

    config = load_config(path, needs=("model", "test_dataloader"))
    chosen = weights or config.get("load_from")
    if not isinstance(chosen, (str, os.PathLike)):
        raise OptionError(
            f"{path} names no single checkpoint as load_from, got {quoted(chosen)}. Give weights=CHECKPOINT beside it."
        )
    dataset = config.test_dataloader.dataset
    answers = None
    if dataset.get("answer_file"):
        places = read_answers(os.path.join(dataset.get("data_root", ""), dataset.answer_file))
        answers = sorted(places, key=places.__getitem__)
    model = config.model.to_dict()
    recipe = Recipe(model, [step.to_dict() for step in dataset.pipeline], answers, model)
    return recipe, os.fspath(chosen)


def _split(pipeline: Sequence[dict[str, Any]]) -> tuple[list[Any], "Tokenize"]:
    """Build the transforms that make frames, and the one that makes word pieces."""
    kinds = [step["type"] for step in pipeline]
    if "Tokenize" not in kinds or "ResizePad" not in kinds[: kinds.index("Tokenize")]:
        raise OptionError(
            f"A pipeline of ..., ResizePad, Tokenize, PackInputs is expected, got {', '.join(kinds)}. Use a config for testing."
        )
    place = kinds.index("Tokenize")
    steps = [TRANSFORMS.build(copy.deepcopy(step)) for step in pipeline[: place + 1]]
    return steps[:-1], steps[-1]


def _digest(recipe: Recipe, weights: str) -> str:
    """Return what two predictors have in common whose visual tokens are the same."""
    steps = [step for step in recipe.pipeline if step["type"] not in ("Tokenize", "PackInputs")]
    model = {name: recipe.written[name] for name in ("data_preprocessor", "backbone", "projection", "temporal_fusion")}
    digest = hashlib.sha256(json.dumps([steps, model], sort_keys=True, default=str).encode())
    if zipfile.is_zipfile(weights):  # its directory has a checksum of each tensor
        with zipfile.ZipFile(weights) as archive:
            for record in archive.infolist():
                if "/data/" in record.filename:
                    digest.update(f"{record.filename.partition('/')[2]} {record.CRC} {record.file_size}\n".encode())
    elif os.path.isfile(weights):
        with open(weights, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    else:
        digest.update(weights.encode())
    return digest.hexdigest()[:16]
