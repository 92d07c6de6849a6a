"""Reading JSON and JSON-lines annotation files, with errors that name the line."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from clipbert_mm.errors import AnnotationError, quoted
from clipbert_mm.json_text import BOM, decode, is_blank, parse_json, refuse_half_characters

MEDIA_KEYS = ("video", "image", "clip_name", "gif_name", "video_id", "image_id", "coco_id", "vg_id")
"""Where a record names its file, by our key, then by those of the paper's release. The first that is there counts."""
LINE = 16 * 2**20
"""Longest line of a JSON-lines file, in bytes."""


def read_records(
    path: str,
    keys: Mapping[str, type | tuple[type, ...]],
    example: str,
    fault_of: Callable[[Mapping[str, Any]], str] = lambda record: "",
) -> list[dict[str, Any]]:
    """Read a JSON-lines file: one object a line, blank lines are left out, as is a byte-order mark.

    Args:
        path: The file.
        keys: What every record needs beside its file, with its type; text has to have something in it.
        example: A line as it should be, for errors.
        fault_of: Says what was expected and what came where the values of a record do not go together, else nothing.

    Returns:
        The records, each with the name of its file under ``media``, whatever key it had.

    Raises:
        AnnotationError: If the file is missing or has no record, if a line is not UTF-8 or no JSON object, or if a record
            has a key twice, lacks one, has something else under it or has a fault.
    """
    if not os.path.isfile(path):
        raise AnnotationError(
            f"There is no annotation file {os.path.abspath(path)}. Set data_root and ann_file of the dataset; the file has "
            f"lines such as {example}."
        )
    expected = f"a JSON object such as {example}"
    records = []
    shared: dict[str, str] = {}
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(LINE), b""), start=1):
            where = f"{path}, line {number}"
            if len(line) == LINE:
                raise AnnotationError(f"{where}: expected {expected}, got {LINE >> 20} MiB or more in one line.")
            text = decode(line.removeprefix(BOM) if number == 1 else line, where)
            if not text.strip():
                continue
            record = parse_json(text, where, expected)
            if not isinstance(record, dict):
                raise AnnotationError(f"{where}: expected {expected}, got {quoted(record)}.")
            key = _check(record, keys, where, example)
            # One string for each key, however many records.
            kept = {shared.setdefault(word, word): value for word, value in record.items() if word != key}
            refuse_half_characters(kept, text, where)
            if fault := fault_of(record):
                raise AnnotationError(f"{where}: {fault}")
            records.append({"media": str(record[key]), **kept})
    if not records:
        raise AnnotationError(f"The annotation file {path} is empty. It needs lines such as {example}.")
    return records


def _check(record: Mapping[str, Any], keys: Mapping[str, type | tuple[type, ...]], where: str, example: str) -> str:
    """See that a record names its file and has what it needs; returns the key that names the file."""
    key = next((key for key in MEDIA_KEYS if key in record), None)
    name = None if key is None else record[key]
    is_number = isinstance(name, int) and str(key).endswith("_id")  # of images, in the paper's release
    if key is None or not (is_number or (isinstance(name, str) and _is_file_name(name))):
        found = f"has {quoted(sorted(record))}" if key is None else f"got {quoted(name)}"
        raise AnnotationError(f'{where}: expected text under the key "{_media_key(example)}", {found}.')
    for wanted, kind in keys.items():
        value = record.get(wanted)
        blank = isinstance(value, str) and is_blank(value)
        if not isinstance(value, kind) or isinstance(value, bool) or blank:
            found = f"has {quoted(sorted(record))}" if wanted not in record else f"got {quoted(value)}"
            raise AnnotationError(f'{where}: expected {_word(kind)} under the key "{wanted}", {found}.')
    return key


def _is_file_name(name: str) -> bool:
    """Whether a file can have this name; one that is not UTF-8 has surrogates for its bytes."""
    if not name.strip() or "\0" in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _media_key(example: str) -> str:
    return next(key for key in MEDIA_KEYS if f'"{key}"' in example)


def _word(kind: type | tuple[type, ...]) -> str:
    """Name a type of JSON's.

    >>> _word((int, float))
    'a number'
    """
    words = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}
    return words[kind[-1] if isinstance(kind, tuple) else kind]
