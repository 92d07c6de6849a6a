"""Values that a config reads from the variables and files it names, so that nobody has to keep them in agreement by hand."""

import argparse
import os
from typing import Any

from clipbert_mm.checkpoint.metadata import KEY, metadata_of
from clipbert_mm.checkpoint.reading import read_checkpoint
from clipbert_mm.command_options import at_least
from clipbert_mm.errors import CheckpointError, OptionError, printable, quoted
from clipbert_mm.structures import read_answers
from clipbert_mm.trusted import check_text_model

NONE = "none"
"""What a variable of a config is if it names no file."""
TO_TRAIN_ON = ("train", "pretrain", "qa_train", "choice_train")
"""Names of the files of captions and questions to train on in a folder of one's own data."""
SETTINGS = (
    "architecture",
    "vocab_size",
    "hidden_size",
    "num_layers",
    "num_heads",
    "intermediate_size",
    "max_text_length",
    "initializer_range",
)
"""Settings of a joint encoder that its weights are for."""


def whole_number(variable: str, value: str) -> int:
    """Return the number that a variable of a config is set to.

    Args:
        variable: Name of the variable in the environment, for the error.
        value: Its value, or what the config has for it, as text.

    Raises:
        OptionError: If it is no whole number of 1 or more.

    >>> whole_number("CLIPBERT_EPOCHS", "10")
    10
    """
    try:
        return at_least(1)(value)
    except argparse.ArgumentTypeError as error:
        raise OptionError(f"{variable}: {error}.") from None


def text_model(bert: str, weights: str, **sizes: Any) -> dict[str, Any]:  # noqa: ANN401
    """Return the settings of the joint encoder that follow from the weights that a training starts from.

    Widths and vocabulary of the other modules follow from its ``hidden_size`` and ``vocab_size``.

    Args:
        bert: A text model, as a Hugging Face folder or name; "none" for none.
        weights: A checkpoint; if a training of clipbert_mm wrote it, its text model counts where ``bert`` is "none".
        sizes: Settings of the text model if neither says them.

    Returns:
        Keyword arguments of :class:`~clipbert_mm.models.JointEncoder`, ``hidden_size`` and ``vocab_size`` among them.

    Raises:
        CheckpointError: If the text model is none that the joint encoder takes, or the checkpoint is damaged.
    """
    if bert != NONE:
        from transformers import AutoConfig, PretrainedConfig

        try:
            settings, _ = PretrainedConfig.get_config_dict(bert)
            check_text_model(settings, f"The text model {printable(bert)}")
            config = AutoConfig.from_pretrained(bert, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"There is no text model {printable(bert)}: expected a folder with a config.json, or a name that Hugging Face "
                f"knows, got {quoted(str(error))}. Set CLIPBERT_BERT."
            ) from error
        return dict(architecture=bert, vocab_size=config.vocab_size, hidden_size=config.hidden_size)
    if weights != NONE and os.path.exists(weights):
        checkpoint = read_checkpoint(weights)
        if KEY in checkpoint:
            encoder = metadata_of(checkpoint, weights).model["encoder"]
            widths = {name: sizes[name] for name in ("vocab_size", "hidden_size")}
            return widths | {name: encoder[name] for name in SETTINGS if name in encoder}
    return sizes


def vocabulary(data_root: str, bert: str) -> dict[str, Any]:
    """Return which vocabulary a model for one's own data reads.

    Args:
        data_root: The data folder.
        bert: A text model, as a Hugging Face folder or name, whose vocabulary counts; "none" for none.

    Returns:
        ``tokenizer`` and ``train_on`` of :class:`~clipbert_mm.datasets.transforms.Tokenize`. Without a text model, one
        vocabulary in the data folder, for all tasks, is trained on all captions and questions to train on that are there.
    """
    if bert != NONE:
        return dict(tokenizer=bert, train_on=[])
    files = [os.path.join(data_root, f"{name}.jsonl") for name in TO_TRAIN_ON]
    return dict(
        tokenizer=os.path.join(data_root, "tokenizer"),
        train_on=[path for path in files if os.path.isfile(path)] or files[:1],
    )


def count_answers(answer_file: str) -> int:
    """Return the size of an answer vocabulary; 1 if there is no such file, of which the dataset tells.

    Raises:
        AnnotationError: If the file is no answer vocabulary.
    """
    return len(read_answers(answer_file)) if os.path.isfile(answer_file) else 1
