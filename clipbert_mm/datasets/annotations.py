"""Reading JSON-lines annotation files, with errors that name the line."""

import json
import os
from typing import Any

EXAMPLE = '{"video": "a.mp4", "caption": "what happens in it"}'


class AnnotationError(ValueError):
    """An annotation file, or what it points to, that cannot be used."""


def read_records(path: str, keys: tuple[str, ...]) -> list[dict[str, Any]]:
    """Read a JSON-lines file: one object a line, blank lines are left out.

    Args:
        path: The file.
        keys: What every record needs, each with text in it.

    Raises:
        AnnotationError: If the file is missing or has no record, if a line is not UTF-8 or no JSON object, or if a record
            lacks a key.
    """
    if not os.path.isfile(path):
        raise AnnotationError(
            f"There is no annotation file {os.path.abspath(path)}. Set data_root and ann_file of the dataset; the file has "
            f"one line for each pair: {EXAMPLE}."
        )
    records = []
    with open(path, "rb") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            try:
                record = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise AnnotationError(f"{path}, line {number}: expected UTF-8, got {error}.") from None
            except json.JSONDecodeError as error:
                text = line.decode("utf-8").strip()
                raise AnnotationError(
                    f"{path}, line {number}: expected a JSON object such as {EXAMPLE}, got {text[:80]!r} ({error})."
                ) from None
            if not isinstance(record, dict):
                raise AnnotationError(
                    f"{path}, line {number}: expected a JSON object such as {EXAMPLE}, got {record!r}."
                )
            for key in keys:
                if not isinstance(record.get(key), str) or not record[key].strip():
                    found = f"has {sorted(record)}" if key not in record else f"got {record[key]!r}"
                    raise AnnotationError(f'{path}, line {number}: expected text under the key "{key}", {found}.')
            records.append(record)
    if not records:
        raise AnnotationError(f"The annotation file {path} is empty. It needs one line for each pair: {EXAMPLE}.")
    return records


def check_files(paths: list[str], ann_file: str) -> None:
    """See that every file that an annotation file names is there.

    Args:
        paths: The files, each once.
        ann_file: Who names them.

    Raises:
        AnnotationError: If any is missing: how many, and the first.
    """
    missing = [path for path in paths if not os.path.isfile(path)]
    if missing:
        raise AnnotationError(
            f"{len(missing)} of {len(paths)} files named in {ann_file} are missing; the first is "
            f"{os.path.abspath(missing[0])}. Set data_root and media_folder of the dataset to where they lie, or take the "
            "lines out of the annotation file."
        )
