"""Parsing JSON that others wrote, with errors that name file and line, and writing JSON lines."""

import json
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from clipbert_mm.errors import AnnotationError, quoted
from clipbert_mm.fileio import atomic_write

BOM = b"\xef\xbb\xbf"
"""Byte-order mark, which some programs write before UTF-8."""
ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")
"""An escaped surrogate in JSON, half of a character beyond 16 bits."""


def decode(data: bytes, where: str) -> str:
    """Decode UTF-8.

    Raises:
        AnnotationError: If the bytes are not UTF-8; the message begins with ``where``.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        got = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else error
        raise AnnotationError(f"{where}: expected UTF-8, got {got}. Save the file as UTF-8.") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of the pairs of a JSON object; the hook of :data:`UNIQUE_KEYS`.

    Raises:
        AnnotationError: If a key occurs twice.
    """
    record = dict(pairs)
    if len(record) < len(pairs):
        duplicate = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise AnnotationError(f"expected each key of an object once, got {quoted(duplicate)} again.")
    return record


ANY_KEYS, UNIQUE_KEYS = json.JSONDecoder(), json.JSONDecoder(object_pairs_hook=unique_keys)
"""Decoders, made once because making one takes longer than parsing a line. The second takes twice as long per line."""


def parse_json(text: str, where: str, expected: str = "JSON", decoder: json.JSONDecoder = UNIQUE_KEYS) -> Any:  # noqa: ANN401
    """Parse JSON.

    Args:
        text: The JSON.
        where: File and line, for errors.
        expected: What was expected, for errors.
        decoder: ``UNIQUE_KEYS`` or ``ANY_KEYS``.

    Raises:
        AnnotationError: If it is not JSON, is nested too deep, or has a key twice.
    """
    text = text.strip()
    try:
        return decoder.decode(text)
    except AnnotationError as error:
        raise AnnotationError(f"{where}: {error}") from None
    except json.JSONDecodeError as error:
        line = f", line {error.lineno}" if "\n" in text else ""
        around = quoted(text[max(error.pos - 40, 0) : error.pos + 40], 80) if text else "nothing"
        raise AnnotationError(f"{where}{line}: expected {expected}, got {around} ({error.msg}).") from None
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; deeply nested lists
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise AnnotationError(f"{where}: expected {expected}, got {quoted(text[:80])} ({reason}).") from None


def reject_unpaired_surrogates(value: object, text: str, where: str) -> None:
    """Check that no string of a JSON value has an unpaired surrogate, which can be neither written nor tokenized.

    Args:
        value: The parsed value.
        text: The JSON that it was parsed from.
        where: File and line, for errors.

    Raises:
        AnnotationError: If a string has one.
    """
    invalid = (
        (each for each in _strings(value) if not is_valid_unicode(each)) if ESCAPED_SURROGATE.search(text) else iter(())
    )
    if (bad := next(invalid, None)) is not None:
        raise AnnotationError(f"{where}: expected text, got an unpaired surrogate (half a character) in {quoted(bad)}.")


def is_valid_unicode(text: str) -> bool:
    r"""Whether a text has no unpaired surrogates.

    >>> is_valid_unicode("\U0001f600"), is_valid_unicode("\ud83d")
    (True, False)
    """
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)


def is_blank(text: str) -> bool:
    r"""Whether a text shows nothing: it has only white space, control and format characters.

    >>> is_blank("\u200b\ufeff \x07"), is_blank("a")
    (True, False)
    """
    return all(character.isspace() or unicodedata.category(character) in ("Cc", "Cf") for character in text)


def _strings(value: object) -> Iterator[str]:
    """Iterate over all strings in a JSON value, keys included."""
    remaining = [value]
    while remaining:
        each = remaining.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            remaining += [*each, *each.values()]
        elif isinstance(each, list):
            remaining += each


def write_records(records: Iterable[Mapping[str, Any]], path: str | os.PathLike) -> int:
    """Write a JSON-lines file, one record per line; return the number of lines."""
    count = 0
    with atomic_write(path) as file:
        for record in records:
            file.write(json_line(record))
            count += 1
    return count


def json_line(record: Mapping[str, Any]) -> str:
    r"""Return a record as a line of JSON in UTF-8. Bytes of file names that are not UTF-8 are escaped, and restored by reading.

    >>> print(json_line({"video": "café \udce9.mp4"}), end="")
    {"video": "café \udce9.mp4"}
    """
    text = json.dumps(record, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode() + "\n"
