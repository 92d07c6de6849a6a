"""The metadata of a checkpoint, with which the file alone is enough to test the model or to search with it."""

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from clipbert_mm.checkpoint.reading import read_checkpoint
from clipbert_mm.errors import CheckpointError, printable, quoted
from clipbert_mm.fileio import atomic_write
from clipbert_mm.registry import class_name, type_name, without_scope
from clipbert_mm.trusted import TEXT_MODELS, check_model, check_pipeline, check_text_file

KEY = "contents"
"""The key of the metadata in a checkpoint."""
TRAINING_ONLY = (
    "init_cfg",
    "frozen",
    "frozen_stages",
    "dropout",
    "pixel_sampling",
    "norm_eval",
    "mlm_head",
    "drop_path_rate",
)
"""Settings of a model that matter only for training."""


@dataclass(frozen=True)
class CheckpointMetadata:
    """The metadata of a checkpoint of clipbert_mm.

    Args:
        version: Version of clipbert_mm that wrote it.
        task: What the head was trained for: "retrieval", "open-ended questions", "multiple choice", ...
        model: Config of the model, after its input and strides were adapted to the weights that training started from.
        pipelines: Configs of the transforms of each split in the config ("train", "val", "test").
        text_files: The tokenizer's files by name and, if the encoder's architecture was a folder or a name, its
            ``config.json``.
        answers: The answers by index, for questions with an answer vocabulary; else None.

    Example:
        >>> metadata = read_metadata("work_dirs/retrieval/epoch_4.pth")  # doctest: +SKIP
        >>> folder = metadata.write_text_files("gallery/text")  # doctest: +SKIP
        >>> source = read_source("work_dirs/retrieval/epoch_4.pth")  # doctest: +SKIP
        >>> model = build_model(metadata.model_config(folder), source.tensors, source.path)  # doctest: +SKIP
        >>> pipeline = Compose(metadata.pipeline(folder))  # doctest: +SKIP
    """

    version: str
    task: str
    model: dict[str, Any]
    pipelines: dict[str, list[dict[str, Any]]]
    text_files: dict[str, str]
    answers: list[str] | None

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for a checkpoint."""
        return asdict(self)

    def write_text_files(self, folder: str | os.PathLike) -> str:
        """Write the tokenizer's files to a folder that :class:`~clipbert_mm.datasets.transforms.Tokenize` takes.

        Returns:
            The folder.

        Raises:
            CheckpointError: If the training had no tokenizer, or a file does not belong to a tokenizer.
        """
        if not self.text_files:
            raise CheckpointError("The checkpoint has no tokenizer: its training used none.")
        for name, text in self.text_files.items():
            check_text_file(name, text, "The checkpoint")
        for name, text in self.text_files.items():
            with atomic_write(Path(folder) / name) as file:
                file.write(text)
        return os.fspath(folder)

    def pipeline(self, text_folder: str) -> list[dict[str, Any]]:
        """Return the transforms for testing, or those for validation or training if there are none.

        Args:
            text_folder: Folder that :meth:`write_text_files` wrote.

        Raises:
            CheckpointError: If the training had no pipeline, or the pipeline names what a file may not name.
        """
        for split in ("test", "val", "train"):
            if self.pipelines.get(split):
                steps = [
                    {key: value for key, value in step.items() if key != "train_on"} for step in self.pipelines[split]
                ]
                for step in steps:
                    if "tokenizer" in step:
                        step["tokenizer"] = text_folder
                return check_pipeline(steps, "The pipeline of the checkpoint")
        raise CheckpointError("The checkpoint has no pipeline: its training had none.")

    def model_config(self, text_folder: str) -> dict[str, Any]:
        """Return the config of the model, without the weights that its training started from.

        Args:
            text_folder: Folder that :meth:`write_text_files` wrote; an architecture that was a folder is read from it.

        Raises:
            CheckpointError: If the config names what a file may not name.
        """
        encoder = self.model.get("encoder")
        if not isinstance(encoder, Mapping):
            raise CheckpointError(
                f"The model of the checkpoint is damaged: expected a config with an encoder, got {quoted(self.model)}."
            )
        architecture = text_folder if "config.json" in self.text_files else encoder.get("architecture")
        if architecture is None:
            return check_model(self.model, "The model of the checkpoint")
        if architecture not in (text_folder, *TEXT_MODELS):
            raise CheckpointError(
                f"The model of the checkpoint is refused: the architecture of its encoder is {quoted(architecture)}, without a "
                f"config.json. Expected one of {', '.join(TEXT_MODELS)}."
            )
        model = check_model({**self.model, "encoder": {**encoder, "architecture": ""}}, "The model of the checkpoint")
        model["encoder"]["architecture"] = architecture
        return model


def metadata_of(checkpoint: Mapping[str, Any], path: str) -> CheckpointMetadata:
    """Return the metadata of a checkpoint that was read.

    Raises:
        CheckpointError: If it has none, or the metadata is damaged.
    """
    saved = checkpoint.get(KEY)
    if saved is None:
        raise CheckpointError(
            f"{path} does not say how its model is built: another library wrote it, or a release that saved no metadata. Give "
            "its config (.py) and the checkpoint as its weights."
        )
    if not isinstance(saved, Mapping):
        raise _damaged(path, f"is a {type(saved).__name__}, not a dict")
    for name in CheckpointMetadata.__dataclass_fields__:
        if name not in saved:
            raise _damaged(path, f"lacks '{name}'")
        if not _is_valid(name, saved[name]):
            raise _damaged(path, f"has {quoted(saved[name])} as '{name}'")
    return CheckpointMetadata(**{name: saved[name] for name in CheckpointMetadata.__dataclass_fields__})


def _damaged(path: str, how: str) -> CheckpointError:
    return CheckpointError(
        f"{printable(path)} is damaged: its metadata {how}. Take another copy, or give its config (.py) with the checkpoint as "
        "weights."
    )


def _is_valid(name: str, value: Any) -> bool:  # noqa: ANN401
    """Return whether a field of the metadata has the type with which it is written."""
    if name == "model":
        return isinstance(value, Mapping)
    if name == "pipelines":
        if not isinstance(value, Mapping) or not all(isinstance(each, (list, tuple)) for each in value.values()):
            return False
        steps = [step for pipeline in value.values() for step in pipeline]
        return all(isinstance(step, Mapping) and isinstance(step.get("type"), str) for step in steps)
    if name == "text_files":
        return isinstance(value, Mapping) and all(isinstance(text, str) for text in value.values())
    if name == "answers":
        return value is None or (isinstance(value, (list, tuple)) and all(isinstance(each, str) for each in value))
    return isinstance(value, str)


def read_metadata(path: str | os.PathLike) -> CheckpointMetadata:
    """Read the metadata of a checkpoint; the weights stay on the disk, and no code from the file is run.

    Args:
        path: File that a training of clipbert_mm wrote.

    Raises:
        CheckpointError: If it cannot be read, or has no metadata.
    """
    return metadata_of(read_checkpoint(os.fspath(path)), os.fspath(path))


def plain(value: Any) -> Any:  # noqa: ANN401
    """Return a config's value as dicts, lists and plain values, which weights-only loading accepts; other values as text.

    A class, as in MMEngine's new-style configs, becomes the name by which other configs name it. Our scope is left out, in the
    names of classes and where MMEngine adds it to what is inherited from ``clipbert_mm::NAME``.

    >>> plain({"type": "clipbert_mm.ResizePad", "size": (2, 2), "folder": Path("data")})
    {'type': 'ResizePad', 'size': (2, 2), 'folder': 'data'}
    """
    if isinstance(value, type):
        return class_name(value)
    if isinstance(value, Mapping):
        own = {str(key): plain(each) for key, each in value.items() if (key, each) != ("_scope_", "clipbert_mm")}
        return own | ({"type": without_scope(own["type"])} if isinstance(own.get("type"), str) else {})
    if isinstance(value, (list, tuple)):
        return type(value)(plain(each) for each in value)
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def differences(saved: CheckpointMetadata, now: CheckpointMetadata) -> tuple[list[str], list[str]]:
    """List where a checkpoint and the config that it is tested with disagree.

    Args:
        saved: Metadata of the checkpoint.
        now: Metadata of the config.

    Returns:
        Differences that make the results meaningless, and those that may be intended, which are settings of the model that its
        tensors do not show, and settings of the clips.
    """
    errors = []
    head = str(now.model.get("head", {}).get("type")).rpartition(".")[2]
    if saved.task not in (now.task, head):  # heads that did not say a task were saved by their name
        errors.append(f"task: checkpoint {saved.task[:60]}, config {now.task}")
    if None not in (saved.answers, now.answers) and saved.answers != now.answers:
        index = next(
            (
                i
                for i, pair in enumerate(zip(saved.answers or (), now.answers or (), strict=False))
                if pair[0] != pair[1]
            ),
            min(len(saved.answers or ()), len(now.answers or ())),
        )
        before, after = ((answers or [])[index : index + 1] or ["none"] for answers in (saved.answers, now.answers))
        errors.append(f"answer {index}: checkpoint {quoted(before[0])}, config {quoted(after[0])}")
    warnings = _compare("model", saved.model, now.model)
    steps, steps_now = (_steps(metadata.pipelines.get("test")) for metadata in (saved, now))
    for name in steps.keys() & steps_now.keys():
        warnings += _compare(name, steps[name], steps_now[name])
    return errors, sorted(warnings)


def _steps(pipeline: list[dict[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Return the settings of each transform that scores depend on, by its type."""
    hidden = (
        "type",
        "tokenizer",
        "train_on",
        "vocab_size",
        "num_threads",
        "backend",
    )  # the tokenizer is compared by its vocabulary
    return {
        type_name(step): {key: value for key, value in step.items() if key not in hidden} for step in pipeline or ()
    }


def _is_rounded(saved: Any, now: Any) -> bool:  # noqa: ANN401
    """Whether two numbers, or two lists of numbers, are the same but for a rounding to float32."""
    if isinstance(saved, (list, tuple)) and isinstance(now, (list, tuple)):
        return len(saved) == len(now) and all(map(_is_rounded, saved, now))
    return isinstance(saved, float) and isinstance(now, float) and math.isclose(saved, now, rel_tol=1e-6)


def _compare(name: str, saved: Any, now: Any) -> list[str]:  # noqa: ANN401
    if isinstance(saved, Mapping) and isinstance(now, Mapping):
        keys = [key for key in {**saved, **now} if key not in TRAINING_ONLY]
        return [line for key in keys for line in _compare(f"{name}.{key}", saved.get(key), now.get(key))]
    if name.endswith(".type"):  # earlier releases saved the scope
        saved, now = (without_scope(each) if isinstance(each, str) else each for each in (saved, now))
    if isinstance(saved, (list, tuple)) and isinstance(now, (list, tuple)) and list(saved) == list(now):
        return []
    if saved == now or name == "model.encoder.architecture" or _is_rounded(saved, now):
        return []
    return [f"{name}: checkpoint {quoted(saved)}, config {quoted(now)}"]
