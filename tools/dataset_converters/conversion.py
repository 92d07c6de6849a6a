"""What the converters in tools/dataset_converters share: reading publishers' files strictly, writing ours whole."""

import csv
import hashlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from clipbert_mm.errors import AnnotationError, quoted
from clipbert_mm.json_text import (
    ANY_KEYS,
    BOM,
    UNIQUE_KEYS,
    decode,
    is_blank,
    parse_json,
    reject_unpaired_surrogates,
)

Published = int | tuple[int, ...] | None
"""How many were published, of each version where the publisher changed the file; None if no number was published."""
Count = tuple[str, int, Published]
"""What is counted, how many there are, and how many were published."""


def read_text(path: str | os.PathLike) -> list[str]:
    """Read the lines of a text file.

    Raises:
        AnnotationError: If there is no such file, or a line is not UTF-8.
    """
    if not os.path.isfile(path):
        raise AnnotationError(f"There is no file {os.path.abspath(path)}.")
    with open(path, "rb") as file:
        lines = file.read().removeprefix(BOM).splitlines()
    return [decode(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]


def read_table(
    path: str | os.PathLike, columns: Sequence[str], separators: str = ","
) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table with a header, row by row.

    Args:
        path: The file.
        columns: Columns that it needs; more may be there.
        separators: Characters that may stand between columns; the header tells which does.

    Yields:
        The number of the row's line and the row.

    Raises:
        AnnotationError: If the file cannot be read, a column is missing, or a row has more or fewer cells than the header.
    """
    lines = read_text(path)
    headers = {separator: _header_of(lines, separator) for separator in separators}
    separator = next((each for each in separators if set(columns) <= set(headers[each])), None)
    if separator is None:
        known = " or ".join(repr(separator) for separator in separators)
        found = quoted(lines[0] if lines else "")
        raise AnnotationError(
            f"{path}, line 1: expected the columns {', '.join(columns)}, separated by {known}, got {found}."
        )
    names = headers[separator]
    for number, cells in _split_lines(lines, separator, str(path)):
        if number == 1:
            continue
        if len(cells) != len(names):
            raise AnnotationError(
                f"{path}, line {number}: expected {len(names)} cells between {separator!r}, got {len(cells)}."
            )
        yield number, dict(zip(names, cells, strict=True))


def read_rows(path: str | os.PathLike, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Read a table between tabs that has no header, row by row.

    Args:
        path: The file.
        columns: What its columns are.

    Yields:
        The number of the row's line and the row.

    Raises:
        AnnotationError: If the file cannot be read, has no row, or a row has more or fewer cells than there are columns.
    """
    number = 0
    for number, cells in _split_lines(read_text(path), "\t", str(path)):
        if len(cells) != len(columns):
            raise AnnotationError(
                f"{path}, line {number}: expected {len(columns)} cells between tabs ({', '.join(columns)}), got {len(cells)}."
            )
        yield number, dict(zip(columns, cells, strict=True))
    expect(number > 0, str(path), "a row for each sentence", "none")


def read_names(path: str | os.PathLike) -> Iterator[tuple[str, str]]:
    """Read a list of names, one per line without a header; yields where each stands, for errors, and the name.

    Raises:
        AnnotationError: If there is no such file, it is empty, or a name comes twice.
    """
    seen: set[str] = set()
    for number, line in enumerate(read_text(path), start=1):
        if name := line.strip():
            expect_once(name, seen, f"{path}, line {number}", "name")
            yield f"{path}, line {number}", name
    expect(bool(seen), str(path), "a line for each name", "none")


def _header_of(lines: list[str], separator: str) -> list[str]:
    """Return the names in the first line; none where it cannot be split."""
    try:
        return next((cells for _, cells in _split_lines(lines[:1], separator, "")), [])
    except AnnotationError:
        return []


def _split_lines(lines: list[str], separator: str, path: str) -> Iterator[tuple[int, list[str]]]:
    """Split lines into cells; yields the number of each line with something in it, and its cells, without white space."""
    by_tabs = separator == "\t"
    rows = csv.reader(lines, delimiter=separator, quoting=csv.QUOTE_NONE if by_tabs else csv.QUOTE_MINIMAL)
    number = 0
    try:
        for cells in rows:
            number += 1
            if rows.line_num > number:
                raise AnnotationError(
                    f"{path}, line {number}: expected a row, got a quotation mark that nothing closes."
                )
            if cells:
                yield number, [_unquote(cell) if by_tabs else cell.strip() for cell in cells]
    except csv.Error as error:
        raise AnnotationError(f"{path}, line {number + 1}: expected a row, got {error}.") from None


def _unquote(cell: str) -> str:
    """Take off the quotation marks that programs put around cells; between tabs, one inside is a character like others.

    >>> _unquote('"a ""b"" c"'), _unquote('a 5" disk')
    ('a "b" c', 'a 5" disk')
    """
    cell = cell.strip()
    if len(cell) > 1 and cell.startswith('"') and cell.endswith('"'):
        return cell[1:-1].replace('""', '"').strip()
    return cell


def read_json(path: str | os.PathLike) -> Any:
    """Read a JSON file.

    Raises:
        AnnotationError: If there is no such file, or it is no JSON.
    """
    return _parse_json(path, ANY_KEYS)


def read_json_by_id(path: str | os.PathLike) -> dict[str, dict[str, Any]]:
    """Read a JSON file of one object from ids to objects.

    Raises:
        AnnotationError: If there is no such file, it is something else, or a key stands in an object twice.
    """
    items = _parse_json(path, UNIQUE_KEYS)
    expect(isinstance(items, dict) and bool(items), str(path), "a JSON object from ids to objects", items)
    for name, item in items.items():
        expect(isinstance(item, dict), f"{path}, {quoted(name)}", "a JSON object", item)
    return items


def read_entries(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a JSON file of a list of objects; yields where each stands, for errors, and the object.

    Raises:
        AnnotationError: If there is no such file, or it is something else.
    """
    yield from number_entries(read_json(path), str(path))


def number_entries(entries: object, where: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Go through a list of objects; yields where each stands, counted from 1, and the object.

    Args:
        entries: What should be the list.
        where: Where the list stands.

    Raises:
        AnnotationError: If it is no list of objects, or an empty one.
    """
    if not isinstance(entries, list) or not entries:
        raise AnnotationError(f"{where}: expected a JSON list of objects, got {quoted(entries)}.")
    for number, entry in enumerate(entries, start=1):
        place = f"{where}, entry {number}"
        expect(isinstance(entry, dict), place, "a JSON object", entry)
        yield place, entry


def read_json_lines(path: str | os.PathLike) -> Iterator[tuple[str, dict[str, Any]]]:
    """Read a file of one JSON object a line; yields where each stands, for errors, and the object.

    Raises:
        AnnotationError: If there is no such file, or a line is something else.
    """
    for number, line in enumerate(read_text(path), start=1):
        if line.strip():
            where = f"{path}, line {number}"
            entry = parse_json(line, where, "a JSON object")
            reject_unpaired_surrogates(entry, line, where)
            expect(isinstance(entry, dict), where, "a JSON object", entry)
            yield where, entry


def _parse_json(path: str | os.PathLike, decoder: json.JSONDecoder) -> Any:
    text = "\n".join(read_text(path))
    value = parse_json(text, str(path), decoder=decoder)
    reject_unpaired_surrogates(value, text, str(path))
    return value


def expect(condition: bool, where: str, expected: str, got: object) -> None:
    """See that a publisher's file is as it should be.

    Raises:
        AnnotationError: If ``condition`` does not hold.
    """
    if not condition:
        raise AnnotationError(f"{where}: expected {expected}, got {quoted(got)}.")


def expect_once(value: object, seen: set, where: str, what: str) -> None:
    """Add to ``seen`` what must not come twice.

    Raises:
        AnnotationError: If it is there.
    """
    if value in seen:
        raise AnnotationError(f"{where}: expected each {what} once, got {quoted(value)} again.")
    seen.add(value)


def text_in(entry: Mapping[str, Any], key: str, where: str, may_be_blank: bool = False) -> str:
    """Return the text under a key, without the white space around it.

    Raises:
        AnnotationError: If there is no such key, or something else under it.
    """
    value = entry.get(key)
    if not isinstance(value, str) or not (may_be_blank or not is_blank(value)):
        raise AnnotationError(f'{where}: expected text under the key "{key}", {_found(entry, key)}.')
    return value.strip()


def whole_number_in(entry: Mapping[str, Any], key: str, where: str) -> int:
    """Return the whole number under a key.

    Raises:
        AnnotationError: If there is no such key, or something else under it.
    """
    value = entry.get(key)
    if not isinstance(value, int) or isinstance(value, bool):
        raise AnnotationError(f'{where}: expected a whole number under the key "{key}", {_found(entry, key)}.')
    return value


def _found(entry: Mapping[str, Any], key: str) -> str:
    return f"got {quoted(entry[key])}" if key in entry else f"has {quoted(sorted(entry))}"


def check_suffix(suffix: str | None) -> None:
    """See that a file ending that the user gave is one: it begins with a dot, or is empty.

    Raises:
        AnnotationError: If not.
    """
    expect(not suffix or (suffix.startswith(".") and len(suffix) > 1), "--suffix", "a file ending such as .mp4", suffix)


def draw(items: Sequence[str], size: int, seed: int) -> list[str]:
    """Draw without replacement, in a way that no version of Python or NumPy changes: those of the smallest digests."""
    return sorted(items, key=lambda item: hashlib.sha256(f"{seed} {item}".encode()).digest())[:size]


def most_common_answers(answers: Iterable[str], size: int) -> dict[str, int]:
    """Return the vocabulary of the ``size`` most common answers, the most common first; ties go by the alphabet.

    >>> most_common_answers(["b", "a", "b", "c"], 2)
    {'b': 0, 'a': 1}
    """
    counted = sorted(Counter(answers).items(), key=lambda item: (-item[1], item[0]))
    return {answer: place for place, (answer, _) in enumerate(counted[:size])}


def format_count(what: str, found: int, published: Published) -> str:
    """Return a count next to the published one, as text.

    >>> format_count("test pairs", 999, 1000)
    'test pairs: 999 (published: 1,000, so 1 is missing)'
    >>> format_count("questions", 18, (20, 19))
    'questions: 18 (published: 20 or 19, so 1 is missing)'
    """
    if published is None:
        return f"{what}: {found:,}"
    numbers = published if isinstance(published, tuple) else (published,)
    if found in numbers:
        return f"{what}: {found:,} (as published)"
    nearest = min(numbers, key=lambda number: abs(number - found))
    gap = abs(nearest - found)
    verb, side = "is" if gap == 1 else "are", "missing" if found < nearest else "too many"
    return f"{what}: {found:,} (published: {' or '.join(f'{each:,}' for each in numbers)}, so {gap:,} {verb} {side})"


def format_drawn(what: str, found: int, wanted: int) -> str:
    """Return the size of a split that a converter draws, as text, with a warning where there is too little to draw from.

    >>> format_drawn("val videos", 522, 522)
    'val videos: 522 (drawn here, not published)'
    >>> format_drawn("val videos", 3, 522)
    'warning: val videos: 3 (drawn here, not published; 522 wanted)'
    """
    few = found < wanted
    return f"{'warning: ' * few}{what}: {found:,} (drawn here, not published{f'; {wanted:,} wanted' * few})"


def warn_of_shared(splits: Mapping[str, Iterable[str]]) -> list[str]:
    """Warn of videos that are in two splits.

    >>> warn_of_shared({"train": ["a", "b"], "val": ["b"], "test": ["c"]})
    ["warning: videos that both train and val have: 1, such as 'b'"]
    """
    lines = []
    for (first, own), (second, others) in itertools.combinations(splits.items(), 2):
        if shared := sorted(set(own) & set(others)):
            lines.append(
                f"warning: videos that both {first} and {second} have: {len(shared):,}, such as {quoted(shared[0])}"
            )
    return lines


def compare_counts(counts: Iterable[Count], strict: bool) -> list[str]:
    """Return counts next to the published ones, as text, with a warning where they differ.

    Args:
        counts: What is counted, how many there are, and how many were published.
        strict: Refuse differences.

    Raises:
        AnnotationError: If ``strict`` and a count differs.

    >>> compare_counts([("train videos", 3, 3), ("test videos", 2, 3)], strict=False)
    ['train videos: 3 (as published)', 'warning: test videos: 2 (published: 3, so 1 is missing)']
    """
    lines, differing = [], []
    for what, found, published in counts:
        line = format_count(what, found, published)
        differs = published is not None and found not in (published if isinstance(published, tuple) else (published,))
        lines.append(f"warning: {line}" if differs else line)
        if differs:
            differing.append(line)
    if strict and differing:
        raise AnnotationError(f"{'; '.join(differing)}. Nothing is written because of --strict.")
    return lines
