"""Which library's file is this? Recognized by the names of its tensors, and given ours (Table 5 of the paper)."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clipbert_mm.checkpoint.official import convert_official_state_dict
from clipbert_mm.checkpoint.preprocessing import CAFFE, PYTORCH, InputSpec
from clipbert_mm.checkpoint.reading import read_checkpoint
from clipbert_mm.errors import CheckpointError, printable, quoted

MOST_HEADS = 10_000
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class CheckpointFormat:
    """A kind of checkpoint.

    Args:
        title: What it is, for a report.
        pattern: Regular expression that finds one of its tensors' names and none of a kind further down the list.
        parts: Modules of a ClipBert that it is to fill wholly.
        convert: From its names to ours.
        convention: What its visual weights take for granted; None if it has none, or says so itself.
        excluded: Regular expression of names that only other kinds have; None if there are none.
    """

    title: str
    pattern: str
    parts: tuple[str, ...]
    convert: Callable[[Tensors], dict[str, Tensor]]
    convention: InputSpec | None
    excluded: str | None = None


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that was read and recognized.

    Args:
        path: The file, folder or name.
        title: Which kind it is.
        parts: Modules of a ClipBert that it is to fill wholly.
        convention: What its visual weights take for granted; None if it has no visual weights.
        tensors: The tensors by our names.
        rest: What else is in the file; of a Hugging Face folder, the number of ``attention_heads``.
    """

    path: str
    title: str
    parts: tuple[str, ...]
    convention: InputSpec | None
    tensors: dict[str, Tensor]
    rest: dict[str, Any] = field(default_factory=dict)


def read_source(path: str, map_location: str | torch.device = "cpu", *, mmap: bool = True) -> LoadedCheckpoint:
    """Read a checkpoint of any kind; arguments as of :func:`~clipbert_mm.checkpoint.reading.read_checkpoint`.

    Raises:
        CheckpointError: If it cannot be read or is of no kind that is known.
    """
    rest = read_checkpoint(path, map_location, mmap=mmap)
    tensors = rest.pop("state_dict")
    kind = detect_format(tensors)
    if kind is None:
        raise CheckpointError(
            f"{printable(path)} holds tensors such as {', '.join(name[:60] for name in list(tensors)[:3])}, by which it is "
            "none of: "
            f"{'; '.join(known.title for known in KINDS)}. Rename them to the model's, or take another file."
        )
    converted = kind.convert(tensors)
    convention = kind.convention if rest.get("convention") is None else _convention(rest["convention"], path)
    heads = rest.get("attention_heads")
    if heads is not None and (type(heads) is not int or not 0 < heads <= MOST_HEADS):
        raise CheckpointError(
            f"{printable(path)} is damaged: its number of attention heads is {quoted(heads)}. Take another copy."
        )
    if rest.get("__author__") == "torchvision":  # detectron2's tool converts its names alone
        convention = PYTORCH
    parts = tuple(part for part in kind.parts if any(name.startswith(f"{part}.") for name in converted))
    return LoadedCheckpoint(path, kind.title, parts, convention, converted, rest)


def _convention(saved: Any, path: str) -> InputSpec:  # noqa: ANN401
    try:
        return InputSpec.from_dict(saved)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{printable(path)} is damaged: how its frames come in is {quoted(saved)}. Take another copy."
        ) from error


def detect_format(names: Iterable[str]) -> CheckpointFormat | None:
    """Tell the kind of a checkpoint by its tensors' names; None if it is none that is known."""
    listed = list(names)

    def has(pattern: str | None) -> bool:
        return pattern is not None and any(re.search(pattern, name) for name in listed)

    return next((kind for kind in KINDS if has(kind.pattern) and not has(kind.excluded)), None)


def _rename(
    tensors: Tensors, rules: Iterable[tuple[str, str]], dropped: str = r"num_batches_tracked$"
) -> dict[str, Tensor]:
    """Apply patterns and replacements in their order to every name that is not dropped."""
    converted = {}
    for name, tensor in tensors.items():
        if re.search(dropped, name):
            continue
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        converted[name] = tensor
    return converted


def _from_ours(tensors: Tensors) -> dict[str, Tensor]:
    return dict(tensors)


def _from_torchvision(tensors: Tensors) -> dict[str, Tensor]:
    return _rename(tensors, [(r"^(?=conv1\.|bn1\.|layer\d\.)", "backbone.")])


def _from_mmaction(tensors: Tensors) -> dict[str, Tensor]:
    rules = (
        (r"^backbone\.conv1\.conv\.", "backbone.conv1."),
        (r"^backbone\.conv1\.bn\.", "backbone.bn1."),
        (r"^(backbone\.layer\d\.\d+)\.conv(\d)\.conv\.", r"\1.conv\2."),
        (r"^(backbone\.layer\d\.\d+)\.conv(\d)\.bn\.", r"\1.bn\2."),
        (r"^(backbone\.layer\d\.\d+)\.downsample\.conv\.", r"\1.downsample.0."),
        (r"^(backbone\.layer\d\.\d+)\.downsample\.bn\.", r"\1.downsample.1."),
    )
    return _rename(tensors, rules)


def _from_detectron(tensors: Tensors) -> dict[str, Tensor]:
    """Rename as the release's own visual names, which are detectron2's after a prefix."""
    # The C4 models have their last stage in the box head; ImageNet files have no prefix.
    own = r"^(?:backbone\.bottom_up\.|backbone\.|roi_heads\.(?=res5\.))?(?=stem\.|res[2-5]\.)"
    # A feature pyramid lies under "backbone" too, and is none of the ResNet.
    rules = ((own, "cnn.feature.backbone."), (r"^backbone\.(?=fpn_)", ""))
    return convert_official_state_dict(_rename(tensors, rules))


def _from_transformers(tensors: Tensors) -> dict[str, Tensor]:
    """Rename BERT's kind: with or without the prefix of the whole model, with the names of LayerNorm of old and new."""
    word = next(name for name in tensors if name.endswith("embeddings.word_embeddings.weight"))
    prefix = re.escape(word.removesuffix("embeddings.word_embeddings.weight"))
    rules = (
        (r"LayerNorm\.gamma$", "LayerNorm.weight"),
        (r"LayerNorm\.beta$", "LayerNorm.bias"),
        (rf"^{prefix}transformer\.", "encoder.bert.encoder."),  # DistilBERT
        (rf"^{prefix}(?=(embeddings|embeddings_project|encoder|pooler)\.)", "encoder.bert."),
        (r"^(cls\.predictions\.transform|lm_head)\.dense\.", "mlm_head.transform.0."),
        (r"^(cls\.predictions\.transform\.LayerNorm|lm_head\.layer_norm)\.", "mlm_head.transform.2."),
        (r"^(cls\.predictions|lm_head)\.bias$", "mlm_head.bias"),
    )
    # Numbered places, and the decoder, which is the word embeddings over again.
    return _rename(tensors, rules, dropped=r"embeddings\.position_ids$|^(cls\.predictions|lm_head)\.decoder\.")


DETECTORS = (
    r"^(rpn_head|roi_head|bbox_head|mask_head|decode_head|auxiliary_head)\.|^backbone\.(body|slow_path|fast_path)\."
)
"""Names of detection, segmentation and two-stream models, whose frames may be of either convention."""
VISUAL = ("backbone",)
TEXT = ("encoder.bert.embeddings", "encoder.bert.encoder")  # not every model has a pooler
WHOLE = (*VISUAL, "projection", *TEXT, "encoder.visual_embedding")
KINDS = (
    CheckpointFormat("clipbert_mm's", r"^(encoder\.(bert|visual_embedding)|projection)\.", WHOLE, _from_ours, None),
    CheckpointFormat(
        "the paper's release's", r"^(cnn\.feature|transformer\.bert)\.", WHOLE, convert_official_state_dict, CAFFE
    ),
    CheckpointFormat("mmaction2's (TSN)", r"^backbone\.(layer1\.0\.)?conv1\.conv\.", VISUAL, _from_mmaction, PYTORCH),
    CheckpointFormat(
        "detectron2's (grid-feat)",
        r"^(backbone\.(bottom_up\.)?)?(stem\.conv1|res2\.0\.conv1)\.",
        VISUAL,
        _from_detectron,
        CAFFE,
    ),
    CheckpointFormat("mmpretrain's", r"^backbone\.", VISUAL, _from_ours, PYTORCH, DETECTORS),
    CheckpointFormat("torchvision's ResNet", r"^layer1\.0\.conv1\.", VISUAL, _from_torchvision, PYTORCH),
    CheckpointFormat(
        "transformers' (BERT)",
        r"(^|\.)embeddings\.word_embeddings\.weight$",
        TEXT,
        _from_transformers,
        None,
        r"\.(encoder\.(bert|visual_embedding)|projection|transformer\.bert|cnn\.feature)\.",  # a ClipBert within another model
    ),
)
"""The kinds that are known, the first that a name belongs to counts."""
