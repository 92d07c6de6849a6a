"""Records of an index: its videos, and files that cannot be read; parsed from files that nobody vouches for."""

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from clipbert_mm.errors import printable, quoted
from clipbert_mm.media import DECODING_RULES

DIGESTED_BYTES = 2**20
"""Bytes of the beginning, and of the end, of a file that its digest covers."""


@dataclass(frozen=True)
class Entry:
    """A video of an index.

    Args:
        path: Absolute path of the video.
        size: Size of the file in bytes, at the time of encoding.
        mtime_ns: Modification time of the file then, in nanoseconds.
        seconds: Duration of the video; None for images.
        clip_times: Start and end of each clip in seconds, K pairs; None for images.
        content_shape: Height and width of the image in the model's frame, without padding, in pixels.
        rules: Version of the decoding rules; see :data:`~clipbert_mm.media.DECODING_RULES`.
        digest: Digest of the file's size, beginning and end (:func:`file_digest`); empty in the index of an earlier release.
    """

    path: str
    size: int
    mtime_ns: int
    seconds: float | None
    clip_times: tuple[tuple[float, float], ...] | None
    content_shape: tuple[int, int]
    rules: int = 1
    digest: str = ""

    @property
    def key(self) -> str:
        """Name of the video in the index, which does not reveal its path."""
        return hashlib.sha256(self.path.encode(errors="surrogateescape")).hexdigest()[:32]

    def is_current(self) -> bool:
        """Whether the file is unchanged since it was encoded."""
        return _stamp(self.path) == (self.size, self.mtime_ns)

    def is_up_to_date(self) -> bool:
        """Whether indexing the video again would change nothing."""
        return self.rules == DECODING_RULES and self.is_current()


def name_below(path: str, folders: Sequence[str]) -> str:
    """Return the name that tells a video from the others of an index: its path below the outermost of the indexed folders.

    Of several such folders each name begins with the folder's own. A video in none of them has its file name.

    >>> name_below("/home/me/videos/cats/1.mp4", ["/home/me/videos", "/home/me/videos/cats"])
    'cats/1.mp4'
    >>> name_below("/mnt/b/1.mp4", ["/mnt/a", "/mnt/b"])
    'b/1.mp4'
    """
    starts = _name_starts(tuple(folders))
    found = next((starts[folder] for folder in _folders_above(path) if folder in starts), None)
    return os.path.basename(path) if found is None else path[len(found) :]


def name_starts(folders: Sequence[str]) -> list[tuple[str, str]]:
    """Return the outermost of some folders, each with what stands before the names of its videos; see :func:`name_below`.

    >>> name_starts(["/mnt/a", "/mnt/b", "/mnt/b/c"])
    [('/mnt/a', '/mnt/'), ('/mnt/b', '/mnt/')]
    """
    return list(_name_starts(tuple(folders)).items())


@lru_cache(maxsize=8)  # a list of videos is named one by one
def _name_starts(folders: tuple[str, ...]) -> dict[str, str]:
    outermost = outermost_folders(folders)
    return {
        folder: os.path.join(folder if len(outermost) == 1 else os.path.dirname(folder), "") for folder in outermost
    }


def outermost_folders(folders: Iterable[str]) -> list[str]:
    """Return those of some folders, or files, that are not below another one, each once.

    >>> outermost_folders(["/mnt/a", "/mnt/b/c", "/mnt/b", "/mnt/a"])
    ['/mnt/a', '/mnt/b']
    """
    given = dict.fromkeys(folders)
    return [folder for folder in given if not any(above in given for above in _folders_above(folder))]


def _folders_above(path: str) -> Iterator[str]:
    """Yield the folders that a path is in, from the innermost to the root."""
    while (above := os.path.dirname(path)) != path:
        yield above
        path = above


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, and its state then.

    Args:
        path: Absolute path of the file.
        size: Size of the file in bytes.
        mtime_ns: Modification time of the file, in nanoseconds.
        reason: Why it could not be read.
        rules: Version of the decoding rules.
    """

    path: str
    size: int
    mtime_ns: int
    reason: str
    rules: int = DECODING_RULES

    def is_current(self) -> bool:
        """Whether the file is unchanged, and would be read by the same rules."""
        return self.rules == DECODING_RULES and _stamp(self.path) == (self.size, self.mtime_ns)


def file_digest(path: str | os.PathLike) -> str:
    """Return a digest, 32 hexadecimal digits, of a file's size and of its first and last MiB.

    Files of one digest are copies of one another but for a deliberate forgery; a video of gigabytes is not read as a whole.

    Raises:
        OSError: If it cannot be read.
    """
    digest = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(size.to_bytes(8, "little"))
        digest.update(file.read(DIGESTED_BYTES))
        file.seek(max(DIGESTED_BYTES, size - DIGESTED_BYTES))
        digest.update(file.read(DIGESTED_BYTES))
    return digest.hexdigest()


def _stamp(path: str) -> tuple[int, int] | None:
    """Return size and modification time of a file; None if they cannot be read."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_size, status.st_mtime_ns


def shown(value: Any) -> str:  # noqa: ANN401
    """Format a value of a manifest for a message."""
    return printable(value) if isinstance(value, str) and len(value) <= 200 and value.isprintable() else quoted(value)


def expect(value: Any, types: Any, name: str) -> Any:  # noqa: ANN401
    """Return a value of a manifest after checking its type.

    Raises:
        TypeError: If it is of another type.
    """
    if not isinstance(value, types) or isinstance(value, bool):
        raise TypeError(f"{name} is {quoted(value, 60)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{name} is {value}")
    return value


def unreadable_from(values: dict[str, Any]) -> Unreadable:
    """Parse the record of an unreadable file; raises as :func:`entry_from`."""
    return Unreadable(
        path=expect(values["path"], str, "path"),
        size=expect(values["size"], int, "size"),
        mtime_ns=expect(values["mtime_ns"], int, "mtime_ns"),
        reason=expect(values["reason"], str, "reason"),
        rules=expect(values["rules"], int, "rules"),
    )


def entry_from(values: dict[str, Any]) -> Entry:
    """Parse the record of a video, from a manifest or a file of visual tokens.

    Raises:
        KeyError: If a field is missing.
        TypeError: If a field is of the wrong type.
        ValueError: If a field has the wrong length, or the path is not absolute.
    """
    path, number, times = expect(values["path"], str, "path"), (int, float), values["clip_times"]
    if not os.path.isabs(path):
        raise ValueError(f"expected an absolute path, got {quoted(path)}")
    height, width = expect(values["content_shape"], list, "content_shape")
    if times is not None:
        times = expect(times, list, "clip_times")
        times = tuple((expect(start, number, "clip_times"), expect(end, number, "clip_times")) for start, end in times)
    return Entry(
        path=path,
        size=expect(values["size"], int, "size"),
        mtime_ns=expect(values["mtime_ns"], int, "mtime_ns"),
        seconds=expect(values["seconds"], (int, float, type(None)), "seconds"),
        clip_times=times,
        content_shape=(expect(height, int, "content_shape"), expect(width, int, "content_shape")),
        rules=expect(values.get("rules", 1), int, "rules"),
        digest=expect(values.get("digest", ""), str, "digest"),
    )
