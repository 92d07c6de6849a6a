"""Open a model: a checkpoint of ours, a config with its weights, or a public model of Hugging Face."""

import copy
import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from torch import nn

from clipbert_mm.apis.pooling import with_pooling
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
from clipbert_mm.checkpoint.public import PublicModel, is_public, read_public
from clipbert_mm.errors import CheckpointError, OptionError, quoted
from clipbert_mm.registry import MODELS, TRANSFORMS, type_name
from clipbert_mm.structures import read_answers

if TYPE_CHECKING:
    from clipbert_mm.datasets.transforms import Tokenize

ModelSource: TypeAlias = str | os.PathLike | Config
"""A checkpoint of ours, the work folder of a training, a config as a file or as MMEngine's object, or a public model."""


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


@dataclass(frozen=True)
class OpenedModel:
    """A model with its weights, and the transforms that feed it.

    Args:
        source: The checkpoint, the config, or the folder or name of a public model with its commit.
        weights: The file or folder of the weights.
        recipe: What it was built from.
        model: The model on the CPU.
        media_steps: The transforms up to the frames.
        tokenize: The transform of texts.
        identity: Digest that is equal for models with the same visual tokens.
        is_config: Whether the source is a config.
        public: The public model; None for others.
    """

    source: str
    weights: str
    recipe: Recipe
    model: nn.Module
    media_steps: list[Any]
    tokenize: "Tokenize"
    identity: str
    is_config: bool
    public: PublicModel | None


def open_model(
    config_or_checkpoint: ModelSource,
    text_folder: str,
    *,
    weights: str | os.PathLike | None = None,
    revision: str | None = None,
    pooling: str | None = None,
) -> OpenedModel:
    """Build a model and load its weights; arguments as of :class:`~clipbert_mm.apis.predictor.Predictor`.

    Args:
        config_or_checkpoint: What to open.
        text_folder: Folder for the tokenizer of a checkpoint.
        weights: With a config, its weights.
        revision: With a name on the Hugging Face hub, its revision.
        pooling: How clips become one score; see :mod:`clipbert_mm.apis.pooling`.

    Raises:
        CheckpointError: If the checkpoint cannot be read, is incomplete, or does not fit the config.
        OptionError: If there are no weights, or arguments do not go together.
    """
    source, public = name_source(config_or_checkpoint), None
    is_config = isinstance(config_or_checkpoint, Config) or source.endswith(".py")
    if weights is not None and not is_config:
        raise OptionError(f"weights= goes with a config file, and {source} is a checkpoint. Give one of the two.")
    if revision is not None and not is_public(source):
        raise OptionError(f"revision= goes with a name on the Hugging Face hub, and {source} is none. Leave it out.")
    if is_config:
        given = config_or_checkpoint if isinstance(config_or_checkpoint, Config) else source
        recipe, weights_path = _recipe_of_config(given, weights)
        loaded = read_source(weights_path)
        with DefaultScope.overwrite_default_scope("clipbert_mm"):
            with WithoutInitialization():
                model = MODELS.build(with_pooling(recipe.model, pooling))
            steps, tokenize = _split(recipe.pipeline)
    else:
        if is_public(source):
            public = open_public(source, revision)
            source, loaded, recipe = public.source, public.weights, _recipe_of_public(public)
        else:
            loaded = read_source(source)
            recipe = _recipe_of_checkpoint(loaded, text_folder)
        weights_path = loaded.path
        model = build_model(with_pooling(recipe.model, pooling), loaded.tensors, source)
        with damaged_metadata(source), DefaultScope.overwrite_default_scope("clipbert_mm"):
            steps, tokenize = _split(recipe.pipeline)
            _check_agreement(model, tokenize, recipe.answers)
    check_fit(model, [loaded], whole=True)
    load_weights(model, loaded.tensors, weights_path)
    identity = _digest(recipe, [weights_path] if public is None else public.files)
    return OpenedModel(source, weights_path, recipe, model, steps, tokenize, identity, is_config, public)


def name_source(source: ModelSource) -> str:
    """Return the path of a model's checkpoint or config; a config that was read from no file has a name instead.

    Raises:
        OptionError: If it is something else.
    """
    if isinstance(source, Config):
        return os.path.abspath(source.filename) if source.filename else "a Config without a file"
    if not isinstance(source, (str, os.PathLike)):
        raise OptionError(
            "A model is opened by a checkpoint, a work folder or a config, as its path or as MMEngine's Config, or by a "
            "Hugging Face folder or name; got "
            f"{quoted(source)}."
        )
    path = os.fspath(source)
    if is_public(path):
        return os.path.abspath(path) if os.path.isdir(path) else path
    return os.path.abspath(find_selected(path))


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


def find_precision(precision: str | None, device: torch.device, *, is_public: bool) -> str:
    """Return what a model computes in on a device.

    Args:
        precision: "fp32", "bf16" or "fp16"; None for "bf16" of a public model on a GPU that computes in it, else "fp32".
        device: The device.
        is_public: Whether it is a public model, whose towers take most of the time.

    Raises:
        OptionError: If there is no such precision, or the device does not compute in it.
    """
    on_gpu = device.type == "cuda"
    lacking = "bf16" if on_gpu and not torch.cuda.is_bf16_supported(including_emulation=False) else ""
    lacking = lacking if on_gpu else "fp16"
    if precision is None:
        return "bf16" if is_public and on_gpu and not lacking else "fp32"
    if precision not in ("fp32", "bf16", "fp16") or precision == lacking:
        usable = " or ".join(name for name in ("fp32", "bf16", "fp16") if name != lacking)
        raise OptionError(
            f"The precision of a model on {device} is {usable}; got {quoted(precision)}. Leave precision (--precision) out to "
            "take what suits the device."
        )
    return precision


def open_public(source: str, revision: str | None = None) -> PublicModel:
    """Read a public model, with the padding of texts that its tokenizer has; arguments and errors of :func:`read_public`.

    SigLIP pads texts, and for this ``config.json`` has a default that is wrong for SigLIP 2.
    """
    public = read_public(source, revision)
    encoder = public.model["encoder"]
    if "padding_token" in encoder:  # of the very settings that the family compares by
        from clipbert_mm.datasets.transforms.text import get_tokenizer

        (folder,) = (step["tokenizer"] for step in public.pipeline if "tokenizer" in step)
        encoder["padding_token"] = get_tokenizer(folder, "last").pad_token_id
    return public


def _recipe_of_public(public: PublicModel) -> Recipe:
    model, pipeline = public.model, public.pipeline
    config = dict(default_scope="clipbert_mm", model=model, test_pipeline=pipeline)
    config |= dict(test_dataloader=dict(dataset=dict(pipeline=pipeline)))
    return Recipe(model, pipeline, public.family.answers, model, Config(copy.deepcopy(config)))


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
            f"{name_source(source)} is a config, whose load_from is what its training starts from. Give "
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


def steps_for_images(steps: Sequence[Any]) -> list[Any]:
    """Return transforms that read an image as those for videos read a frame: one clip of one frame."""
    from clipbert_mm.datasets.transforms import LoadImage, ResizeFrames

    first = next(i for i, step in enumerate(steps) if isinstance(step, ResizeFrames))
    return [LoadImage(), *steps[first:]]


def _digest(recipe: Recipe, weights: Sequence[str]) -> str:
    """Return a digest that is equal for predictors with the same visual tokens: of weights, visual parts and transforms.

    Args:
        recipe: The configs.
        weights: The files of the weights, or what they are named by.
    """
    steps = [step for step in recipe.pipeline if step["type"] not in ("Tokenize", "PackInputs")]
    visual = ("data_preprocessor", "backbone", "projection", "temporal_fusion")
    model = {name: recipe.written[name] for name in visual if name in recipe.written}
    digest = hashlib.sha256(json.dumps([steps, model], sort_keys=True, default=str).encode())
    for file in weights:
        if zipfile.is_zipfile(file):  # its directory contains a checksum of each tensor
            with zipfile.ZipFile(file) as archive:
                for record in archive.infolist():
                    if "/data/" in record.filename:
                        checksum = f"{record.filename.partition('/')[2]} {record.CRC} {record.file_size}\n"
                        digest.update(checksum.encode())
        elif os.path.isfile(file):
            with open(file, "rb") as opened:
                while block := opened.read(1 << 20):
                    digest.update(block)
        else:
            digest.update(file.encode())
    return digest.hexdigest()[:16]
