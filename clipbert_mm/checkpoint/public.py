"""Public image-text models of Hugging Face and of open_clip, by folder or by name on the hub, as configs of ours."""

import os
import re
from dataclasses import dataclass
from typing import Any

from clipbert_mm.checkpoint.families import Family, perception_family, read_family
from clipbert_mm.checkpoint.formats import LoadedCheckpoint, read_source
from clipbert_mm.checkpoint.hub import NAME, commit_of, find_file, tokenizer_folder
from clipbert_mm.checkpoint.image_processor import read_image_transforms
from clipbert_mm.checkpoint.open_clip_files import SETTINGS as OPEN_CLIP
from clipbert_mm.checkpoint.open_clip_files import open_clip_tokenizer, open_clip_transforms
from clipbert_mm.checkpoint.reading import find_files, read_settings
from clipbert_mm.errors import CheckpointError, printable

SETTINGS = "config.json"
SUFFIX = re.compile(r"\.(pth?|ckpt|pkl|bin|py|safetensors)$")


@dataclass(frozen=True)
class PublicModel:
    """A public model, ready to be built.

    Args:
        source: Its folder, or its name with the commit that was used: "Salesforce/blip-itm-base-coco@1ef8d4b...".
        settings: Contents of its ``config.json``, or ``open_clip_config.json``.
        family: Its family.
        model: Config of the ClipBert.
        pipeline: Configs of the test transforms.
        weights: Its weights, with our names.
        files: The files of the weights.
    """

    source: str
    settings: dict[str, Any]
    family: Family
    model: dict[str, Any]
    pipeline: list[dict[str, Any]]
    weights: LoadedCheckpoint
    files: list[str]


def is_public(source: str) -> bool:
    """Whether a source of a model is a folder of Hugging Face or open_clip, or may be a name on the hub (with ``@revision``).

    >>> is_public("Salesforce/blip-itm-base-coco"), is_public("work_dirs/mine/epoch_4.pth"), is_public("epoch_4.pth")
    (True, False, False)
    """
    if os.path.exists(source):
        return any(os.path.isfile(os.path.join(source, name)) for name in (SETTINGS, OPEN_CLIP))
    name = source.partition("@")[0]
    return "/" in name and NAME.fullmatch(name) is not None and SUFFIX.search(name) is None


def read_public(source: str, revision: str | None = None) -> PublicModel:
    """Read a public model; no code that comes with it is run.

    Args:
        source: A folder that ``save_pretrained`` or open_clip wrote, or a name on the hub, with or without ``@revision``.
        revision: Branch, tag or commit on the hub; None for that of ``source``, or the main branch.

    Raises:
        CheckpointError: If it cannot be found, read or used; or both revisions are given.
    """
    name, at, own = (source, "", "") if os.path.isdir(source) else source.partition("@")
    if at and revision is not None:
        raise CheckpointError(
            f"{printable(source)} names a revision, and so does revision={revision!r}. Give one of them."
        )
    path = find_file(name, SETTINGS, OPEN_CLIP, revision=own or revision)
    commit = commit_of(path)
    # From here on, all files are of one commit.
    revision = commit or own or revision
    settings = read_settings(path)
    if os.path.basename(path) == OPEN_CLIP:
        family = perception_family(settings, path)
        resize, spec = open_clip_transforms(settings, path)
        tokenizer = open_clip_tokenizer()  # which open_clip takes too, whatever files of a tokenizer are there
    else:
        family = read_family(settings, path)
        resize, spec = read_image_transforms(name, revision=revision, model_type=settings.get("model_type"))
        tokenizer = tokenizer_folder(name, revision=revision)
    mean, std = list(spec.mean), list(spec.std)
    frames = dict(type="VideoTextPreprocessor", mean=mean, std=std, vocab_size=family.vocab_size)
    frames |= dict(mask_padding=True) if family.mask_padding else {}
    return PublicModel(
        source=name if commit is None else f"{name}@{commit}",
        settings=settings,
        family=family,
        model=dict(type="ClipBert", data_preprocessor=frames, **family.model),
        pipeline=[
            dict(type="OpenVideo"),
            dict(type="SampleClips", **family.clips),
            dict(type="DecodeClips"),
            *resize,
            _tokenize(family, tokenizer),
            dict(type="PackInputs"),
        ],
        weights=read_source(name, revision=revision),
        files=find_files(name, revision),
    )


def _tokenize(family: Family, folder: str) -> dict[str, Any]:
    """Return the config of Tokenize; SigLIP's first tokenizer, other than that of SigLIP 2, removes punctuation."""
    path = os.path.join(folder, "tokenizer_config.json")
    kind = read_settings(path).get("tokenizer_class") if os.path.isfile(path) else None
    stripping = dict(strip_punctuation=True) if kind == "SiglipTokenizer" else {}
    return dict(type="Tokenize", tokenizer=folder, **family.tokenize, **stripping)
