"""JSON that comes from elsewhere, parsed with errors that say where and without half characters; and JSON lines of ours."""

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
"""What some programs put before UTF-8."""
HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")
"""Where JSON escapes half a character."""


def decode(data: bytes, where: str) -> str:
    """Decode UTF-8.

    Raises:
        AnnotationError: If it is something else.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        got = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else error
        raise AnnotationError(f"{where}: expected UTF-8, got {got}. Save the file as UTF-8.") from None


def unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Make a dict of the pairs of a JSON object.

    Raises:
        AnnotationError: If a key comes twice.
    """
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, times in Counter(key for key, _ in pairs).items() if times > 1)
        raise AnnotationError(f"expected each key of an object once, got {quoted(twice)} again.")
    return found


ANY_KEYS, UNIQUE_KEYS = json.JSONDecoder(), json.JSONDecoder(object_pairs_hook=unique_keys)
"""Made once, since making one takes longer than parsing a line. The second takes twice the time."""


def parse_json(text: str, where: str, expected: str = "JSON", decoder: json.JSONDecoder = UNIQUE_KEYS) -> Any:  # noqa: ANN401
    """Parse JSON.

    Args:
        text: The JSON.
        where: Where it stands, for errors.
        expected: What was expected, for errors.
        decoder: ``UNIQUE_KEYS`` or ``ANY_KEYS``.

    Raises:
        AnnotationError: If it is no JSON, is nested too deep, or has a key twice.
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
    except (ValueError, RecursionError) as error:  # a number of thousands of digits; lists in lists in lists
        reason = "it is nested too deep" if isinstance(error, RecursionError) else error
        raise AnnotationError(f"{where}: expected {expected}, got {quoted(text[:80])} ({reason}).") from None


def refuse_half_characters(value: object, text: str, where: str) -> None:
    """See that no text in a value of JSON has half a surrogate pair, which can neither be written nor tokenized.

    Args:
        value: The value.
        text: The JSON that it comes from.
        where: Where it stands.

    Raises:
        AnnotationError: If one has.
    """
    halves = (each for each in _texts(value) if not is_whole(each)) if HALF_ESCAPED.search(text) else iter(())
    if (bad := next(halves, None)) is not None:
        raise AnnotationError(f"{where}: expected text, got half a character (an unpaired surrogate) in {quoted(bad)}.")


def is_whole(text: str) -> bool:
    r"""Whether a text has no unpaired surrogates.

    >>> is_whole("\U0001f600"), is_whole("\ud83d")
    (True, False)
    """
    return text.isascii() or not any("\ud800" <= letter <= "\udfff" for letter in text)


def is_blank(text: str) -> bool:
    r"""Whether a text has nothing to be seen: white space, control and format characters alone.

    >>> is_blank("\u200b\ufeff \x07"), is_blank("a")
    (True, False)
    """
    return all(letter.isspace() or unicodedata.category(letter) in ("Cc", "Cf") for letter in text)


def _texts(value: object) -> Iterator[str]:
    """Go through all texts in a value of JSON, keys too."""
    rest = [value]
    while rest:
        each = rest.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, dict):
            rest += [*each, *each.values()]
        elif isinstance(each, list):
            rest += each


def write_records(records: Iterable[Mapping[str, Any]], path: str | os.PathLike) -> int:
    """Write JSON lines; returns how many."""
    count = 0
    with atomic_write(path) as file:
        for record in records:
            file.write(json_line(record))
            count += 1
    return count


def json_line(record: Mapping[str, Any]) -> str:
    r"""Return a record as a line of JSON in UTF-8; bytes of a file's name that are none are escaped, and come back at reading.

    >>> print(json_line({"video": "café \udce9.mp4"}), end="")
    {"video": "café \udce9.mp4"}
    """
    text = json.dumps(record, ensure_ascii=False)
    return text.encode(errors="backslashreplace").decode() + "\n"
