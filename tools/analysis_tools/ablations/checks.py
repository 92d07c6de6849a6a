"""Checks of what people write into table files and of files that a run has left: each says in a sentence what is wrong."""

import difflib
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clipbert_mm.errors import ClipBertError, OptionError, is_count, printable, quoted


@dataclass(frozen=True)
class Kind:
    """A kind of value.

    Args:
        words: What it is, for messages.
        fits: Whether a value is one.
    """

    words: str
    fits: Callable[[Any], bool]


def _is_dict(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_list(value: Any, fits: Callable[[Any], bool]) -> bool:
    return isinstance(value, (list, tuple)) and all(map(fits, value))


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


TEXT = Kind("a text", _is_text)
TEXTS = Kind("a list of texts", lambda value: _is_list(value, _is_text))
FLAG = Kind("True or False", lambda value: isinstance(value, bool))
COUNT = Kind("a whole number from 1", is_count)
SEEDS = Kind(
    "a list of whole numbers from 0, one at least",
    lambda value: bool(value) and _is_list(value, lambda each: is_count(each, 0)),
)
NUMBER_FROM_0 = Kind("a number from 0", lambda value: _is_number(value) and value >= 0)
LIST = Kind("a list", lambda value: isinstance(value, (list, tuple)))
DICT = Kind("a dict with texts as keys", _is_dict)
DICTS = Kind("a dict of dicts", lambda value: _is_dict(value) and all(map(_is_dict, value.values())))
LIST_OF_DICTS = Kind("a list of dicts", lambda value: _is_list(value, _is_dict))
LABELS = Kind("a dict", lambda value: isinstance(value, Mapping))
TASKS_OF_ROW = Kind(
    "a dict of dicts, or None for a task that the row is not for",
    lambda value: _is_dict(value) and all(each is None or _is_dict(each) for each in value.values()),
)
START = Kind("a text or a list of texts", lambda value: _is_text(value) or TEXTS.fits(value))
TWO_ROWS = Kind("a list of two different rows", lambda value: TEXTS.fits(value) and len(set(value)) == len(value) == 2)
AXIS = Kind('"clips" or "frames"', lambda value: value in ("clips", "frames"))
WEIGHTS = Kind(
    "a dict of rows and their weights, which are numbers",
    lambda value: bool(value) and _is_dict(value) and all(map(_is_number, value.values())),
)


def expect(value: Any, kind: Kind, who: str) -> None:
    """Check that a value is of a kind.

    Raises:
        OptionError: If it is not.
    """
    if not kind.fits(value):
        raise OptionError(f"{who} expects {kind.words}, got {quoted(value)}.")


def check_entries(entries: Any, kinds: Mapping[str, Kind], who: str) -> None:
    """Check that a dict has only keys that are known, each with a value of its kind, or None, which is as left out.

    Raises:
        OptionError: If it has others.
    """
    expect(entries, DICT, who)
    for key, value in entries.items():
        if key not in kinds:
            raise OptionError(f"{who} has no '{key}'. {hint(key, kinds)}")
        if value is not None:
            expect(value, kinds[key], f"{who}: {key}")


def hint(name: str, known: Collection[str]) -> str:
    """Return a sentence with the known names that are like one that is not known, or with all of them.

    >>> hint("strat", ["start", "test"]), hint("x", ["start", "test"])
    ('Did you mean start?', 'There are: start, test.')
    """
    near = difflib.get_close_matches(name, known, n=3)
    return f"Did you mean {' or '.join(near)}?" if near else f"There are: {', '.join(known) or 'none'}."


@contextmanager
def naming(path: Path, advice: str) -> Iterator[None]:
    """Name a file, and what to do about it, in the error that reading its content ends with.

    Args:
        path: The file.
        advice: What to do, as a sentence.

    Raises:
        OptionError: If the content cannot be used. Errors that name what is wrong themselves stay as they are.
    """
    try:
        yield
    except (ClipBertError, OSError):
        raise
    except Exception as error:
        what = str(error).replace("(<unknown>, ", "(")  # MMEngine parses a text without the name of its file
        raise OptionError(
            f"{printable(str(path))} cannot be used ({type(error).__name__}: {what}). {advice}"
        ) from error
