"""Image processors of Hugging Face, as transforms of ours: BLIP's, CLIP's, SigLIP's and ViLT's, by their settings alone."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from clipbert_mm.checkpoint.hub import find_file
from clipbert_mm.checkpoint.preprocessing import InputSpec
from clipbert_mm.checkpoint.reading import read_settings
from clipbert_mm.errors import CheckpointError, is_count, printable, quoted
from clipbert_mm.trusted import check_pipeline

FILES = ("processor_config.json", "preprocessor_config.json")
"""Files of the settings; the first is of transformers 5, and may hold those of a tokenizer beside them."""
CLIP_SPEC = dict(image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711])
HALF_SPEC = dict(image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5])
DEFAULTS = dict(do_resize=True, resample=3, do_rescale=True, rescale_factor=1 / 255, do_normalize=True)
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}
"""Pillow's numbers of the filters."""
WITHOUT_EFFECT = (
    "image_processor_type",
    "feature_extractor_type",
    "processor_class",
    "_valid_processor_keys",
    "do_convert_rgb",
    "data_format",
    "input_data_format",
    "return_tensors",
    "device",
    "disable_grouping",
    "default_to_square",
    "do_pad",
    "size_divisor",
    "crop_size",
)
"""Settings without effect on RGB frames, or without one where this module does not read them."""
LONGEST = 1333 / 800
"""Largest longer side of ViLT's, in shorter sides."""


@dataclass(frozen=True)
class ImageProcessor:
    """What an image processor does where its file says nothing.

    Args:
        defaults: Its settings.
        is_square: Whether a size that is one number means a square, and not the shorter side.
        crops: Whether it cuts out the center if it is told to.
        divides: Whether it cuts sides to multiples of ``size_divisor``, as ViLT's does.
    """

    defaults: dict[str, Any]
    is_square: bool = False
    crops: bool = False
    divides: bool = False


BLIP = ImageProcessor(DEFAULTS | CLIP_SPEC | dict(size=dict(height=384, width=384)), is_square=True)
CLIP = ImageProcessor(
    DEFAULTS | CLIP_SPEC | dict(size=dict(shortest_edge=224), do_center_crop=True, crop_size=224), crops=True
)
SIGLIP = ImageProcessor(DEFAULTS | HALF_SPEC | dict(size=dict(height=224, width=224)))
VILT = ImageProcessor(DEFAULTS | HALF_SPEC | dict(size=dict(shortest_edge=384), size_divisor=32), divides=True)
PROCESSORS = {
    "BlipImageProcessor": BLIP,
    "CLIPImageProcessor": CLIP,
    "SiglipImageProcessor": SIGLIP,
    "ViltImageProcessor": VILT,
}
"""By ``image_processor_type``, without the endings of faster and older classes."""
BY_MODEL = {"blip": BLIP, "clip": CLIP, "siglip": SIGLIP, "vilt": VILT}
"""By ``model_type`` of the model's config.json."""


def read_image_transforms(
    path_or_name: str, *, revision: str | None = None, model_type: str | None = None
) -> tuple[list[dict[str, Any]], InputSpec]:
    """Read the image processor of a Hugging Face model.

    Args:
        path_or_name: A folder, or a name on the Hugging Face hub.
        revision: Branch, tag or commit on the hub; None for its main branch.
        model_type: As of :func:`image_transforms`.

    Raises:
        CheckpointError: If there is no file of it, or see :func:`image_transforms`.
    """
    path = find_file(path_or_name, *FILES, revision=revision)
    settings = read_settings(path)
    if os.path.basename(path) == FILES[0]:
        if isinstance(settings.get("image_processor"), Mapping):
            return image_transforms(settings["image_processor"], path, model_type=model_type)
        path = find_file(path_or_name, FILES[1], revision=revision)  # which transformers 4 wrote beside it
        settings = read_settings(path)
    return image_transforms(settings, path, model_type=model_type)


def image_transforms(
    settings: Mapping[str, Any], path: str, *, model_type: str | None = None
) -> tuple[list[dict[str, Any]], InputSpec]:
    """Return the transforms of frames, and the normalization, that equal an image processor of Hugging Face.

    Args:
        settings: Contents of a preprocessor_config.json, as transformers 4 or 5 writes it.
        path: The file, for errors.
        model_type: ``model_type`` of the model's config.json, for files that name no processor.

    Returns:
        Configs of the transforms; and mean and standard deviation, in 0 to 255.

    Raises:
        CheckpointError: If the processor is none of :data:`PROCESSORS`, or a setting changes pixels in another way.

    >>> steps, spec = image_transforms({"image_processor_type": "SiglipImageProcessor", "resample": 2}, "a.json")
    >>> steps
    [{'type': 'ResizeTo', 'size': [224, 224], 'interpolation': 'bilinear'}]
    >>> print(spec)
    RGB minus (127.5, 127.5, 127.5) over (127.5, 127.5, 127.5)
    """
    processor = _processor_of(settings, path, model_type)
    given = {key: value for key, value in settings.items() if value is not None}
    values = processor.defaults | given
    for key, value in given.items():
        if key not in processor.defaults and key not in WITHOUT_EFFECT and value is not False:
            _refuse(path, key, value, "no such setting, which may change pixels")
    if is_count(values["size"]) and given.get("default_to_square", processor.is_square) is not processor.is_square:
        _refuse(path, "default_to_square", given["default_to_square"], str(processor.is_square).lower())
    for key in ("do_resize", "do_rescale"):
        if values[key] is not True:
            _refuse(path, key, values[key], "true")
    if type(values["resample"]) is not int or values["resample"] not in INTERPOLATIONS:
        _refuse(path, "resample", values["resample"], "2 (bilinear) or 3 (bicubic)")
    step = dict(type="ResizeTo", **_geometry(processor, values, path), interpolation=INTERPOLATIONS[values["resample"]])
    return check_pipeline([step], printable(path)), _input_spec(values, path)


def processor_settings(kind: str, step: Mapping[str, Any], spec: InputSpec) -> dict[str, Any]:
    """Return the settings of an image processor, from which :func:`image_transforms` makes a transform and a normalization.

    Args:
        kind: Its class, one of :data:`PROCESSORS`.
        step: Config of a ResizeTo.
        spec: The normalization.

    Returns:
        The settings; empty if the transform is another one.
    """
    numbers = {name: number for number, name in INTERPOLATIONS.items()}
    if step["type"] != "ResizeTo" or step.get("interpolation", "bicubic") not in numbers or spec.to_bgr:
        return {}
    size = step.get("size")
    crop, multiple = step.get("crop"), step.get("multiple")
    return dict(
        image_processor_type=kind,
        do_resize=True,
        size=dict(shortest_edge=step["shorter"]) if size is None else dict(height=size[0], width=size[1]),
        resample=numbers[step.get("interpolation", "bicubic")],
        do_rescale=True,
        rescale_factor=1 / 255,
        do_normalize=True,
        image_mean=[value / 255 for value in spec.mean],
        image_std=[value / 255 for value in spec.std],
        **(dict(do_center_crop=crop is not None) if PROCESSORS[kind].crops else {}),
        **({} if crop is None else dict(crop_size=dict(height=crop, width=crop))),
        **({} if multiple is None else dict(size_divisor=multiple)),
    )


def _processor_of(settings: Mapping[str, Any], path: str, model_type: str | None) -> ImageProcessor:
    """Return the image processor that a file names, or else that of the type of model."""
    if "auto_map" in settings:
        raise CheckpointError(f"{printable(path)} is refused: it names code of its own (auto_map), which is never run.")
    key = "image_processor_type" if "image_processor_type" in settings else "feature_extractor_type"
    name = settings.get(key)
    if name is None and model_type in BY_MODEL:
        return BY_MODEL[model_type]
    bare = name.removesuffix("Fast").removesuffix("Pil") if isinstance(name, str) else name
    if isinstance(bare, str) and bare.endswith("FeatureExtractor"):  # its name before transformers 4.26
        bare = bare.removesuffix("FeatureExtractor") + "ImageProcessor"
    if not isinstance(bare, str) or bare not in PROCESSORS:
        more = ""
        if bare == "Siglip2ImageProcessor":
            more = (
                ". NaFlex models take images of any shape; take a model of a fixed resolution, such as "
                "google/siglip2-base-patch16-224"
            )
        _refuse(path, key, name, f"one of {', '.join(PROCESSORS)}{more}")
    return PROCESSORS[bare]


def _geometry(processor: ImageProcessor, values: Mapping[str, Any], path: str) -> dict[str, Any]:
    """Return the options of ResizeTo that say which shape frames get."""
    size = _sides("size", values["size"], "height" if processor.is_square else "shortest_edge", path)
    if processor.divides:
        shorter, divisor = size.get("shortest_edge"), values["size_divisor"]
        if shorter is None:
            _refuse(path, "size", values["size"], "a shortest_edge")
        if not is_count(divisor) or divisor > shorter:
            _refuse(path, "size_divisor", divisor, f"a number from 1 to {shorter}")
        return dict(shorter=shorter, longest=int(LONGEST * shorter), multiple=divisor)
    do_crop = values.get("do_center_crop", False)
    if not isinstance(do_crop, bool) or (do_crop and not processor.crops):
        _refuse(path, "do_center_crop", do_crop, "true or false" if processor.crops else "false")
    crop = _sides("crop_size", values["crop_size"], "height", path) if do_crop else None
    if "shortest_edge" not in size:
        if crop not in (None, size):
            _refuse(path, "crop_size", values["crop_size"], f"the height and width of size, {quoted(dict(size))}")
        return dict(size=[size["height"], size["width"]])
    shorter = size["shortest_edge"]
    if crop is None:
        _refuse(
            path, "size", values["size"], "a height and a width, or a center crop, so that all frames have one shape"
        )
    side = crop.get("height")
    if side is None or side != crop["width"] or side > shorter:
        _refuse(
            path, "crop_size", values["crop_size"], f"a square of at most {shorter} pixels, the shortest_edge of size"
        )
    return dict(shorter=shorter, crop=side)


def _sides(key: str, value: Any, single: str, path: str) -> dict[str, int]:  # noqa: ANN401
    """Return a size as its height and width, or its shortest edge.

    Args:
        key: The setting.
        value: What it is in the file.
        single: What one number is: the "height", and the width, or the "shortest_edge".
        path: The file.
    """
    if is_count(value):
        return dict(height=value, width=value) if single == "height" else {single: value}
    sides = {name: side for name, side in value.items() if side is not None} if isinstance(value, Mapping) else {}
    if set(sides) not in ({"height", "width"}, {"shortest_edge"}) or not all(map(is_count, sides.values())):
        _refuse(path, key, value, "a number of pixels, a height and a width, or a shortest_edge")
    return sides


def _input_spec(values: Mapping[str, Any], path: str) -> InputSpec:
    """Return the normalization, in 0 to 255."""
    factor = values["rescale_factor"]
    if (
        isinstance(factor, bool)
        or not isinstance(factor, (int, float))
        or not math.isclose(factor, 1 / 255, rel_tol=1e-6)
    ):
        _refuse(path, "rescale_factor", factor, "1/255 (0.00392156862745098)")
    if not isinstance(values["do_normalize"], bool):
        _refuse(path, "do_normalize", values["do_normalize"], "true or false")
    if not values["do_normalize"]:
        return InputSpec(mean=(0.0,) * 3, std=(255.0,) * 3, to_bgr=False, style=None)
    for key in ("image_mean", "image_std"):
        numbers = values[key]
        is_valid = isinstance(numbers, (list, tuple)) and len(numbers) == 3
        if not is_valid or not all(type(each) in (int, float) and math.isfinite(each) for each in numbers):
            _refuse(path, key, numbers, "three numbers")
    if min(values["image_std"]) <= 0:
        _refuse(path, "image_std", values["image_std"], "three numbers above 0")
    mean, std = (tuple(255.0 * each for each in values[key]) for key in ("image_mean", "image_std"))
    return InputSpec(mean=mean, std=std, to_bgr=False, style=None)


def _refuse(path: str, key: str, value: object, expected: str) -> NoReturn:
    raise CheckpointError(f"{printable(path)} is refused: its {quoted(key)} is {quoted(value)}; expected {expected}.")
