"""What a file from elsewhere may name: a checkpoint, a gallery, a folder of Hugging Face's. The one place that decides it.

A config is Python that its user chose, and may name anything. What comes with weights may name classes that are registered
here, backbones of mmpretrain, and layers of torch and mmcv; no other name is looked up, and no module is imported for one.
"""

import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clipbert_mm import compat
from clipbert_mm.errors import CheckpointError, printable, quoted
from clipbert_mm.registry import MODELS, TRANSFORMS, Registry

LAYERS = ("torch.nn.modules.", "mmcv.cnn.", "mmengine.utils.dl_utils.parrots_wrapper", "mmpretrain.models.utils.norm")
"""Modules whose registered classes a model's config may name inside of a backbone, such as norms and convolutions."""
FOR_TRAINING = (
    "init_cfg",
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
)
"""Settings that lead to files or addresses of weights to start from; a trained model has its own."""
DOTTED = ("model_name", "frozen", "checkpointed", "compiled", "architecture")
"""Settings whose words may have dots and the like, as names of timm's models and of modules of the model."""
WORD = re.compile(r"[\w+ -]*")
LONGEST, DEEPEST, MOST_VALUES, LARGEST = 1000, 20, 20_000, 2**20
"""Letters of a word, containers in one another, values of a config, and the largest number in one."""
MOST_FRAME_BYTES = 2**32
"""Bytes of the frames of one video, (K, T, size, size, 3)."""
MOST_THREADS = 64
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
"""Model types of transformers that are embeddings followed by an encoder, as BERT is."""
TOKENIZERS = ("Bert", "Camembert", "DistilBert", "Electra", "Roberta", "XLMRoberta")
"""Tokenizers of these, by the first word of their classes' names."""
ANY_TOKENIZER = ("PreTrainedTokenizerFast", "TokenizersBackend")
"""The classes for what is in a tokenizer.json, whatever it is."""
LARGEST_TEXT_FILE = 2**26
"""Bytes of a file of a tokenizer."""


def check_model(config: Mapping[str, Any], who: str) -> dict[str, Any]:
    """See that a model's config that came with weights names nothing but what it may.

    Args:
        config: The config.
        who: Where it comes from, for an error.

    Returns:
        The config without settings of what the training started from, for the model registry.

    Raises:
        CheckpointError: If it names something else, or is no config.
    """
    return _checked(config, who, MODELS)


def check_pipeline(steps: Sequence[Mapping[str, Any]], who: str) -> list[dict[str, Any]]:
    """See that transforms that came with weights are ours, or registered with ours, and of sizes that can be held.

    Args:
        steps: Configs of the transforms; paths of a tokenizer were replaced.
        who: Where they come from, for an error.

    Raises:
        CheckpointError: If one is something else.
    """
    checked = []
    for step in steps:
        paths = {key: step[key] for key in ("tokenizer",) if key in step}
        others = {key: value for key, value in step.items() if key not in paths}
        checked.append(_checked(others, who, TRANSFORMS) | paths)
    found = {key: value for step in checked for key, value in step.items() if type(value) in (int, float)}
    frames = math.prod(max(found.get(key, 1), 1) for key in ("num_clips", "num_frames", "size", "size")) * 3
    if frames > MOST_FRAME_BYTES or found.get("num_threads", 1) > MOST_THREADS:
        raise CheckpointError(
            f"{who} is refused: it wants frames of {frames:,} bytes a video and {found.get('num_threads', 1)} threads; "
            f"{MOST_FRAME_BYTES:,} and {MOST_THREADS} are the most."
        )
    return checked


def _checked(config: Any, who: str, registry: Registry) -> Any:  # noqa: ANN401
    """Return a config without :data:`FOR_TRAINING`, once all that is in it was seen to be harmless."""
    if not isinstance(config, Mapping) or not isinstance(config.get("type"), str):
        raise CheckpointError(f"{who} is damaged: expected a config with a type, got {quoted(config)}.")
    count = 0

    def copy(value: Any, name: str, depth: int) -> Any:  # noqa: ANN401
        nonlocal count
        count += 1
        if depth > DEEPEST or count > MOST_VALUES:
            raise CheckpointError(
                f"{who} is refused: a config has at most {MOST_VALUES:,} values and {DEEPEST} containers in one another."
            )
        if isinstance(value, Mapping):
            for key in value:
                if not isinstance(key, str) or key.startswith("_") or len(key) > LONGEST:
                    raise CheckpointError(f"{who} is refused: its config has a setting {quoted(key)}.")
            return {key: copy(each, key, depth + 1) for key, each in value.items() if key not in FOR_TRAINING}
        if isinstance(value, (list, tuple)):
            return type(value)(copy(each, name, depth + 1) for each in value)
        _check_value(value, name, who, registry)
        return value

    return copy(config, "", 0)


def _check_value(value: object, name: str, who: str, registry: Registry) -> None:
    """See that a value of a config is a plain one: a name that may be built, a word, or a number of some size."""
    if isinstance(value, str) and name == "type":
        if not is_known(value, registry):
            more = ", mmpretrain's backbones, and layers" if registry is MODELS else ""
            raise CheckpointError(
                f"{who} is refused: it names {quoted(value)} as a type, which is none of what a file may name: the classes in "
                f"the {registry.name} registry ({', '.join(sorted(registry.module_dict))}){more}. A class of your own has to "
                "be imported first; or give your config (.py) and the checkpoint as its weights."
            )
    elif isinstance(value, str):
        if len(value) > LONGEST or (not (name in DOTTED and ":" not in value) and not WORD.fullmatch(value)):
            raise CheckpointError(
                f"{who} is refused: {quoted(name)} of its config is expected to be a word, got {quoted(value)}. A file may not "
                "name paths or addresses; give your config (.py) and the checkpoint as its weights."
            )
    elif value is not None and (not isinstance(value, (bool, int, float)) or not abs(value) <= LARGEST):  # NaN is not
        raise CheckpointError(
            f"{who} is refused: {quoted(name)} of its config is expected to be a number up to {LARGEST:,}, got {quoted(value)}."
        )


def is_known(name: str, registry: Registry) -> bool:
    """Whether a file may name a class: looked up among what is registered, without importing what is named.

    Args:
        name: What a config has as ``type``.
        registry: Where it would be looked up.
    """
    scope, _, own = name.rpartition(".")
    registry.import_from_location()
    if scope in ("", registry.scope) and own in registry.module_dict:
        return True
    if registry is not MODELS:
        return False
    if scope == "mmpretrain":
        compat.import_mmpretrain()
        from mmpretrain.models import backbones

        if own in backbones.__all__:
            return True
    return scope in ("", "mmpretrain", "mmengine") and any(
        getattr(group.module_dict.get(own), "__module__", "").startswith(LAYERS) for group in _with_layers(registry)
    )


def _with_layers(registry: Registry) -> Iterator[Any]:
    """Name the registries that layers may be in: MMEngine's own, and mmpretrain's where it is in use."""
    import mmcv.cnn  # noqa: F401  # registers its layers

    root = registry.parent
    yield root
    yield from (child for scope, child in root.children.items() if scope == "mmpretrain")


def check_text_file(name: str, text: object, who: str) -> None:
    """See that a file of a tokenizer may be written beside others: its name leads nowhere, and it is text of some size.

    Raises:
        CheckpointError: If not.
    """
    if not isinstance(name, str) or not re.fullmatch(r"\w[\w.-]{0,100}\.(json|txt|jinja)", name):
        raise CheckpointError(f"{who} is refused: it has a file of its tokenizer named {quoted(name)}.")
    if not isinstance(text, str) or len(text) > LARGEST_TEXT_FILE:
        raise CheckpointError(
            f"{who} is refused: the file {name} of its tokenizer is expected to be a text of at most {LARGEST_TEXT_FILE:,} "
            "letters."
        )


def check_text_model(settings: Mapping[str, Any], who: str) -> None:
    """See that the ``config.json`` of a folder of Hugging Face's is of a kind of model that transformers itself has.

    Raises:
        CheckpointError: If it names code of its own, or another kind of model.
    """
    kind = settings.get("model_type")
    if "auto_map" in settings or kind not in TEXT_MODELS:
        named = "code of its own (auto_map)" if "auto_map" in settings else f"the model type {quoted(kind)}"
        raise CheckpointError(
            f"{who} is refused: its config.json names {named}. Code that comes with a model is never run; the types are "
            f"{', '.join(TEXT_MODELS)}."
        )


def check_tokenizer(folder_or_name: str, settings: Mapping[str, Any], model_settings: Mapping[str, Any]) -> None:
    """See that a tokenizer of Hugging Face's is of a class that transformers itself has, and reads no other files.

    Args:
        folder_or_name: The folder, or the name on the hub.
        settings: What its ``tokenizer_config.json`` holds.
        model_settings: What its ``config.json`` holds.

    Raises:
        CheckpointError: If it names code of its own, another class, or files elsewhere.
    """
    who = f"The tokenizer {printable(folder_or_name)}"
    kind = settings.get("tokenizer_class", model_settings.get("tokenizer_class"))
    base = kind.removesuffix("Fast").removesuffix("Tokenizer") if isinstance(kind, str) else kind
    if "auto_map" in settings or "auto_map" in model_settings:
        raise CheckpointError(f"{who} is refused: it names code of its own (auto_map), which is never run.")
    if kind is None and model_settings:
        check_text_model(model_settings, who)
    elif kind is not None and base not in TOKENIZERS and kind not in ANY_TOKENIZER:
        raise CheckpointError(
            f"{who} is refused: it names the class {quoted(kind)}; those that a folder may name are "
            f"{', '.join(f'{each}Tokenizer' for each in TOKENIZERS)} and {', '.join(ANY_TOKENIZER)}."
        )
    for key, value in settings.items():
        elsewhere = value is not None and (not isinstance(value, str) or os.path.basename(value) != value)
        if key.endswith("_file") and key != "special_tokens_map_file" and elsewhere:  # which transformers does not read
            raise CheckpointError(f"{who} is refused: its {quoted(key)} leads to a file elsewhere, {quoted(value)}.")
    for entry in os.scandir(folder_or_name) if os.path.isdir(folder_or_name) else ():
        size = entry.stat().st_size
        if entry.name.endswith((".json", ".txt", ".model")) and size > LARGEST_TEXT_FILE:
            raise CheckpointError(
                f"{who} is refused: its file {quoted(entry.name)} has {size:,} bytes; {LARGEST_TEXT_FILE:,} are the most."
            )
