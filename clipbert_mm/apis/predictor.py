"""A trained model with everything needed to use it: from one checkpoint of ours, or from a config and weights."""

import copy
import hashlib
import json
import os
import weakref
import zipfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, cast

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import Tensor

from clipbert_mm.checkpoint import (
    LoadedCheckpoint,
    WithoutInitialization,
    build_model,
    check_fit,
    damaged_metadata,
    find_selected,
    load_weights,
    read_source,
)
from clipbert_mm.checkpoint.metadata import metadata_of
from clipbert_mm.deprecation import warn_renamed
from clipbert_mm.errors import CheckpointError, OptionError, quoted
from clipbert_mm.fileio import temporary_folder
from clipbert_mm.json_text import is_blank, is_valid_unicode
from clipbert_mm.registry import MODELS, TRANSFORMS, type_name
from clipbert_mm.structures import read_answers

if TYPE_CHECKING:
    from clipbert_mm.datasets.transforms import Tokenize
    from clipbert_mm.media.media_file import Media
    from clipbert_mm.models import ClipBert


ModelSource: TypeAlias = str | os.PathLike | Config
"""A checkpoint of ours, the work folder of a training, or a config as a file or as MMEngine's object."""


@dataclass(frozen=True)
class Recipe:
    """The configs that a model is built and fed by.

    Args:
        model: Config of the model, to build it from.
        pipeline: Configs of the test transforms.
        answers: The answer vocabulary in the order of the head's outputs; None without one.
        written: Config of the model as written in the checkpoint or config, with the weights that its training started from.
        config: The whole config; of a checkpoint, what it says of a config.
    """

    model: dict[str, Any]
    pipeline: list[dict[str, Any]]
    answers: list[str] | None
    written: dict[str, Any]
    config: Config


class Predictor:
    """A trained model in eval mode and the transforms that feed it.

    Args:
        config_or_checkpoint: Checkpoint of ours, which contains the config of its model; the work folder of a training, for the
            checkpoint that validation selected; or a config, as its file or as MMEngine's object. The transforms are the
            config's ``test_pipeline``, or those of its ``test_dataloader``.
        weights: With a config, a checkpoint of any kind that ``load_from`` takes.
        device: Device of the model; None for a GPU if there is one.

    Raises:
        CheckpointError: If the checkpoint cannot be read, is incomplete, or does not fit the config.
        OptionError: If there are no weights, the transforms do not produce what the model takes, or this machine has no such
            device.
    """

    def __init__(
        self,
        config_or_checkpoint: ModelSource,
        *,
        weights: str | os.PathLike | None = None,
        device: str | torch.device | None = None,
    ) -> None:
        self.device = find_device(device)
        config = config_or_checkpoint if isinstance(config_or_checkpoint, Config) else None
        self.source = _name_source(config_or_checkpoint)
        is_config = config is not None or self.source.endswith(".py")
        if weights is not None and not is_config:
            raise OptionError(
                f"weights= goes with a config file, and {self.source} is a checkpoint. Give one of the two."
            )
        resources = ExitStack()
        weakref.finalize(self, resources.close)
        text_folder = str(resources.enter_context(temporary_folder()))
        if is_config:
            recipe, self.weights = _recipe_of_config(config or self.source, weights)
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
        self.cfg = recipe.config
        check_fit(self.model, [source], whole=True)
        load_weights(self.model, source.tensors, self.weights)
        self.model.requires_grad_(False).to(self.device).eval()
        self.pairs = self.model.pair_encoder()
        self.identity = _digest(recipe, self.weights)
        if not is_config:
            with damaged_metadata(self.source):
                self._try_out()

    def _try_out(self) -> None:
        """Check that the parts that a checkpoint describes fit together: run one black clip and two tokens through them."""
        from clipbert_mm.datasets.transforms import ResizeFrames
        from clipbert_mm.models import JointEncoder
        from clipbert_mm.models.backbones import ClipEncoder

        if isinstance(self.model.encoder, JointEncoder):
            self.model.encoder.check_architecture()  # it was built without its weights
        height, width = next(step.frame_shape for step in reversed(self.media_steps) if isinstance(step, ResizeFrames))
        num_frames = self.model.backbone.num_frames if isinstance(self.model.backbone, ClipEncoder) else 1
        tokens = self.encode([np.zeros((1, num_frames, height, width, 3), np.uint8)])
        self.clip_scores(self.clip_logits(tokens, [np.zeros(2, np.int64)]))

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

    def read(self, path: str, timeout: float | None = None) -> "Media":
        """Read a video or an image and apply the test transforms.

        Args:
            path: The file.
            timeout: Most seconds for a separate process to read it, which may crash; None reads it in this process.

        Raises:
            BrokenMediaError: If it cannot be read.
        """
        from clipbert_mm.media.media_file import read_media, read_media_isolated

        if timeout is None:
            return read_media(self.media_steps, path)
        return read_media_isolated(self.media_steps, path, timeout)

    @torch.no_grad()
    def encode(self, frames: Sequence[np.ndarray]) -> Tensor:
        """Encode videos, each (K, T, H, W, 3), as visual tokens (B, K, S, D)."""
        return self.model.encode_video(self._normalized(frames))

    @torch.no_grad()
    def encode_with_coarse_tokens(self, frames: Sequence[np.ndarray]) -> dict[str, Tensor]:
        """Encode videos as ``clips`` (B, K, S, D), and as ``coarse`` tokens (B, 1, S, D), one clip of all frames."""
        return self.model.encode_with_coarse_tokens(self._normalized(frames))

    def _normalized(self, frames: Sequence[np.ndarray]) -> Tensor:
        batch = torch.from_numpy(np.stack(frames)).to(self.device)
        return self.model.data_preprocessor.normalize(batch)

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
        token_ids = [np.array(ids, np.int64) for ids in self.tokenize.tokenizer(list(texts))["input_ids"]]
        for text, ids in zip(texts, token_ids, strict=True):
            if is_blank(text) or len(ids) <= 2:  # [CLS] and [SEP] alone
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
        """Return the words that the tokenizer does not know, all of which look the same to the model."""
        return tuple(self.tokenize.unknown_words(texts))

    @torch.no_grad()
    def clip_logits(self, tokens: Tensor, token_ids: Sequence[np.ndarray]) -> Tensor:
        """Predict every text with every clip of every video.

        Args:
            tokens: Visual tokens of videos, (V, K, S, D).
            token_ids: Token ids of texts, (L,) each.

        Returns:
            Clip logits on the CPU, (M, V, K, C).
        """
        shape = (len(token_ids), len(tokens))
        text_of, video_of = torch.arange(shape[0]).repeat_interleave(shape[1]), torch.arange(shape[1]).repeat(shape[0])
        self.model.data_preprocessor.check_token_ids(token_ids)
        texts = self.pairs.encode_texts(token_ids)
        logits = self.model.score_pairs(self.pairs, texts, tokens, text_of, video_of)  # (M·V, K, C)
        return logits.cpu().unflatten(0, shape)

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

    def clip_scores(self, clip_logits: Tensor) -> Tensor:
        """Return the head's scores of each clip alone, as of a video of one clip: (M, V, K), or (M, V, K, C) for answers."""
        return self.model.pool_scores(clip_logits.flatten(0, 2)[:, None]).unflatten(0, clip_logits.shape[:3])


def _name_source(source: ModelSource) -> str:
    """Return the path of a model's checkpoint or config; a config that was read from no file has a name instead.

    Raises:
        OptionError: If it is something else.
    """
    if isinstance(source, Config):
        return os.path.abspath(source.filename) if source.filename else "a Config without a file"
    if not isinstance(source, (str, os.PathLike)):
        raise OptionError(
            "A model is opened by a checkpoint, a work folder or a config, as its path or as MMEngine's Config; got "
            f"{quoted(source)}."
        )
    return os.path.abspath(find_selected(os.fspath(source)))


def find_device(device: str | torch.device | None) -> torch.device:
    """Return a device of this machine.

    Args:
        device: The device; None for a GPU if there is one.

    Raises:
        OptionError: If torch knows no such device, or this machine has none.
    """
    try:
        found = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if device is None else device)
        torch.empty(0, device=found)
    # torch raises errors of its own for each kind of device that is missing
    except Exception as error:
        gpus = torch.cuda.device_count()
        there = f"{gpus} GPU{'s' * (gpus > 1)} that torch can use" if gpus else "no GPU that torch can use"
        raise OptionError(
            f"The device of a model is cpu, cuda, cuda:1, ...; got {quoted(str(device))}, and this machine has {there} "
            f"({str(error).partition(chr(10))[0].rstrip('.')}). Leave device (--device) out to take what there is."
        ) from error
    return found


def _recipe_of_checkpoint(source: LoadedCheckpoint, text_folder: str) -> Recipe:
    contents = metadata_of(source.rest, source.path)
    with damaged_metadata(source.path):
        contents.write_text_files(text_folder)
        model, pipeline = contents.model_config(text_folder), contents.pipeline(text_folder)
        config = dict(default_scope="clipbert_mm", model=model, test_pipeline=pipeline)
        config |= dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))
        return Recipe(model, pipeline, contents.answers, contents.model, Config(copy.deepcopy(config)))


def _check_agreement(model: Any, tokenize: "Tokenize", answers: Sequence[str] | None) -> None:  # noqa: ANN401
    """Check that the tokenizer and the answers of a checkpoint fit its model.

    Raises:
        CheckpointError: If they do not.
    """
    parts = ("data_preprocessor", "backbone", "projection", "temporal_fusion", "encoder", "head", "aggregator")
    missing = [name for name in parts if not hasattr(model, name)]
    if missing:
        raise CheckpointError(f"its model, {type(model).__name__}, is no ClipBert: it lacks {', '.join(missing)}.")
    longest, limit = tokenize.max_length, model.encoder.max_text_length
    if type(longest) is not int or not 3 <= longest <= limit:
        raise CheckpointError(
            f"max_length of its Tokenize is {quoted(longest)}, expected 3 to {limit} as its model takes."
        )
    expected = getattr(model.head, "num_answers", None)
    if expected is not None and len(answers or ()) != expected:
        raise CheckpointError(f"it has {len(answers or ())} answers, expected {expected} as the head of its model has.")


def _recipe_of_config(source: str | Config, weights: str | os.PathLike | None) -> tuple[Recipe, str]:
    from clipbert_mm.engine.config import load_config

    config = load_config(source, needs=("model", "test_dataloader"))
    if weights is None:
        raise OptionError(
            f"{_name_source(source)} is a config, whose load_from is what its training starts from. Give "
            "weights=CHECKPOINT (--weights) of that training, or the checkpoint alone, which contains its config."
        )
    dataset = config.test_dataloader.dataset
    adapters = [step for step in dataset.get("pipeline") or () if type_name(step) == "ClipBertTransforms"]
    vocabulary = adapters[-1].get("answers") if adapters else None
    if dataset.get("answer_file"):
        vocabulary = os.path.join(dataset.get("data_root", ""), dataset.answer_file)
    indices = read_answers(vocabulary) if vocabulary else {}
    answers = sorted(indices, key=indices.__getitem__) or None
    model = config.model.to_dict()
    pipeline = config.get("test_pipeline") or dataset.pipeline  # as in OpenMMLab's libraries
    steps = [step.to_dict() | dict(type=type_name(step)) for step in pipeline]
    return Recipe(model, steps, answers, model, config), os.fspath(weights)


def _split(pipeline: Sequence[dict[str, Any]]) -> tuple[list[Any], "Tokenize"]:
    """Build the transforms that read frames, and the one that tokenizes."""
    from clipbert_mm.datasets.transforms import ResizeFrames
    from clipbert_mm.datasets.transforms.other_libraries import check_transforms

    types = [step["type"] for step in pipeline]
    last = types.index("Tokenize") if "Tokenize" in types else 0
    kinds = [TRANSFORMS.get(name) for name in types[:last]]
    if not any(isinstance(kind, type) and issubclass(kind, ResizeFrames) for kind in kinds):
        raise OptionError(
            f"Expected a test pipeline of ..., ResizePad, Tokenize, PackInputs, got {', '.join(types)}. Use a config with a "
            "test_dataloader of these."
        )
    steps = [TRANSFORMS.build(copy.deepcopy(step)) for step in pipeline[: last + 1]]
    check_transforms("The test pipeline", steps)
    return steps[:-1], steps[-1]


def _digest(recipe: Recipe, weights: str) -> str:
    """Return a digest that is equal for predictors with the same visual tokens: of weights, visual parts and transforms."""
    steps = [step for step in recipe.pipeline if step["type"] not in ("Tokenize", "PackInputs")]
    model = {name: recipe.written[name] for name in ("data_preprocessor", "backbone", "projection", "temporal_fusion")}
    digest = hashlib.sha256(json.dumps([steps, model], sort_keys=True, default=str).encode())
    if zipfile.is_zipfile(weights):  # its directory contains a checksum of each tensor
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
