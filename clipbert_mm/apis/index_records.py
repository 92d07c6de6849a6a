"""What a gallery notes of its videos, and of files that could not be read; taken from a manifest that may be anybody's."""

import hashlib
import math
import os
from dataclasses import dataclass
from typing import Any

from clipbert_mm.datasets.transforms.decoding import RULES
from clipbert_mm.errors import printable, quoted


@dataclass(frozen=True)
class Entry:
    """A video of a gallery.

    Args:
        path: Absolute path of the video.
        size: Size of the file in bytes, when it was encoded.
        mtime_ns: When the file was last written to, in nanoseconds.
        seconds: Length of the video; None for images.
        clip_times: Start and end of each clip in seconds, K pairs; None for images.
        content_shape: Height and width of the picture in the model's frame, without padding, in pixels.
        rules: Version of the rules by which it was read; see :data:`~clipbert_mm.datasets.transforms.decoding.RULES`.
    """

    path: str
    size: int
    mtime_ns: int
    seconds: float | None
    clip_times: tuple[tuple[float, float], ...] | None
    content_shape: tuple[int, int]
    rules: int = 1

    @property
    def key(self) -> str:
        """Its name in the gallery, which tells nothing of its path."""
        return hashlib.sha256(self.path.encode(errors="surrogateescape")).hexdigest()[:32]

    def is_current(self) -> bool:
        """Whether the video is still the file that was encoded."""
        return _stamp(self.path) == (self.size, self.mtime_ns)

    def is_up_to_date(self) -> bool:
        """Whether indexing it again would change nothing."""
        return self.rules == RULES and self.is_current()


@dataclass(frozen=True)
class Unreadable:
    """A file that could not be read, as it was then.

    Args:
        path: Absolute path of the file.
        size: Size of the file in bytes.
        mtime_ns: When the file was last written to, in nanoseconds.
        reason: What is wrong with it.
        rules: Version of the rules by which it was read.
    """

    path: str
    size: int
    mtime_ns: int
    reason: str
    rules: int = RULES

    def is_current(self) -> bool:
        """Whether it is still that file, and would be read in the same way."""
        return self.rules == RULES and _stamp(self.path) == (self.size, self.mtime_ns)


def _stamp(path: str) -> tuple[int, int] | None:
    """Return what tells whether a file has changed: size and time of writing; None if it cannot be seen."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return found.st_size, found.st_mtime_ns


def shown(value: Any) -> str:  # noqa: ANN401
    """Return a value of a manifest for a message."""
    return printable(value) if isinstance(value, str) and len(value) <= 200 and value.isprintable() else quoted(value)


def expect(value: Any, kind: Any, name: str) -> Any:  # noqa: ANN401
    """Return a value of a manifest that has to be of some type.

    Raises:
        TypeError: If it is of another.
    """
    if not isinstance(value, kind) or isinstance(value, bool):
        raise TypeError(f"{name} is {quoted(value, 60)}")
    if isinstance(value, float) and not math.isfinite(value):
        raise TypeError(f"{name} is {value}")
    return value


def unreadable_from(values: dict[str, Any]) -> Unreadable:
    """Return what a manifest says of a file that could not be read; raises as :func:`entry_from`."""
    return Unreadable(
        path=expect(values["path"], str, "path"),
        size=expect(values["size"], int, "size"),
        mtime_ns=expect(values["mtime_ns"], int, "mtime_ns"),
        reason=expect(values["reason"], str, "reason"),
        rules=expect(values["rules"], int, "rules"),
    )


def entry_from(values: dict[str, Any]) -> Entry:
    """Return what a manifest, or a file of tokens, says of a video.

    Raises:
        KeyError: If something is missing.
        TypeError: If something is of the wrong type.
        ValueError: If something is not as long as it should be.
    """
    path, number, times = expect(values["path"], str, "path"), (int, float), values["clip_times"]
    if not os.path.isabs(path):
        raise ValueError(f"expected an absolute path, got {quoted(path)}")
    height, width = expect(values["content_shape"], list, "content_shape")
    if times is not None:
        times = tuple((expect(start, number, "clip_times"), expect(end, number, "clip_times")) for start, end in times)
    return Entry(
        path=path,
        size=expect(values["size"], int, "size"),
        mtime_ns=expect(values["mtime_ns"], int, "mtime_ns"),
        seconds=expect(values["seconds"], (int, float, type(None)), "seconds"),
        clip_times=times,
        content_shape=(expect(height, int, "content_shape"), expect(width, int, "content_shape")),
        rules=expect(values.get("rules", 1), int, "rules"),
    )
