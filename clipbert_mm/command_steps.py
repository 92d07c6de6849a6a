"""What the sub-commands of ``clipbert`` share: opening the model and the index, and printing."""

import argparse
import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from clipbert_mm.errors import VideoIndexError, encodable, quoted

if TYPE_CHECKING:  # these imports take seconds, which `clipbert --help` does without
    from clipbert_mm.apis.results import Record
    from clipbert_mm.apis.video_search import VideoSearch


@contextmanager
def importing() -> Iterator[None]:
    """Leave out garbage collection while libraries are imported, and what they hold from then on.

    Their 4,000 modules last as long as the process; to go through their objects again and again while they grow, and once
    more when the process ends, takes a third of the time of a short command.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def index_folder(args: argparse.Namespace) -> str:
    """Return the folder of the index that the command line names, or the default one."""
    from clipbert_mm.index import default_folder

    return args.index or default_folder()


@importing()
def open_search(args: argparse.Namespace) -> "VideoSearch":
    """Open the model of the command line, or the one that made the index."""
    from clipbert_mm.apis.video_search import VideoSearch

    return VideoSearch(
        model_of(args),
        args.device,
        index=index_folder(args),
        weights=args.weights,
        precision=args.precision,
        pooling=getattr(args, "pooling", None),
    )


def model_of(args: argparse.Namespace) -> str:
    """Return the model of the command line, or the one that made the index.

    Raises:
        VideoIndexError: If there is no index, or its model cannot be opened without running code.
    """
    from clipbert_mm.index.engines import open_index

    if args.model is not None:
        return args.model
    folder = index_folder(args)
    manifest = open_index(folder).manifest
    if not manifest:
        first = {"search": "Index videos first: clipbert index FOLDER --model CHECKPOINT"}
        advice = first.get(args.command, "Give the model: --model CHECKPOINT")
        raise VideoIndexError(f"There is no index {folder}, which would name the model. {advice}.")
    return checked_source(folder, manifest["source"])


def checked_source(folder: str, source: str) -> str:
    """Return the model that made an index, if it can be opened without running code.

    Raises:
        VideoIndexError: If it cannot.
    """
    from clipbert_mm.checkpoint.public import is_public

    if source.endswith(".py"):
        raise VideoIndexError(
            f"The index {folder} was made with the config {quoted(source)}. A config is Python code and runs only on "
            "request: --model CONFIG --weights CHECKPOINT."
        )
    if not os.path.isfile(source) and not is_public(source):
        raise VideoIndexError(
            f"The index {folder} was made with the checkpoint {quoted(source)}, which does not exist. Give its path: "
            "--model CHECKPOINT."
        )
    return source


def show(record: "Record", args: argparse.Namespace) -> None:
    """Print a result, as JSON if that is asked for."""
    print_value(record.to_dict() if args.json else str(record))


def print_value(value: Any) -> None:  # noqa: ANN401
    """Print a text, or a value as JSON; file names that are not UTF-8 with their bytes escaped."""
    text = encodable(value) if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)
    if not isinstance(value, str) and encodable(text) != text:
        text = json.dumps(value, indent=2)
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def note(message: str) -> None:
    """Print a line to standard error, which is not part of the output."""
    sys.stderr.write(f"{message}\n")
