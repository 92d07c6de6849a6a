"""Reading JSON-lines annotation files, with errors that name the line."""

import os
from collections.abc import Callable, Mapping
from typing import Any

from clipbert_mm.errors import AnnotationError, quoted
from clipbert_mm.json_text import BOM, decode, is_blank, parse_json, reject_unpaired_surrogates

MEDIA_KEYS = ("video", "image", "clip_name", "gif_name", "video_id", "image_id", "coco_id", "vg_id")
"""Keys that name the file of a record, ours and then those of the paper's release. The first one that a record has is used."""
MAX_LINE = 16 * 2**20
"""Bytes of a line of a JSON-lines file, at most."""


def read_records(
    path: str,
    keys: Mapping[str, type | tuple[type, ...]],
    example: str,
    fault_of: Callable[[Mapping[str, Any]], str] = lambda record: "",
) -> list[dict[str, Any]]:
    """Read a JSON-lines file: one object per line. Blank lines and a byte-order mark are skipped.

    Args:
        path: The file.
        keys: Keys that every record needs besides the one that names its file, with their types; text must not be blank.
        example: A correct line, for errors.
        fault_of: Returns what was expected and what came if the values of a record do not fit together, else "".

    Returns:
        The records, each with the name of its file under ``media``, whichever key the line had.

    Raises:
        AnnotationError: If the file is missing or has no record, if a line is not UTF-8 or not a JSON object, or if a record
            has a key twice, lacks a key, has a value of another type or has a fault.
    """
    if not os.path.isfile(path):
        raise AnnotationError(
            f"There is no annotation file {os.path.abspath(path)}. Set data_root and ann_file of the dataset; the file has "
            f"lines such as {example}."
        )
    expected = f"a JSON object such as {example}"
    records = []
    interned: dict[str, str] = {}  # one string per key, however many records
    with open(path, "rb") as file:
        for number, line in enumerate(iter(lambda: file.readline(MAX_LINE), b""), start=1):
            where = f"{path}, line {number}"
            if len(line) == MAX_LINE:
                raise AnnotationError(f"{where}: expected {expected}, got {MAX_LINE >> 20} MiB or more in one line.")
            text = decode(line.removeprefix(BOM) if number == 1 else line, where)
            if not text.strip():
                continue
            record = parse_json(text, where, expected)
            if not isinstance(record, dict):
                raise AnnotationError(f"{where}: expected {expected}, got {quoted(record)}.")
            media_key = _check_record(record, keys, where, example)
            others = {interned.setdefault(key, key): value for key, value in record.items() if key != media_key}
            reject_unpaired_surrogates(others, text, where)
            if fault := fault_of(record):
                raise AnnotationError(f"{where}: {fault}")
            records.append({"media": str(record[media_key]), **others})
    if not records:
        raise AnnotationError(f"The annotation file {path} is empty. It needs lines such as {example}.")
    return records


def _check_record(
    record: Mapping[str, Any], keys: Mapping[str, type | tuple[type, ...]], where: str, example: str
) -> str:
    """Check that a record names its file and has the keys that it needs; return the key that names the file."""
    key = next((key for key in MEDIA_KEYS if key in record), None)
    name = None if key is None else record[key]
    is_number = isinstance(name, int) and str(key).endswith("_id")  # of images, in the paper's release
    if key is None or not (is_number or (isinstance(name, str) and _is_file_name(name))):
        got = f"got the keys {quoted(sorted(record))}" if key is None else f"got {quoted(name)}"
        raise AnnotationError(f'{where}: expected text under the key "{_media_key(example)}", {got}.')
    for needed, kind in keys.items():
        value = record.get(needed)
        blank = isinstance(value, str) and is_blank(value)
        if not isinstance(value, kind) or isinstance(value, bool) or blank:
            got = f"got the keys {quoted(sorted(record))}" if needed not in record else f"got {quoted(value)}"
            raise AnnotationError(f'{where}: expected {_type_name(kind)} under the key "{needed}", {got}.')
    return key


def _is_file_name(name: str) -> bool:
    """Whether a file can have this name; bytes of a name that are not UTF-8 are surrogates."""
    if not name.strip() or "\0" in name:
        return False
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return False
    return True


def _media_key(example: str) -> str:
    return next(key for key in MEDIA_KEYS if f'"{key}"' in example)


def _type_name(kind: type | tuple[type, ...]) -> str:
    """Return the name of a JSON type, for errors.

    >>> _type_name((int, float))
    'a number'
    """
    names = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}
    return names[kind[-1] if isinstance(kind, tuple) else kind]
