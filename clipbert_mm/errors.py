"""The package's exceptions, all of them a ClipBertError, which tools print as one line; and user data in messages."""

import reprlib
from typing import Any, SupportsIndex

QUOTED = 200
"""Most characters of one piece of user data that a message quotes."""


class ClipBertError(Exception):
    """Base of all errors that a user can act on; the message says what was expected, what came, and what to do."""


class OptionError(ClipBertError, ValueError):
    """An option, setting or argument that cannot be used."""


class UnknownNameError(ClipBertError, KeyError):
    """A name that is not registered."""

    def __str__(self) -> str:
        """Return the message; a KeyError would put it in quotes."""
        return str(self.args[0]) if self.args else ""


class AnnotationError(ClipBertError, ValueError):
    """An annotation file, or what it points to, that cannot be used."""


class BrokenMediaError(ClipBertError, RuntimeError):
    """A video or image that cannot be read.

    Args:
        path: The file.
        reason: What is wrong with it. Empty when torch re-raises a worker's error: then ``path`` is the whole message.
    """

    def __init__(self, path: str, reason: str = "") -> None:
        super().__init__(path, reason)
        self.path = path
        self.reason = reason

    def __str__(self) -> str:
        """Return the message: the file and what is wrong with it."""
        return f"cannot read {printable(self.path)}: {self.reason}" if self.reason else self.path


class StorageError(ClipBertError, RuntimeError):
    """A storage of many files, such as an LMDB, that cannot be used: none of its files can be read."""


class CheckpointError(ClipBertError, ValueError):
    """A checkpoint that cannot be read, does not fit, or cannot be written."""


class VideoIndexError(ClipBertError, ValueError):
    """An index of videos, or stored results, that cannot be used."""


class BusyFolderError(ClipBertError, RuntimeError):
    """A folder that another process is writing to."""


class WorkerError(ClipBertError, RuntimeError):
    """A data-loading process that hung, crashed or was killed."""


class NotFiniteError(ClipBertError, FloatingPointError):
    """A loss, score or weight that is NaN or infinite."""


class BackendError(ClipBertError, RuntimeError):
    """A library that is not installed, or does not work."""


class ServerError(ClipBertError, RuntimeError):
    """A search server that cannot be reached, is slow, or answers something else than was asked for."""


def is_count(value: object, least: int = 1) -> bool:
    """Return whether a value is a whole number of at least ``least``.

    >>> is_count(3), is_count(0), is_count(2.0), is_count("2"), is_count(True)
    (True, False, False, False, False)
    """
    return isinstance(value, SupportsIndex) and not isinstance(value, bool) and value.__index__() >= least


def quoted(value: Any, limit: int = QUOTED) -> str:  # noqa: ANN401
    """Return the ``repr`` of user data for a message, cut to about ``limit`` characters.

    >>> quoted("a red circle")
    "'a red circle'"
    >>> quoted("a" * 1000, limit=20)
    "'aaaaaaaaaaaaa... (1,000 characters)"
    """
    if isinstance(value, str):
        whole = repr(value[:limit])
        if len(value) <= limit and len(whole) <= 2 * limit:
            return whole
        return f"{whole[: max(limit - 6, 0)]}... ({len(value):,} characters)"
    short = reprlib.Repr()
    short.maxlevel, short.maxdict, short.maxlist, short.maxtuple, short.maxset = 3, 8, 8, 8, 8
    short.maxstring = short.maxother = short.maxlong = 60
    text = short.repr(value)
    return text if len(text) <= limit else f"{text[:limit]}..."


def printable(path: str) -> str:
    r"""Return a path that any terminal can print: bytes that are not UTF-8 are escaped, a long path loses its middle.

    >>> print(printable("caf\udce9.mp4"))
    caf\xe9.mp4
    """
    if len(path) > 2 * QUOTED:
        path = f"{path[:QUOTED]}...{path[-QUOTED:]}"
    return encodable(path)


def encodable(text: str) -> str:
    r"""Return a text that any terminal can print, of any length: bytes that are not UTF-8 are escaped.

    >>> print(encodable("caf\udce9"))
    caf\xe9
    """
    try:
        return text.encode(errors="surrogateescape").decode(errors="backslashreplace")
    except UnicodeEncodeError:  # an unpaired surrogate, which no file name can hold
        return text.encode(errors="backslashreplace").decode()
