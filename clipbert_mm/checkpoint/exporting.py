"""Write a model as a folder of Hugging Face: a ClipBert that has the parts of a public family."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from mmengine.registry import DefaultScope

from clipbert_mm.checkpoint.families import Family, read_family
from clipbert_mm.checkpoint.families.blip import blip_question_settings, blip_settings
from clipbert_mm.checkpoint.families.dual_towers import clip_settings, siglip_settings
from clipbert_mm.checkpoint.families.vilt import vilt_settings
from clipbert_mm.checkpoint.image_processor import image_transforms, processor_settings
from clipbert_mm.checkpoint.preprocessing import InputSpec
from clipbert_mm.errors import CheckpointError
from clipbert_mm.fileio import atomic_path
from clipbert_mm.registry import MODELS

FOR_TRAINING = ("hard_negatives.",)
"""How the names of tensors begin that take part in training alone."""
PROCESSORS = {"blip": "Blip", "clip": "CLIP", "siglip": "Siglip", "vilt": "Vilt"}
"""By ``model_type``, how the names of their image processors begin."""


def write_settings(model: Any, answers: Sequence[str] | None = None) -> dict[str, Any]:  # noqa: ANN401
    """Return the ``config.json`` of a model, from which :func:`~clipbert_mm.checkpoint.families.read_family` makes its config.

    Args:
        model: A ClipBert.
        answers: The answers in the order of the head's outputs; None for retrieval.

    Raises:
        CheckpointError: If its parts are of no public family.
    """
    kind = type(model.encoder).__name__
    if kind == "ViltEncoder":
        return vilt_settings(model, answers)
    writers = {
        "CrossEncoder": blip_settings,
        "AnswerEncoder": blip_question_settings,
        "CLIPText": clip_settings,
        "SiglipText": siglip_settings,
    }
    if kind not in writers:
        raise CheckpointError(
            f"Only models with the parts of a public family have a folder of Hugging Face: with the encoder "
            f"{', '.join(writers)} or ViltEncoder. This one has the encoder {kind}."
        )
    return writers[kind](model)


def export_model(
    model: Any,  # noqa: ANN401
    pipeline: Sequence[Mapping[str, Any]],
    tokenizer: Any,  # noqa: ANN401
    folder: str | os.PathLike,
    answers: Sequence[str] | None = None,
) -> tuple[Family, dict[str, Any]]:
    """Write a model's settings, weights, image processor and tokenizer to a new folder, completely or not at all.

    Args:
        model: A ClipBert on the CPU.
        pipeline: Configs of its test transforms.
        tokenizer: Its tokenizer, of transformers.
        folder: The folder, which must not exist.
        answers: As of :func:`write_settings`.

    Returns:
        The family that the folder is of, and its settings.

    Raises:
        CheckpointError: If the folder exists, or the model has parts or transforms that no folder of Hugging Face says.
    """
    from safetensors.torch import save_file

    if os.path.exists(folder):
        raise CheckpointError(f"{os.fspath(folder)} exists. Move it away or name another folder.")
    settings = write_settings(model, answers)
    # The library's CLIP reads the state of one, and its BLIP ends an answer by the other.
    special = dict(eos_token_id=tokenizer.eos_token_id, sep_token_id=tokenizer.sep_token_id)
    if "text_config" in settings:
        settings["text_config"].update({name: token for name, token in special.items() if token is not None})
    family = read_family(settings, "The exported config.json")
    tensors = {name: value for name, value in model.state_dict().items() if not name.startswith(FOR_TRAINING)}
    _check_parts(tensors, family)
    processor = _processor_of(settings["model_type"], pipeline, InputSpec.of_model(model))
    names = family.library_names(tensors)
    with atomic_path(folder, folder=True) as part:
        tokenizer.save_pretrained(part)
        for name, values in {"config.json": settings, "preprocessor_config.json": processor}.items():
            (part / name).write_text(json.dumps(values, indent=2), encoding="utf-8")
        contiguous = {name: value.detach().clone().contiguous() for name, value in names.items()}
        save_file(contiguous, part / "model.safetensors", metadata={"format": "pt"})
    return family, settings


def _check_parts(tensors: Mapping[str, torch.Tensor], family: Family) -> None:
    """Check that the family's model has the very tensors of a model.

    Raises:
        CheckpointError: If it does not.
    """
    frames = dict(type="VideoTextPreprocessor", mean=[0.0] * 3, std=[1.0] * 3, vocab_size=family.vocab_size)
    with DefaultScope.overwrite_default_scope("clipbert_mm"), torch.device("meta"):
        expected = MODELS.build(dict(type="ClipBert", data_preprocessor=frames, **family.model)).state_dict()
    ours, theirs = ({name: tuple(value.shape) for name, value in each.items()} for each in (tensors, expected))
    if ours != theirs:
        name = min(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        raise CheckpointError(
            f"The model is no {family.library_class}: {name} has shape {theirs.get(name, 'none')} there, and "
            f"{ours.get(name, 'none')} in the model. Only models with the heads of their family can be exported: "
            f"{family.model['head']}."
        )


def _processor_of(model_type: str, pipeline: Sequence[Mapping[str, Any]], spec: InputSpec) -> dict[str, Any]:
    """Return the settings of the image processor that equals the transforms of a pipeline.

    Raises:
        CheckpointError: If there is none.
    """
    steps = [dict(step) for step in pipeline if step["type"].startswith("Resize")]
    settings = processor_settings(f"{PROCESSORS[model_type]}ImageProcessor", steps[0], spec) if steps else {}
    if not settings or image_transforms(settings, "preprocessor_config.json")[0] != steps:
        raise CheckpointError(
            f"No image processor of Hugging Face does to frames what the test pipeline does: {steps}. Train and test with "
            "ResizeTo as the public model's pipeline has it."
        )
    return settings
