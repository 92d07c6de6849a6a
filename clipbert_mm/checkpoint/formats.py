"""Detect which library wrote a checkpoint by the names of its tensors, and rename them to ours (Table 5 of the paper)."""

import os
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clipbert_mm.checkpoint.families.blip import PREFIXES as BLIP_PREFIXES
from clipbert_mm.checkpoint.families.blip import QUESTION_PREFIXES
from clipbert_mm.checkpoint.families.dual_towers import PREFIXES as TOWER_PREFIXES
from clipbert_mm.checkpoint.families.family import replace_prefixes
from clipbert_mm.checkpoint.families.perception_encoder import PREFIXES as PERCEPTION_PREFIXES
from clipbert_mm.checkpoint.families.vilt import rename_vilt
from clipbert_mm.checkpoint.hub import NAME, find_file
from clipbert_mm.checkpoint.image_processor import FILES as PROCESSOR_FILES
from clipbert_mm.checkpoint.image_processor import read_image_transforms
from clipbert_mm.checkpoint.official import convert_official_state_dict
from clipbert_mm.checkpoint.open_clip_files import SETTINGS as OPEN_CLIP
from clipbert_mm.checkpoint.open_clip_files import open_clip_transforms
from clipbert_mm.checkpoint.preprocessing import CAFFE, HALF, OPENAI, PYTORCH, UNIFORMER, X3D, InputSpec
from clipbert_mm.checkpoint.reading import read_checkpoint, read_settings
from clipbert_mm.deprecation import warn_renamed
from clipbert_mm.errors import CheckpointError, printable, quoted

MAX_HEADS = 10_000
"""Most attention heads that a checkpoint may name."""
Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class CheckpointFormat:
    """A format of checkpoints.

    Args:
        title: Name of the format, for reports.
        pattern: Regular expression that matches a tensor's name in this format, and none in the formats after it.
        parts: Modules of a ClipBert that such a checkpoint fills completely.
        convert: Renames its tensors to ours.
        input_spec: How its visual weights expect frames; None if it has none, or if the file says it itself.
        excluded: Regular expression of names that this format never has; None if there are none.
        names_stay: Whether a model may also have a backbone of that library, under the library's own names.
        has_processor: Whether a folder of it has a file that says how the frames are normalized, which goes before
            ``input_spec``.
    """

    title: str
    pattern: str
    parts: tuple[str, ...]
    convert: Callable[[Tensors], dict[str, Tensor]]
    input_spec: InputSpec | None
    excluded: str | None = None
    names_stay: bool = False
    has_processor: bool = False


@dataclass(frozen=True)
class LoadedCheckpoint:
    """A checkpoint that was read, with its tensors renamed to ours.

    Args:
        path: The file, folder or name.
        title: Name of its format.
        parts: Modules of a ClipBert that it fills completely.
        input_spec: How its visual weights expect frames; None if it has no visual weights.
        tensors: The tensors by our names.
        rest: The other entries of the file; for a Hugging Face folder, the number of ``attention_heads``.
        as_written: The tensors by their names in the file, if a model may have a backbone of that library.
    """

    path: str
    title: str
    parts: tuple[str, ...]
    input_spec: InputSpec | None
    tensors: dict[str, Tensor]
    rest: dict[str, Any] = field(default_factory=dict)
    as_written: dict[str, Tensor] = field(default_factory=dict)

    def named_as(self, names: Collection[str]) -> "LoadedCheckpoint":
        """Rename the visual weights as a model names them, if another of their possible names fits it better.

        A ClipEncoder has its backbone one level deeper, and a backbone of mmaction2 has mmaction2's own names.

        Args:
            names: Names of the model's tensors.
        """
        candidates = [
            _rename(tensors, [(r"^backbone\.", prefix)])
            for tensors in (self.tensors, self.as_written)
            for prefix in ("backbone.", "backbone.backbone.")
        ]
        fitting = [sum(name in names for name in tensors) for tensors in candidates]
        best = fitting.index(max(fitting))  # the first of several
        return replace(self, tensors=candidates[best]) if best else self

    @property
    def convention(self) -> InputSpec | None:
        """The old name of ``input_spec``."""
        warn_renamed("LoadedCheckpoint.convention", "input_spec")
        return self.input_spec


def read_source(
    path: str, map_location: str | torch.device = "cpu", *, mmap: bool = True, revision: str | None = None
) -> LoadedCheckpoint:
    """Read a checkpoint of any known format; arguments as of :func:`~clipbert_mm.checkpoint.reading.read_checkpoint`.

    A name on the Hugging Face hub may end with ``@revision``.

    Raises:
        CheckpointError: If it cannot be read, or its format is not known.
    """
    name = path
    if revision is None and not os.path.exists(path) and NAME.fullmatch(path.partition("@")[0]):
        name, _, given = path.partition("@")
        revision = given or None
    rest = read_checkpoint(name, map_location, mmap=mmap, revision=revision)
    tensors = rest.pop("state_dict")
    checkpoint_format = detect_format(tensors)
    if checkpoint_format is None:
        raise CheckpointError(
            f"{printable(path)} has tensors such as {', '.join(name[:60] for name in list(tensors)[:3])}, names of no known "
            f"format: {'; '.join(known.title for known in FORMATS)}. Rename them to the model's names, or use another file."
        )
    converted = checkpoint_format.convert(tensors)
    saved_spec = rest.get("convention")
    input_spec = checkpoint_format.input_spec if saved_spec is None else _input_spec(saved_spec, path)
    heads = rest.get("attention_heads")
    if heads is not None and (type(heads) is not int or not 0 < heads <= MAX_HEADS):
        raise CheckpointError(
            f"{printable(path)} is damaged: its number of attention heads is {quoted(heads)}. Take another copy."
        )
    if checkpoint_format.has_processor and saved_spec is None and not os.path.isfile(name):
        input_spec = _processor_spec(name, revision) or input_spec
    if rest.get("__author__") == "torchvision":  # detectron2's tool converts only the names
        input_spec = PYTORCH
    parts = tuple(part for part in checkpoint_format.parts if any(name.startswith(f"{part}.") for name in converted))
    as_written = dict(tensors) if checkpoint_format.names_stay else {}
    return LoadedCheckpoint(path, checkpoint_format.title, parts, input_spec, converted, rest, as_written)


def _processor_spec(name: str, revision: str | None) -> InputSpec | None:
    """Return how the image processor of a Hugging Face model normalizes frames; None if the model comes without one."""
    try:
        path = find_file(name, *PROCESSOR_FILES, OPEN_CLIP, revision=revision)
    except CheckpointError:  # such as a folder of weights alone
        return None
    if os.path.basename(path) == OPEN_CLIP:
        return open_clip_transforms(read_settings(path), path)[1]
    return read_image_transforms(name, revision=revision)[1]


def without_replaced_backbones(sources: Sequence[LoadedCheckpoint], names: Collection[str]) -> list[LoadedCheckpoint]:
    """Leave foreign backbones out of checkpoints before one that fills the backbone, and with them how they expect frames.

    So a ClipBert lends its transformer to a model with another backbone.

    Args:
        sources: The checkpoints; where several have the same tensor, the last one counts.
        names: Names of the model's tensors; a backbone is foreign if none of its names is among them.
    """
    last = max((i for i, source in enumerate(sources) if "backbone" in source.parts), default=0)
    kept = []
    for source in sources[:last]:
        if any(name in names for name in source.tensors if name.startswith("backbone.")):
            kept.append(source)
            continue
        tensors = {name: tensor for name, tensor in source.tensors.items() if not name.startswith("backbone.")}
        parts = tuple(part for part in source.parts if part != "backbone")
        kept.append(replace(source, tensors=tensors, parts=parts, input_spec=None))
    return [*kept, *sources[last:]]


def _input_spec(saved: Any, path: str) -> InputSpec:  # noqa: ANN401
    try:
        return InputSpec.from_dict(saved)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{printable(path)} is damaged: its input specification is {quoted(saved)}. Take another copy."
        ) from error


def detect_format(names: Iterable[str]) -> CheckpointFormat | None:
    """Return the format of a checkpoint by its tensors' names; None if it is not known."""
    all_names = list(names)

    def has(pattern: str | None) -> bool:
        return pattern is not None and any(re.search(pattern, name) for name in all_names)

    return next((each for each in FORMATS if has(each.pattern) and not has(each.excluded)), None)


def _rename(
    tensors: Tensors, rules: Iterable[tuple[str, str]], dropped: str = r"num_batches_tracked$"
) -> dict[str, Tensor]:
    """Apply the patterns and replacements in order to every name that is not dropped."""
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
    """Rename TSN's ResNet to mmpretrain's names; other backbones keep theirs, since only mmaction2 has them."""
    blocks = tensors.get("backbone.layer1.0.conv1.conv.weight")
    if blocks is None or blocks.ndim == 5:
        return _rename(tensors, ())
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
    """Rename to the paper's release, whose visual names are detectron2's after a prefix."""
    # The C4 models have their last stage in the box head; ImageNet files have no prefix.
    prefix = r"^(?:backbone\.bottom_up\.|backbone\.|roi_heads\.(?=res5\.))?(?=stem\.|res[2-5]\.)"
    # A feature pyramid is under "backbone" too, and does not belong to the ResNet.
    rules = ((prefix, "cnn.feature.backbone."), (r"^backbone\.(?=fpn_)", ""))
    return convert_official_state_dict(_rename(tensors, rules))


def _from_transformers(tensors: Tensors) -> dict[str, Tensor]:
    """Rename BERT-like models: with or without the prefix of the whole model, with old or new names of LayerNorm."""
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
    # Position ids, and the decoder, whose weights are the word embeddings.
    return _rename(tensors, rules, dropped=r"embeddings\.position_ids$|^(cls\.predictions|lm_head)\.decoder\.")


def _from_public(prefixes: Mapping[str, str], tensors: Tensors) -> dict[str, Tensor]:
    """Rename a public image-text model's, without position ids, and decoders whose weights are the word embeddings."""
    return replace_prefixes(
        _rename(tensors, (), dropped=r"embeddings\.position_ids$|\.cls\.predictions\.decoder\."), prefixes
    )


DETECTORS = r"^(rpn_head|roi_head|bbox_head|mask_head|decode_head|auxiliary_head)\.|^backbone\.body\."
"""Names of detection and segmentation models, whose input specification their names do not tell."""
VISUAL = ("backbone",)
TEXT = ("encoder.bert.embeddings", "encoder.bert.encoder")  # not every model has a pooler
TOWERS = (*VISUAL, "encoder.text", "encoder.text_projection")
ALL_PARTS = (*VISUAL, "projection", *TEXT, "encoder.visual_embedding", *TOWERS[1:], "encoder.transformer")
BLIP = (*VISUAL, "encoder.text")
VILT = (*VISUAL, "encoder.text_embedding", "encoder.visual_embedding", "encoder.transformer")
FORMATS = (
    CheckpointFormat(
        "clipbert_mm's", r"^(encoder\.(bert|text|questions|visual_embedding)|projection)\.", ALL_PARTS, _from_ours, None
    ),
    CheckpointFormat(
        "the paper's release's", r"^(cnn\.feature|transformer\.bert)\.", ALL_PARTS, convert_official_state_dict, CAFFE
    ),
    CheckpointFormat(
        "transformers' BLIP for questions",
        r"^text_decoder\.bert\.",
        (*VISUAL, "encoder.questions", "encoder.decoder"),
        partial(_from_public, QUESTION_PREFIXES),
        OPENAI,
    ),
    CheckpointFormat(
        "transformers' BLIP",
        r"^text_encoder\.encoder\.layer\.\d+\.crossattention\.",
        BLIP,
        partial(_from_public, BLIP_PREFIXES),
        OPENAI,
        has_processor=True,
    ),
    CheckpointFormat(
        "transformers' ViLT",
        r"^vilt\.embeddings\.patch_embeddings\.",
        VILT,
        rename_vilt,
        HALF,
        has_processor=True,
    ),
    CheckpointFormat("mmaction2's (X3D)", r"^backbone\.conv1_s\.", VISUAL, _from_mmaction, X3D, names_stay=True),
    CheckpointFormat(
        "mmaction2's (UniFormer)", r"^backbone\.patch_embed1\.", VISUAL, _from_mmaction, UNIFORMER, names_stay=True
    ),
    CheckpointFormat(
        "mmaction2's",
        r"^cls_head\.|^backbone\.((layer1\.0\.)?conv1\.conv|slow_path|fast_path)\.",
        VISUAL,
        _from_mmaction,
        PYTORCH,
        names_stay=True,
    ),
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
        "open_clip's PE-Core",
        r"^visual\.trunk\.attn_pool\.",
        TOWERS,
        partial(_from_public, PERCEPTION_PREFIXES),
        None,
        has_processor=True,
    ),
    # The frames of both are as their preprocessor_config.json says. Other models have word embeddings by another name.
    CheckpointFormat(
        "transformers' SigLIP",
        r"^text_model\.head\.weight$",
        TOWERS,
        partial(_from_public, TOWER_PREFIXES),
        None,
        has_processor=True,
    ),
    CheckpointFormat(
        "transformers' CLIP",
        r"^text_model\.embeddings\.token_embedding\.weight$",
        TOWERS,
        partial(_from_public, TOWER_PREFIXES),
        None,
        r"^(mit|prompts_generator)\.",  # X-CLIP
        has_processor=True,
    ),
    CheckpointFormat(
        "transformers' (BERT)",
        r"(^|\.)embeddings\.word_embeddings\.weight$",
        TEXT,
        _from_transformers,
        None,
        r"\.(encoder\.(bert|visual_embedding)|projection|transformer\.bert|cnn\.feature)\.",  # a ClipBert inside another model
    ),
)
"""The known formats; the first whose pattern matches a name counts."""
