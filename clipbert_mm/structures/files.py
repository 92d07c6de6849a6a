"""Files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def written_whole(path: str | os.PathLike, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a file, of text or with mode "wb" of bytes, that appears under its name when it is whole.

    If an error ends its writing, it does not appear at all.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}-") as scratch:
        part = Path(scratch) / target.name
        with open(part, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, target)
    sync_folder(target.parent)


def sync_folder(folder: str | os.PathLike) -> None:
    """See that what was renamed in a folder stays so when the machine loses power."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
