"""Decide what an untrusted file may name: a checkpoint, an index, a folder of Hugging Face. Only this module decides it.

A config is Python that its user chose, and may name anything. A config in a checkpoint may name classes that are registered
here, backbones of mmpretrain and mmaction2, and layers of torch and mmcv; no other name is looked up, and no module is imported
for it.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clipbert_mm import compat
from clipbert_mm.errors import CheckpointError, printable, quoted
from clipbert_mm.registry import MODELS, TRANSFORMS, Registry, without_scope

LAYERS = (
    "torch.nn.modules.",
    "mmcv.cnn.",
    "mmengine.utils.dl_utils.parrots_wrapper",
    "mmpretrain.models.utils.norm",
    "mmaction.models.common.conv2plus1d",
)
"""Modules whose registered classes a model's config may name inside a backbone, such as norms and convolutions."""
PATHWAY = "resnet3d"
"""The type of each pathway of mmaction2's SlowFast, which is no registered class."""
FOR_TRAINING = (
    "init_cfg",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
)
"""Settings that name files or addresses of initial weights; a trained model has weights of its own."""
DOTTED = ("model_name", "frozen", "checkpointed", "compiled", "architecture")
"""Settings whose values may have dots and other punctuation, such as names of timm's models and of modules."""
WORD = re.compile(r"[\w+ -]*")
MAX_LENGTH, MAX_DEPTH, MAX_VALUES, MAX_NUMBER = 1000, 20, 20_000, 2**20
"""Most characters of a string, nested containers, and values of a config; and its largest number."""
MAX_FRAME_BYTES = 2**32
"""Most bytes of the frames of one video, (K, T, H, W, 3)."""
SIDES = ("size", "shorter", "longest", "crop")
"""Settings of transforms that are sides of a frame, or both sides, in pixels."""
MAX_THREADS = 64
"""Most threads that decode one video."""
TEXT_MODELS = (
    "bert",
    "bert-generation",
    "camembert",
    "convbert",
    "data2vec-text",
    "distilbert",
    "electra",
    "ernie",
    "ibert",
    "megatron-bert",
    "mra",
    "nystromformer",
    "roberta",
    "roberta-prelayernorm",
    "xlm-roberta",
    "xlm-roberta-xl",
)
"""Model types of transformers that consist of embeddings and an encoder, like BERT."""
IMAGE_TEXT_MODELS = ("blip", "clip", "siglip", "siglip2", "vilt")
"""Model types of transformers that consist of a tower for images and one for texts, or one for both."""
TOKENIZERS = (
    "Bert",
    "Camembert",
    "CLIP",
    "DistilBert",
    "Electra",
    "Gemma",
    "Roberta",
    "Siglip",
    "Siglip2",
    "T5",
    "XLMRoberta",
)
"""Tokenizers of these models, by the first part of the class names."""
ANY_TOKENIZER = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""Classes for any tokenizer.json."""
MAX_TEXT_FILE_BYTES = 2**26
"""Largest size of a file of a tokenizer."""


def check_model(config: Mapping[str, Any], who: str) -> dict[str, Any]:
    """Check that a model's config from a checkpoint names only what it may name.

    Args:
        config: The config.
        who: Where it comes from, for errors.

    Returns:
        The config for the model registry, without settings that name initial weights.

    Raises:
        CheckpointError: If it names something else, or is not a config.
    """
    return _checked(config, who, MODELS)


def check_pipeline(steps: Sequence[Mapping[str, Any]], who: str) -> list[dict[str, Any]]:
    """Check that transforms from a checkpoint are registered with ours, and that their frames fit in memory.

    Args:
        steps: Configs of the transforms; paths of a tokenizer were replaced.
        who: Where they come from, for errors.

    Raises:
        CheckpointError: If a transform is not registered, or its sizes are too large.
    """
    checked = []
    for step in steps:
        paths = {key: step[key] for key in ("tokenizer",) if key in step}
        others = {key: value for key, value in step.items() if key not in paths}
        checked.append(_checked(others, who, TRANSFORMS) | paths)
    numbers = {key: value for step in checked for key, value in step.items() if type(value) in (int, float)}
    given = [step[key] for step in checked for key in SIDES if key in step]
    sides = [side for value in given for side in (value if isinstance(value, (list, tuple)) else [value])]
    largest = max((side for side in sides if type(side) in (int, float)), default=1)
    frame_bytes = (
        math.prod(max(numbers.get(key, 1), 1) for key in ("num_clips", "num_frames")) * max(largest, 1) ** 2 * 3
    )
    threads = numbers.get("num_threads", 1)
    if frame_bytes > MAX_FRAME_BYTES or threads > MAX_THREADS:
        raise CheckpointError(
            f"{who} is refused: it asks for {frame_bytes:,} bytes of frames per video and {threads} threads; at most "
            f"{MAX_FRAME_BYTES:,} bytes and {MAX_THREADS} threads are allowed."
        )
    return checked


def _checked(config: Any, who: str, registry: Registry) -> Any:  # noqa: ANN401
    """Return a config without :data:`FOR_TRAINING` and our scope, after checking every value in it."""
    if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
        raise CheckpointError(f"{who} is damaged: expected a config with a type, got {quoted(config)}.")
    count = 0

    def copy(value: Any, name: str, depth: int) -> Any:  # noqa: ANN401
        nonlocal count
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise CheckpointError(
                f"{who} is refused: a config has at most {MAX_VALUES:,} values and {MAX_DEPTH} nested containers."
            )
        if isinstance(value, Mapping):
            kept = {key: each for key, each in value.items() if key not in FOR_TRAINING}
            if kept.get("_scope_") == "clipbert_mm":  # MMEngine adds it to what is inherited from clipbert_mm::NAME
                del kept["_scope_"]
            for key in kept:
                if not isinstance(key, str) or key.startswith("_") or len(key) > MAX_LENGTH:
                    raise CheckpointError(f"{who} is refused: its config has a setting {quoted(key)}.")
            return {key: copy(each, key, depth + 1) for key, each in kept.items()}
        if isinstance(value, (list, tuple)):
            return type(value)(copy(each, name, depth + 1) for each in value)
        _check_value(value, name, who, registry)
        return without_scope(value) if name == "type" and isinstance(value, str) else value

    return copy(config, "", 0)


def _check_value(value: object, name: str, who: str, registry: Registry) -> None:
    """Check that a value of a config is the name of an allowed class, a short string, or a number of limited size."""
    if isinstance(value, str) and name == "type":
        if not is_known(value, registry):
            more = ", backbones of mmpretrain and mmaction2, and layers" if registry is MODELS else ""
            raise CheckpointError(
                f"{who} is refused: it names the type {quoted(value)}. A file may name the classes in the {registry.name} "
                f"registry ({', '.join(sorted(registry.module_dict))}){more}. Import a class of your own first, or give your "
                "config (.py) and the checkpoint as its weights."
            )
    elif isinstance(value, str):
        if len(value) > MAX_LENGTH or (not (name in DOTTED and ":" not in value) and not WORD.fullmatch(value)):
            raise CheckpointError(
                f"{who} is refused: expected a word as {quoted(name)} of its config, got {quoted(value)}. A file may not name "
                "paths or addresses. Give your config (.py) and the checkpoint as its weights."
            )
    elif value is not None and (
        not isinstance(value, (bool, int, float)) or not abs(value) <= MAX_NUMBER
    ):  # NaN is not
        raise CheckpointError(
            f"{who} is refused: expected a number up to {MAX_NUMBER:,} as {quoted(name)} of its config, got {quoted(value)}."
        )


def is_known(name: str, registry: Registry) -> bool:
    """Return whether a file may name a class; it is looked up among registered classes, and nothing is imported for it.

    Args:
        name: The ``type`` in a config.
        registry: The registry that would build it.
    """
    scope, _, class_name = name.rpartition(".")
    registry.import_from_location()
    if scope in ("", registry.scope) and class_name in registry.module_dict:
        return True
    if registry is not MODELS:
        return False
    if name == PATHWAY:
        return True
    if scope == "mmpretrain":
        compat.import_mmpretrain()
        from mmpretrain.models import backbones

        if class_name in backbones.__all__:
            return True
    if scope == "mmaction":
        compat.import_mmaction()
        from mmaction.models import backbones as video_backbones

        if class_name in video_backbones.__all__:
            return True
    found = list(_named(class_name, scope, registry))
    return bool(found) and all(getattr(kind, "__module__", "").startswith(LAYERS) for kind in found)


def _named(class_name: str, scope: str, registry: Registry) -> Iterator[Any]:
    """Yield each class that a backbone may get for a name, from its own library, if it was imported, or from MMEngine."""
    import mmcv.cnn  # noqa: F401  # registers its layers

    root = registry.parent
    libraries = {name: root.children[name] for name in ("mmpretrain", "mmaction") if name in root.children}
    if scope in ("", "mmengine", *libraries):
        searched = [root, *(library for name, library in libraries.items() if scope in ("", name))]
        yield from (each.module_dict[class_name] for each in searched if class_name in each.module_dict)


def check_text_file(name: str, text: object, who: str) -> None:
    """Check a file of a tokenizer before it is written: its name has no folder, and it is text of limited size.

    Raises:
        CheckpointError: If its name or size is not allowed.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,100}\.(json|txt|jinja)", name):
        raise CheckpointError(
            f"{who} is refused: a file of its tokenizer is named {quoted(name)}; expected a file name in .json, .txt or .jinja."
        )
    if not isinstance(text, str) or len(text) > MAX_TEXT_FILE_BYTES:
        raise CheckpointError(
            f"{who} is refused: expected a text of up to {MAX_TEXT_FILE_BYTES:,} characters as the tokenizer's file {name}."
        )


def check_text_model(settings: Mapping[str, Any], who: str) -> None:
    """Check that the ``config.json`` of a folder of Hugging Face names a model type that transformers itself has.

    Raises:
        CheckpointError: If it names code of its own, or another model type.
    """
    model_type = settings.get("model_type")
    if "auto_map" in settings or model_type not in TEXT_MODELS:
        named = "code of its own (auto_map)" if "auto_map" in settings else f"the model type {quoted(model_type)}"
        raise CheckpointError(
            f"{who} is refused: its config.json names {named}. Code that comes with a model is never run. Expected one of the "
            f"types {', '.join(TEXT_MODELS)}."
        )


def check_tokenizer(folder_or_name: str, settings: Mapping[str, Any], model_settings: Mapping[str, Any]) -> None:
    """Check that a tokenizer of Hugging Face has a class that transformers itself has, and reads no other files.

    Args:
        folder_or_name: The folder, or the name on the hub.
        settings: Contents of its ``tokenizer_config.json``.
        model_settings: Contents of its ``config.json``.

    Raises:
        CheckpointError: If it names code of its own, another class, or files in other folders.
    """
    who = f"The tokenizer {printable(folder_or_name)}"
    class_name = settings.get("tokenizer_class", model_settings.get("tokenizer_class"))
    base = class_name.removesuffix("Fast").removesuffix("Tokenizer") if isinstance(class_name, str) else class_name
    if "auto_map" in settings or "auto_map" in model_settings:
        raise CheckpointError(f"{who} is refused: it names code of its own (auto_map), which is never run.")
    if class_name is None and model_settings and model_settings.get("model_type") not in IMAGE_TEXT_MODELS:
        check_text_model(model_settings, who)
    elif class_name is not None and base not in TOKENIZERS and class_name not in ANY_TOKENIZER:
        raise CheckpointError(
            f"{who} is refused: it names the class {quoted(class_name)}. Expected one of "
            f"{', '.join(f'{each}Tokenizer' for each in TOKENIZERS)}, {', '.join(ANY_TOKENIZER)}."
        )
    for key, value in settings.items():
        elsewhere = value is not None and (not isinstance(value, str) or os.path.basename(value) != value)
        if key.endswith("_file") and key != "special_tokens_map_file" and elsewhere:  # which transformers does not read
            raise CheckpointError(
                f"{who} is refused: its {quoted(key)} names a file in another folder, {quoted(value)}."
            )
    for entry in os.scandir(folder_or_name) if os.path.isdir(folder_or_name) else ():
        size = entry.stat().st_size
        if entry.name.endswith((".json", ".txt", ".model")) and size > MAX_TEXT_FILE_BYTES:
            raise CheckpointError(
                f"{who} is refused: its file {quoted(entry.name)} has {size:,} bytes; at most {MAX_TEXT_FILE_BYTES:,} are "
                "allowed."
            )
